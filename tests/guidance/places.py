"""Where regions are in the latents of the tests, and images that they decode to: small, but real torch code that can be differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unalike.guidance.base import Context


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def at(x_t: Tensor, **settings: Any) -> Context:
    """The last step of a variance exploding sampler, where a shift of the noisy latent is the edit of x0, unless levels are given."""
    levels = {"alpha": 1.0, "sigma": 1.0, "next_alpha": 1.0, "next_sigma": 0.0}
    groups = torch.zeros(len(x_t), dtype=torch.int64)
    return Context(**{"step": 0, "steps": 1, "x_t": x_t, "groups": groups, **levels, **settings})


def masks_of(mask: Tensor) -> Callable[[Any], Tensor]:
    """What says that a region, whichever, is this mask (B or 1, …)."""
    return lambda region: mask
