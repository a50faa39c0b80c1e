"""Coupled noise: the starting noises of a prompt's images are negatively correlated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unalike.guidance.context import Context
from unalike.guidance.method import Method
from unalike.guidance.stream import PromptStream
from unalike.options import option


@dataclass(frozen=True, kw_only=True)
class CoupledNoise(Method):
    """Correlates the starting noises of the `m` images of a prompt by `ρ = -strength / (m - 1)`.

    Each image's noise stays standard normal, so that each image alone is distributed as before. At
    strength 1 the noises of a prompt sum to 0, the lowest correlation that `m` variables can have.
    From the pipeline's own noises `ε_i` of a call:

        z_i = √(1 - ρ) (ε_i - mean ε) + √(1 - strength) mean ε

    With `size`, `m` images are coupled over any number of calls of one guided pipeline. The `k`-th
    image of a prompt is drawn given the sum `S` of the `k - 1` before it,

        z_k = ρ S / (1 + (k - 2) ρ) + √(1 - (k - 1) ρ² / (1 + (k - 2) ρ)) ε_k

    and after `m` images of a prompt the next `m` begin. The first image is then the plain image of
    its seed, and images do not depend on how calls divide them. The sums are kept in this process
    alone: a memory holds finished images and not their noise, so another process begins anew.

    Source: C2C, 2026 (arXiv:2605.11311), at strength 1. Departure: `strength` between independent
    noises and theirs. Images of different prompts stay independent.

    Cost: O(B d), once a call; with `size` one sum of the size of a latent for each prompt whose `m`
    images are not complete, of at most 256 prompts.

    Args:
        strength: 0 for independent noises, 1 for the lowest correlation there is.
        size: how many images of a prompt are coupled, over several calls; None for those of each
            call by themselves.

    Raises:
        OptionError: for an option outside its allowed values, and for start, stop, every or limit,
            for it acts once, before the first step.

    Example:
        >>> import torch
        >>> from unalike.guidance.context import Context
        >>> from unalike.guidance.level import Level
        >>> noise, groups = torch.tensor([[1.0], [0.5]]), torch.zeros(2, dtype=torch.int64)
        >>> pure = Level(alpha=0.0, sigma=1.0, next_alpha=0.0, next_sigma=1.0)
        >>> context = Context(step=0, steps=1, level=pure, x_t=noise, groups=groups)
        >>> CoupledNoise().initial_noise(noise, context)  # √2 · (1 - 0.75), and its negative
        tensor([[ 0.3536],
                [-0.3536]])
    """

    name: ClassVar[str] = "coupled"
    summary: ClassVar[str] = "correlates the starting noises of a prompt's images negatively"
    citation: ClassVar[str] = """@article{jia2026couple,
  title = {Couple to Control: Joint Initial Noise Design in Diffusion Models},
  author = {Jia, Jing and Shen, Liyue and Wang, Guanyang},
  journal = {arXiv preprint arXiv:2605.11311},
  year = {2026}
}"""

    strength: float = option(1.0, "0: independent noises; 1: they sum to 0", low=0, high=1)
    size: int | None = option(
        None,
        "how many images of a prompt are coupled, over several calls; None: those of a call",
        kind=int,
        low=2,
        high=1_000_000,
        choices=(None,),
        example=16,
    )

    def initial_noise(self, noise: Tensor, context: Context) -> Tensor | None:
        """The coupled noises (B, …); None at strength 0 and without two images of a prompt."""
        if self.strength == 0:
            return None
        own = noise.to(torch.promote_types(noise.dtype, torch.float32))
        groups = context.groups.to(noise.device)
        if self.size is not None:
            return self._streamed(own, groups, self.size, context)
        result = own.clone()
        for group in groups.unique():
            rows = (groups == group).nonzero().flatten()
            if len(rows) > 1:
                mean, rho = own[rows].mean(dim=0, keepdim=True), -self.strength / (len(rows) - 1)
                apart = (1 - rho) ** 0.5 * (own[rows] - mean)
                result[rows] = apart + (1 - self.strength) ** 0.5 * mean
        return None if torch.equal(result, own) else result

    def _streamed(self, noise: Tensor, groups: Tensor, size: int, context: Context) -> Tensor:
        """The noises, each given those of its prompt before it."""
        stream, rho = PromptStream(context), -self.strength / (size - 1)
        result = noise.clone()
        for i in range(len(noise)):
            total, count = stream.get(i) or (torch.zeros_like(noise[i]), 0)
            if count:
                spread = 1 + (count - 1) * rho
                variance = max(0.0, 1 - count * rho**2 / spread)
                result[i] = rho / spread * total.to(noise) + variance**0.5 * noise[i]
            done = count + 1 == size
            stream.put(i, None if done else (total.to(noise) + result[i], count + 1))
        return result
