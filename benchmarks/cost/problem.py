"""What a step is measured on: new samples, stored samples, and the prompts of both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unalike.guidance.context import Context
from unalike.guidance.level import Level
from unalike.guidance.protocols import References


@dataclass(frozen=True)
class Problem:
    """New samples `x` (B, d) with prompts `y` (B, p), and `n` stored ones."""

    x: Tensor
    y: Tensor
    stored: Tensor
    stored_y: Tensor

    def context(self) -> Context:
        """A step in the middle of a run, with images of as many prompts as there are images."""
        return Context(
            step=0,
            steps=50,
            level=Level(0.8, 0.6, 0.82, 0.57),
            x_t=self.x,
            prompts=self.y,
            groups=torch.arange(len(self.x), device=self.x.device),
            memory=References(self.stored, self.stored_y),
        )


class Bank:
    """Normal latents to be stored, made once for all sizes of a memory: a smaller one is the
    beginning of a larger one.

    Args:
        device: where they are.
        p: size of the prompt embeddings.
    """

    def __init__(self, device: str, p: int) -> None:
        self._device = device
        self._p = p
        self._rows = torch.empty(0, 0)

    def themed(self, n: int, batch: int, d: int) -> Problem:
        """Prompts that are variations of eight unlike ones, in turn: an eighth of the memory is
        like an image's own.
        """
        themes = self._normal(8, self._p, seed=1)
        which = torch.arange(n + batch, device=self._device) % 8
        y = themes[which] + 0.3 * self._normal(n + batch, self._p, seed=2)
        return Problem(self._normal(batch, d, seed=3), y[n:], self._stored(n, d), y[:n])

    def similar(self, n: int, batch: int, d: int, each: int) -> Problem:
        """Images of unlike prompts, each of which `each` stored samples have all but the same; the
        other prompts are like none.

        They are spread over the memory, as in one that filled over time.
        """
        y = self._normal(batch, self._p, seed=1)
        stored_y = self._normal(n, self._p, seed=2)
        where = torch.randperm(n, generator=torch.Generator().manual_seed(4))[: batch * each].to(
            self._device
        )
        stored_y[where] = y.repeat_interleave(each, dim=0) + 0.1 * stored_y[where]
        return Problem(self._normal(batch, d, seed=3), y, self._stored(n, d), stored_y)

    def _stored(self, n: int, d: int) -> Tensor:
        if self._rows.shape[1] != d or len(self._rows) < n:
            self._rows = torch.empty(0, 0)  # the old ones go before the new ones come
            self._rows = self._normal(n, d, seed=0)
        return self._rows[:n]

    def _normal(self, *shape: int, seed: int) -> Tensor:
        return torch.randn(
            *shape, device=self._device, generator=torch.Generator(self._device).manual_seed(seed)
        )
