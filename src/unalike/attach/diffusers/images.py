"""Decode and embed predictions and earlier images, for methods that compare features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from unalike.attach.diffusers.decoding import Decoder
from unalike.errors import NumericsError, OptionError
from unalike.memory import Memory, View

_BATCH = 8


class Remembered:
    """Embeddings of the samples of a memory, each made once for as long as this object lives.

    The memory itself keeps latents; one that was opened from a file is decoded and embedded once,
    at the first step that asks for it.
    """

    def __init__(self) -> None:
        self._of: tuple[Memory, str, Any] | None = None
        self._rows: dict[int, Tensor] = {}

    def rows(
        self, memory: Memory, space: str, view: View, embed: Any, make: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """The embeddings (n, e) of the samples of a view, oldest first, on the CPU; `make` embeds
        some latents (k, d).

        Args:
            memory, space: those of the view; embeddings of others are forgotten.
            view: the samples as they were when the call began.
        """
        if self._of is None or self._of[0] is not memory or self._of[1:] != (space, embed):
            self._of, self._rows = (memory, space, embed), {}
        numbers = view.numbers.tolist()
        self._rows = {number: self._rows[number] for number in numbers if number in self._rows}
        missing = [i for i, number in enumerate(numbers) if number not in self._rows]
        for begin in range(0, len(missing), _BATCH):
            some = missing[begin : begin + _BATCH]
            for i, row in zip(some, make(view.latents[some]).float().cpu(), strict=True):
                self._rows[numbers[i]] = row
        return torch.stack([self._rows[number] for number in numbers])


class PipelineImages:
    """A pipeline's latents, decoded and embedded for one call.

    See `unalike.guidance.protocols.Images`.

    Args:
        decoder: of the pipeline.
        kept: embeddings of the memory's samples.

    Cost: one pass of decoder and network an image, with gradients two and one back. Images are
    taken one at a time there and their intermediate results are computed again for the gradient, so
    that the memory needed is that of one image and one block of the decoder.
    """

    def __init__(self, decoder: Decoder, kept: Remembered) -> None:
        self._decoder = decoder
        self._kept = kept
        self._memory: tuple[Memory, str, View | None, Sequence[int], torch.device] | None = None

    def remember(
        self,
        memory: Memory,
        space: str,
        view: View | None,
        shape: Sequence[int],
        device: torch.device,
    ) -> None:
        """Names the samples that `remembered` embeds: those of a view, latents of this shape."""
        self._memory = memory, space, view, shape, device

    def open(self) -> AbstractContextManager[None]:
        """The autoencoder as it is needed here; gradients have to be taken before this ends."""
        return self._decoder.open()

    def embedded(self, x0: Tensor, embed: Any) -> Tensor:
        """The embeddings (B, e) of predictions x0 (B, …), with gradients where they are on.

        Raises:
            OptionError: where `embed` makes something else than one vector an image.
            NumericsError: for NaN or infinity.
        """
        if not (torch.is_grad_enabled() and x0.requires_grad):
            return torch.cat([self._made(part, embed) for part in x0.split(_BATCH)])
        rows = [
            checkpoint(self._made, part, embed, use_reentrant=False, preserve_rng_state=False)
            for part in x0.split(1)
        ]
        return torch.cat([row for row in rows if isinstance(row, Tensor)])

    @torch.no_grad()
    def remembered(self, embed: Any) -> Tensor:
        """The embeddings (n, e) of the memory's samples, oldest first, on the device of the
        latents.
        """
        if self._memory is None:
            return torch.zeros(0, 0)
        memory, space, view, shape, device = self._memory
        if view is None:
            return torch.zeros(0, 0)
        rows = self._kept.rows(
            memory,
            space,
            view,
            embed,
            lambda latents: self._made(latents.view(-1, *shape).to(device), embed),
        )
        return rows.to(device)

    def _made(self, latents: Tensor, embed: Any) -> Tensor:
        images, device = (
            self._decoder.images(latents),
            getattr(getattr(embed, "__self__", embed), "device", None),
        )
        e = embed(images if device is None else images.to(device))
        if not isinstance(e, Tensor) or e.ndim != 2 or len(e) != len(images):
            got = f"shape {tuple(e.shape)}" if isinstance(e, Tensor) else f"a {type(e).__name__}"
            raise OptionError(
                f"embed returned {got} for {len(images)} images; it must return one vector for "
                f"each, ({len(images)}, e)"
            )
        if not torch.isfinite(e).all():
            raise NumericsError(
                "the embeddings of the predicted images have NaN or infinite values; use float32 "
                "or bfloat16 for the pipeline"
            )
        return e.float().to(latents.device)
