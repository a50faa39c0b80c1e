"""Denoisers D(x, sigma) to sample from: one that knows a single image, and those of the shipped
models.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

import unalike
from unalike.guidance.context import Context
from unalike.guidance.method import Method


@dataclass(frozen=True, kw_only=True)
class Shift(Method):
    """Adds a constant at each call."""

    name: ClassVar[str] = "shift"
    summary: ClassVar[str] = "adds a constant"
    citation: ClassVar[str] = ""

    by: float = 0.7

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        return torch.full_like(x0, self.by) if self.by else None


class Watch(Shift):
    """Changes nothing, and keeps what it sees."""

    seen: list[Context]

    def __init__(self, **options: Any) -> None:
        super().__init__(by=0.0, **options)
        object.__setattr__(self, "seen", [])

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        self.seen.append(context)
        return None


class OneImage:
    """Knows a single image and answers with it whatever it is asked."""

    sigma_min = 0.5

    def __init__(self, image: Tensor) -> None:
        self.image = image

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return self.image.to(x).expand_as(x).clone()


@lru_cache
def pipeline(name: str) -> Any:
    pipe = unalike.load(name)
    pipe.set_progress_bar_config(disable=True)
    return pipe


class Network:
    """A network of variance preserving samples that predicts noise or velocity, as a denoiser of `x
    = x0 + sigma · noise`.
    """

    def __init__(self, predict: Any, scheduler: Any) -> None:
        self._predict, self._velocity = predict, scheduler.config.prediction_type == "v_prediction"
        alphas = scheduler.alphas_cumprod
        self._levels = ((1 - alphas) / alphas).sqrt().log()

    @torch.no_grad()
    def __call__(self, x: Tensor, sigma: Tensor | float, *extra: Any) -> Tensor:
        sigma = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1)[0]
        level, times = sigma.log(), self._levels
        above = int((times < level).sum().clamp(1, len(times) - 1))
        share = ((level - times[above - 1]) / (times[above] - times[above - 1])).clamp(0, 1)
        scale = (1 + sigma**2) ** 0.5
        output = self._predict(
            (x / scale).float(), (above - 1 + share).expand(len(x)).float(), *extra
        ).to(x)
        return x / scale**2 - sigma / scale * output if self._velocity else x - sigma * output


def digits() -> Network:
    """The shipped model of digits: D(x, sigma, labels) for x (B, 4, 8, 8)."""
    pipe = pipeline("digits")
    return Network(
        lambda x, t, labels: pipe.transformer(x, t, class_labels=labels).sample[:, :4],
        pipe.scheduler,
    )


def emoji(prompts: list[str]) -> Network:
    """The shipped model of emoji, without classifier-free guidance: D(x, sigma) for x (B, 16, 8,
    8), one prompt an image.
    """
    pipe = pipeline("emoji")
    with torch.no_grad():
        embeddings = pipe.encode_prompt(prompts, "cpu", 1, False)[0]
    return Network(
        lambda x, t: pipe.unet(x, t, encoder_hidden_states=embeddings).sample, pipe.scheduler
    )


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
