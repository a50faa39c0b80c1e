"""Seed variance: noise on the prompt's tokens at the first steps, dosed by each token."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unalike.guidance.context import Context
from unalike.guidance.method import Method
from unalike.options import option


@dataclass(frozen=True, kw_only=True)
class SeedVariance(Method):
    """Adds uniform noise to a share of each token's numbers, at the first steps.

        y ← y + strength · std(y) · b · u,    u uniform in [-1, 1], b 1 for a `share` of the numbers

    `std` is the standard deviation of the numbers of each token, so that one strength does for
    prompts of any length and for any model. The noise is drawn once for each image, from its own
    seed, and is the same at each step. Padding is left alone where the pipeline's tokenizer tells
    what it is; with embeddings in place of texts all tokens are noised. A pooled embedding, or one
    of a class, is one token.

    Source: the seed-variance nodes that ComfyUI's users know: uniform noise on half of the numbers
    at the first 20% of the steps. Departure: each token's own standard deviation, padding.

    Cost: that of drawing the noise.

    Args:
        strength: largest noise, in standard deviations of a token; 0 changes nothing.
        share: of the numbers of a token that get noise.
        stop: as in all methods. The default is the first step of up to 5, the first 4 of 20.

    Raises:
        OptionError: for an option outside its allowed values, or a `limit`, for x0 is not
            corrected.

    Example:
        >>> import torch
        >>> from unalike.guidance.context import Context
        >>> from unalike.guidance.level import Level
        >>> level = Level(alpha=0.1, sigma=0.9, next_alpha=0.5, next_sigma=0.5)
        >>> seed = torch.Generator().manual_seed(0)
        >>> context = Context(
        ...     step=0, steps=4, level=level, x_t=torch.zeros(1, 1), groups=torch.zeros(1),
        ...     generators=[seed], padding=torch.tensor([[False, True]]),
        ... )
        >>> tokens = torch.tensor([[[1.0, 3.0], [5.0, 5.0]]])
        >>> SeedVariance().condition(tokens, context)[0, 1]  # padding
        tensor([5., 5.])
    """

    name: ClassVar[str] = "seedvariance"
    summary: ClassVar[str] = "noises the prompt's tokens at the first steps, by their own deviation"
    citation: ClassVar[str] = """@misc{seedvariance,
  title = {Seed variance nodes of ComfyUI},
  howpublished = {Software},
  year = {2025}
}"""
    reads_padding: ClassVar[bool] = True

    strength: float = option(
        1.0, "largest noise, in standard deviations of a token", low=0, high=100
    )
    share: float = option(0.5, "share of a token's numbers that get noise", above=0, high=1)
    stop: float = option(0.2, "fraction of the schedule at which it ends", low=0, high=1)

    def condition(self, embeddings: Tensor, context: Context) -> Tensor | None:
        """The embeddings (B, …) with noise; None at strength 0."""
        if self.strength == 0:
            return None
        y = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
        # which of the tensors of a step it is
        number = context.state["number"] if context.state.get("step") == context.step else 0
        context.state.update(step=context.step, number=number + 1)
        drawn = context.state.setdefault("noise", {})
        if number not in drawn:
            uniform = torch.erf(context.noise(y) / math.sqrt(2))
            chosen = torch.erf(context.noise(y) / math.sqrt(2)) < 2 * self.share - 1
            drawn[number] = uniform * (chosen if self.share < 1 else 1)
        noise = self.strength * y.std(dim=-1, correction=0, keepdim=True) * drawn[number]
        padding = context.padding
        if y.ndim == 3 and padding is not None and padding.shape == y.shape[:2]:
            noise = noise.masked_fill(padding.to(y.device)[..., None], 0)
        return (y + noise).to(embeddings.dtype)
