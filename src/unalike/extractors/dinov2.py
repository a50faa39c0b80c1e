"""DINOv2: self-supervised features of objects, shapes and textures."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import Dinov2Model

from unalike.extractors.base import Extractor, pretrained
from unalike.extractors.resizing import squared

SIDE = 224
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Dinov2(Extractor):
    """The class token of DINOv2 after its last normalisation.

    Source: Oquab et al. 2023 (arXiv:2304.07193). The default is ViT-L/14, and images are squeezed
    to 224×224, both as in FD-DINOv2 (Stein et al. 2023, arXiv:2306.04675), so that Fréchet
    distances compare with published ones; "dinov2:facebook/dinov2-base" is four times smaller.

    Args:
        source: a folder that `Dinov2Model.save_pretrained` wrote, or a hub id.
        device, batch_size: as for `Extractor`.

    Cost: one pass of the network an image.
    """

    name = "dinov2"
    resizing = f"resized to {SIDE}×{SIDE} (bicubic); other shapes than a square are squeezed"

    def __init__(self, source: str, *, device: str = "auto", batch_size: int = 32) -> None:
        super().__init__(
            pretrained(Dinov2Model, source, "dinov2", dtype=torch.float32),
            device=device,
            batch_size=batch_size,
        )
        self.basis = f"class tokens of DINOv2 ({Path(source).name}), compared by their cosine"

    def embed(self, images: Tensor) -> Tensor:
        """The class tokens of the batch."""
        pixels = squared(images, SIDE)
        mean, std = (torch.tensor(v).to(pixels).view(3, 1, 1) for v in (MEAN, STD))
        return self.model(pixel_values=(pixels - mean) / std).pooler_output
