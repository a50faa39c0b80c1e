"""Balls around latents that are held in memory (RAM)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from unalike.guidance.stored import stored_rows

_BLOCK = 1 << 22  # values of centres measured at once: 16 MiB in float32


@dataclass(frozen=True)
class Balls:
    """Balls of one radius around centres (m, d).

    Attributes:
        centres: (m, d).
        radius: in their units.
        counts: (B, m), the centres that count for each image; None where all do.
        what: their name in messages.

    Example:
        >>> import torch
        >>> x0 = torch.tensor([[0.5, 0.0], [3.0, 0.0]])
        >>> [(i, len(rows)) for i, rows in Balls(torch.zeros(1, 2), 1.0).touched(x0)]
        [(0, 1)]
    """

    centres: Tensor
    radius: float
    counts: Tensor | None = None
    what: str = "the shield"

    def __len__(self) -> int:
        return len(self.centres)

    @cached_property
    def squares(self) -> Tensor:
        """`||centre||²` (m,)."""
        return self.centres.square().sum(dim=1)

    def touched(self, x0: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Images of x0 (B, d), each with centres (k, d) that it may be inside of; all that it is
        inside of are among them.

        The distances of one matrix product lose digits where latents are close, so they only
        exclude, with room for the rounding error of reduced-precision matrix products too.

        Raises:
            OptionError: for centres of another size.
        """
        rows = stored_rows(self.centres, x0, self.what)
        squares = x0.square().sum(dim=1, keepdim=True) + self.squares.to(x0)
        near = squares - 2 * (x0 @ rows.T) < self.radius**2 + 4e-3 * squares
        if self.counts is not None:
            near &= self.counts
        for image in near.any(dim=1).nonzero().flatten().tolist():
            for chosen in near[image].nonzero().flatten().split(max(1, _BLOCK // x0.shape[1])):
                yield image, rows[chosen]
