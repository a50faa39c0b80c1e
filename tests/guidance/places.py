"""Where regions are in the latents of the tests, and images that they decode to: small, but real
torch code that can be differentiated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unalike.guidance.context import Context
from unalike.guidance.level import Level


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def at(x_t: Tensor, **settings: Any) -> Context:
    """The last step of a variance exploding sampler, where a shift of the noisy latent is the edit
    of x0, unless levels are given.
    """
    last = Level(alpha=1.0, sigma=1.0, next_alpha=1.0, next_sigma=0.0)
    groups = torch.zeros(len(x_t), dtype=torch.int64)
    return Context(
        **{"step": 0, "steps": 1, "level": last, "x_t": x_t, "groups": groups, **settings}
    )


def boxes(shape: tuple[int, int, int]) -> Callable[[Any], Tensor]:
    """What says that a box is those latents (C, h, w) whose middle lies in it."""

    def masks(region: Any) -> Tensor:
        left, top, right, bottom = region
        _, height, width = shape
        x, y = (torch.arange(width) + 0.5) / width, (torch.arange(height) + 0.5) / height
        return (((left <= x) & (x < right))[None] & ((top <= y) & (y < bottom))[:, None])[
            None, None
        ]

    return masks


def masks_of(mask: Tensor) -> Callable[[Any], Tensor]:
    """What says that a region, whichever, is this mask (B or 1, …)."""
    return lambda region: mask


class Decoded:
    """Predictions and a memory as images (n, 3, 2, 2) in [0, 1], by a linear decoder; it counts
    what it did.

    `decoded` has for each call the number of images and whether gradients were asked for.
    """

    def __init__(self, memory: Tensor | None = None, *, size: int = 8) -> None:
        self._weights, self._memory = 0.3 * normal(size, 12, seed=71), memory
        self.decoded: list[tuple[int, bool]] = []
        self.remembered_times = 0

    def images(self, x0: Tensor) -> Tensor:
        return torch.sigmoid(x0.flatten(1) @ self._weights.to(x0)).view(-1, 3, 2, 2)

    def embedded(self, x0: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor:
        self.decoded.append((len(x0), torch.is_grad_enabled()))
        return embed(self.images(x0))

    def remembered(self, embed: Callable[[Tensor], Tensor]) -> Tensor:
        assert self._memory is not None
        self.remembered_times += 1
        return embed(self.images(self._memory)).detach()


def features(images: Tensor) -> Tensor:
    """An embedding (n, 5) of images that is neither linear nor of norm 1."""
    hidden = torch.tanh((images - 0.5).flatten(1) @ normal(12, 7, seed=72).to(images))
    return hidden @ normal(7, 5, seed=73).to(images) + 0.2
