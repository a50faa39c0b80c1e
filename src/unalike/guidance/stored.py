"""Stored samples, read block by block, and for each image only those that matter to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from unalike.errors import OptionError

_ALL = ((slice(None), None),)
_BLOCK = 2**20  # numbers squared at a time

Block = tuple[Tensor, Tensor, Tensor]
"""Rows (m, d), their inverse norms, (m,) or (b, m), and what prompts add for some images (b, m)."""


@dataclass(frozen=True)
class Stored:
    """Earlier samples that images are moved away from.

    Rows are not copied to be normalised: their norms are divided out of the sums over them instead.

    Attributes:
        rows: latents (n, d) as they are.
        prompt_terms: what prompts add for each image of the batch (B, n).
        parts: images with the indices of the rows that are read for them, None for all rows.
        left_out: (B, 1), the logarithm of the weight that the prompts of what is left out have
            together; None where that needs no check.
        whole: the set with what is left out.
        inside: what of the rows counts, (1, d) or for each image (B, d); None for all.
    """

    rows: Tensor
    prompt_terms: Tensor
    parts: tuple[tuple[Any, Tensor | None], ...] = _ALL
    left_out: Tensor | None = None
    whole: Stored | None = None
    inside: Tensor | None = None

    def restricted(self, inside: Tensor) -> Stored:
        """The same samples, of which only the numbers inside (1, d) or (B, d) count; rows are not
        copied.
        """
        return replace(
            self, inside=inside, whole=None if self.whole is None else self.whole.restricted(inside)
        )

    @cached_property
    def inverse_norms(self) -> Tensor:
        """`1 / ||row||` (n,), or (1, n) or (B, n) of what is inside; 0 for a row of zeros, which
        has no direction.
        """
        if self.inside is None:
            norms = self.rows.norm(dim=1)
        else:
            inside, size = self.inside.to(self.rows.dtype), max(1, _BLOCK // self.rows.shape[1])
            norms = torch.cat(
                [inside @ rows.square().T for rows in self.rows.split(size)], dim=1
            ).sqrt()
        return torch.where(norms > 0, 1 / norms.clamp_min(torch.finfo(norms.dtype).tiny), 0)

    def blocks(self, images: Any, index: Tensor | None, numbers: int) -> Iterator[Block]:
        """The rows of one of the `parts`, about so many numbers at a time; scattered ones are
        brought together in one buffer.

        A GPU, which has no use for small blocks, gets all at once.
        """
        size = (
            max(1, numbers // self.rows.shape[1])
            if self.rows.device.type == "cpu"
            else len(self.rows)
        )
        terms, inverse = self.prompt_terms[images], self.inverse_norms
        if inverse.ndim == 2 and len(inverse) > 1:
            inverse = inverse[images]
        if index is None:
            yield from zip(
                self.rows.split(size),
                inverse.split(size, dim=-1),
                terms.split(size, dim=1),
                strict=True,
            )
            return
        buffer = self.rows.new_empty(min(size, len(index)), self.rows.shape[1])
        for some in index.split(size):
            rows = torch.index_select(self.rows, 0, some, out=buffer[: len(some)])
            yield rows, inverse[..., some], terms[:, some]


def parts(matters: Tensor) -> tuple[tuple[Any, Tensor | None], ...]:
    """Images to which the same rows matter (B, n), with the indices of those rows; all images with
    all rows where that is as fast.

    On a processor, bringing a scattered row together costs about as much as what is computed of it
    for four images. A GPU computes so fast that only the reading of rows counts, and each has to be
    read once in any case.

    Example:
        >>> import torch
        >>> # images of two prompts, each with its own half of six rows
        >>> halves = torch.arange(12)[:, None] % 2 == torch.arange(6) // 3
        >>> parts(halves)[1]
        (tensor([ 0,  2,  4,  6,  8, 10]), tensor([0, 1, 2]))
        >>> parts(halves[:2])  # two images read everything together as fast
        ((slice(None, None, None), None),)
    """
    sets, which = matters.unique(dim=0, return_inverse=True)
    sizes = torch.bincount(which, minlength=len(sets))
    if matters.device.type != "cpu" or ((4 + sizes) * sets.sum(dim=1)).sum() >= matters.numel():
        return _ALL
    return tuple(
        ((which == k).nonzero().flatten(), rows.nonzero().flatten()) for k, rows in enumerate(sets)
    )


def stored_rows(rows: Tensor, x: Tensor, what: str) -> Tensor:
    """Stored latents (n, d) with the device and dtype of flattened latents `x` (B, d); the same
    tensor where they have them already.

    Raises:
        OptionError: where they are of another size, which means of another model or image size;
            `what` names them in the message.
    """
    if rows.ndim != 2 or rows.shape[1] != x.shape[1]:
        raise OptionError(
            f"{what} holds latents of shape {tuple(rows.shape[1:])} and this generation has "
            f"{x.shape[1]} values an image; both must come "
            "from the same model at the same image size"
        )
    return rows.to(x)
