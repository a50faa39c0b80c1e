"""CLIP: images and prompts in one space."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from unalike.extractors.base import Extractor, pretrained
from unalike.extractors.resizing import cropped

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class Clip(Extractor):
    """Embeddings of CLIP's image tower after its projection, not normalised.

    Larger cosines mean that images are about the same thing.

    Source: Radford et al. 2021 (arXiv:2103.00020). The default is ViT-B/32, which CLIPScore (Hessel
    et al. 2021, arXiv:2104.08718) uses. The preprocessing equals that of transformers'
    CLIPImageProcessor but for its rounding to whole numbers of 255, and gradients pass through it.

    Args:
        source: a folder that `CLIPModel.save_pretrained` wrote, or a hub id.
        device, batch_size: as for `Extractor`.

    Cost: one pass of the image tower an image.
    """

    name = "clip"

    def __init__(self, source: str, *, device: str = "auto", batch_size: int = 32) -> None:
        super().__init__(
            pretrained(CLIPModel, source, "clip", dtype=torch.float32),
            device=device,
            batch_size=batch_size,
        )
        self.source = source
        self.side = int(self.model.config.vision_config.image_size)
        self.basis = f"image embeddings of CLIP ({Path(source).name}), compared by their cosine"
        self.resizing = (
            f"shorter edge resized to {self.side} (bicubic), middle {self.side}×{self.side} cut out"
        )

    def prepared(self, images: Tensor) -> Tensor:
        """Pixels (n, 3, side, side) for the image tower: resized, cropped and normalised."""
        pixels = cropped(images, self.side)
        mean, std = (torch.tensor(v).to(pixels).view(3, 1, 1) for v in (MEAN, STD))
        return (pixels - mean) / std

    def embed(self, images: Tensor) -> Tensor:
        """The projected embeddings of the batch."""
        pooled = self.model.vision_model(pixel_values=self.prepared(images)).pooler_output
        return self.model.visual_projection(pooled)

    @torch.no_grad()
    def prompt_features(self, prompts: Sequence[str]) -> Tensor:
        """Projected embeddings (n, d) of prompts, cut off at the text tower's 77 tokens."""
        parts = [
            self._text(prompts[i : i + self.batch_size])
            for i in range(0, len(prompts), self.batch_size)
        ]
        found = torch.cat(parts).float().cpu()
        self.require_finite(found, "prompt")
        return found

    def _text(self, prompts: Sequence[str]) -> Tensor:
        length = self.model.config.text_config.max_position_embeddings
        tokens = self._tokenizer(
            list(prompts), padding=True, truncation=True, max_length=length, return_tensors="pt"
        ).to(self.device)
        return self.model.text_projection(self.model.text_model(**tokens).pooler_output)

    @cached_property
    def _tokenizer(self) -> Any:
        return pretrained(CLIPTokenizer, self.source, "clip")
