"""CADS: noise on the prompt's embedding that fades over the steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.guidance.context import Context
from unalike.guidance.method import FEW, Method
from unalike.options import option


@dataclass(frozen=True, kw_only=True)
class CADS(Method):
    """Anneals the condition: noises the embedding `y` of the prompt, less from step to step.

        ŷ = √γ y + s √(1 - γ) n
        γ = 1 for t ≤ tau_1,  0 for t ≥ tau_2,  (tau_2 - t) / (tau_2 - tau_1) between

    with standard normal noise `n` and time `t = 1 - step / steps`, from 1 at the first step towards
    0. With fewer than 20 steps a step is long, and `γ` is its mean over the times from this step to
    the next: the first of 4 has 0.15 and not 0, and a single one does not lose its prompt. `ŷ` is
    then scaled to mean and standard deviation of `y` and mixed with what it was by `mixing`. Each
    image has its own noise, from its own seed, new at each step. Embeddings that sum up a whole
    prompt (pooled ones) and those of classes are treated alike; the embedding of the empty prompt
    is left as it is.

    Source: Sadat, Buhmann, Bradley, Hilliges and Weber 2024, Eq. 5 to 7 (arXiv:2310.17347).
    Departure: mean and standard deviation are those of each image's own embedding, so that images
    of a batch do not depend on each other. The defaults are those of a widely used implementation
    (v0xie, sd-webui-cads).

    Cost: that of drawing the noise.

    Args:
        noise_scale: `s`; 0 leaves the embedding unchanged but for its fading, so it must be above 0
            to do what the paper says.
        tau_1: time at and after which, on the way to 0, the prompt is as it is.
        tau_2: time until which, from 1 on, there is nothing but noise.
        mixing: `ψ`, share of the rescaled embedding.

    Raises:
        OptionError: for an option outside its allowed values, `tau_1` not below `tau_2`, or a
            `limit`, for x0 is not corrected.

    Example:
        >>> import torch
        >>> from unalike.guidance.context import Context
        >>> from unalike.guidance.level import Level
        >>> level = Level(alpha=0.6, sigma=0.8, next_alpha=0.8, next_sigma=0.6)
        >>> x_t, groups = torch.zeros(1, 4), torch.zeros(1)
        >>> context = Context(step=6, steps=10, level=level, x_t=x_t, groups=groups)  # t is 0.4
        >>> CADS(tau_1=0.5, tau_2=0.9).condition(torch.ones(1, 3), context) is None
        True
    """

    name: ClassVar[str] = "cads"
    summary: ClassVar[str] = "noises the prompt's embedding, less from step to step"
    citation: ClassVar[str] = """@inproceedings{sadat2024cads,
  title = {{CADS}: Unleashing the Diversity of Diffusion Models through Condition-Annealed
    Sampling},
  author = {Sadat, Seyedmorteza and Buhmann, Jakob and Bradley, Derek and Hilliges, Otmar and
    Weber, Romann M.},
  booktitle = {International Conference on Learning Representations},
  year = {2024},
  eprint = {2310.17347},
  archivePrefix = {arXiv}
}"""

    noise_scale: float = option(
        0.25, "size of the noise, in units of the embedding", above=0, high=100
    )
    tau_1: float = option(
        0.6,
        "time at which the prompt is whole, from 1 at the first step to 0 at the last",
        low=0,
        high=1,
    )
    tau_2: float = option(0.9, "time until which there is only noise", low=0, high=1)
    mixing: float = option(
        1.0,
        "share of the embedding that is scaled back to its own mean and standard deviation",
        low=0,
        high=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tau_1 >= self.tau_2:
            raise OptionError(
                f"CADS: tau_1 is {self.tau_1:g} and tau_2 is {self.tau_2:g}; tau_1 must be below "
                "tau_2, as in tau_1=0.6, tau_2=0.9"
            )

    def _whole(self, time: float) -> float:
        """`γ` at a time."""
        return min(1.0, max(0.0, (self.tau_2 - time) / (self.tau_2 - self.tau_1)))

    def _sum(self, time: float) -> float:
        """The integral of `γ` from a time to 1."""
        ramp = min(self.tau_2, max(self.tau_1, time))
        return max(0.0, self.tau_1 - time) + self._whole(ramp) * (self.tau_2 - ramp) / 2

    def condition(self, embeddings: Tensor, context: Context) -> Tensor | None:
        """The annealed embeddings (B, …); None once the prompt is whole."""
        time = 1 - context.step / context.steps
        whole = self._whole(time)
        if context.steps < FEW:
            after = 1 - (context.step + 1) / context.steps
            whole = (self._sum(after) - self._sum(time)) / (time - after)
        if whole > 1 - 1e-9:
            return None
        y = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
        noised = whole**0.5 * y + self.noise_scale * (1 - whole) ** 0.5 * context.noise(y)
        each = tuple(range(1, y.ndim))
        deviation, mean = torch.std_mean(y, dim=each, keepdim=True)
        own_deviation, own_mean = torch.std_mean(noised, dim=each, keepdim=True)
        rescaled = (noised - own_mean) * (
            deviation / own_deviation.clamp_min(torch.finfo(y.dtype).tiny)
        ) + mean
        return (self.mixing * rescaled + (1 - self.mixing) * noised).to(embeddings.dtype)
