"""TSR: scales the score by the noise level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unalike.guidance.context import Context
from unalike.guidance.method import Method
from unalike.options import option


@dataclass(frozen=True, kw_only=True)
class TSR(Method):
    """Samples as if at another temperature: scales the score by a factor that depends on the noise.

    With the signal-to-noise ratio `η = α² / σ²`, and the score proportional to `x0 - x_t / α`:

        r = (η scale² + 1) / (η scale² / temperature + 1)
        delta = (r - 1) (x0 - x_t / α)

    `r` is 1 at pure noise and goes to `temperature` at the end: the posterior of each local mode is
    widened (temperature below 1) and the weights of modes stay. At pure noise of a straight path
    (`α = 0`) and where no noise is left nothing is done. Each image is treated by itself.

    Source: arXiv:2510.01184 (2025), with `k = 0.93` (`temperature`) and `s = 3` (`scale`).

    Cost: nothing to speak of.

    Args:
        temperature: `k`, the factor of the score at the end; 1 changes nothing.
        scale: `s`, the width of a mode, in units of the data: how early the factor is felt.

    Raises:
        OptionError: for an option outside its allowed values.

    Example:
        >>> import torch
        >>> from unalike.guidance.context import Context
        >>> from unalike.guidance.level import Level
        >>> level = Level(alpha=0.5, sigma=0.5, next_alpha=1.0, next_sigma=0.0)
        >>> x = torch.ones(1, 1)
        >>> context = Context(step=0, steps=1, level=level, x_t=x, groups=torch.zeros(1))
        >>> TSR(temperature=0.5, scale=1.0).x0_delta(x, context)  # (2 / 3 - 1) · (1 - 1 / 0.5)
        tensor([[0.3333]])
    """

    name: ClassVar[str] = "tsr"
    summary: ClassVar[str] = "scales the score by a factor that depends on the noise level"
    citation: ClassVar[str] = """@article{xu2025temporal,
  title = {Temporal Score Rescaling for Temperature Sampling in Diffusion and Flow Models},
  author = {Xu, Yanbo and Wu, Yu and Park, Sungjae and Zhou, Zhizhuo and Tulsiani, Shubham},
  journal = {arXiv preprint arXiv:2510.01184},
  year = {2025}
}"""

    temperature: float = option(
        0.93, "factor of the score at the end; 1: unchanged", above=0, high=100
    )
    scale: float = option(3.0, "width of a mode, in units of the data", above=0, high=1000)

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        """The correction (B, …); None at temperature 1, at pure noise and without noise."""
        level = context.level
        if self.temperature == 1 or level.alpha == 0 or level.sigma == 0:
            return None
        eta = (level.alpha / level.sigma) ** 2 * self.scale**2
        factor = (eta + 1) / (eta / self.temperature + 1)
        clean = x0.to(torch.promote_types(x0.dtype, torch.float32))
        return (factor - 1) * (clean - context.x_t.to(clean) / level.alpha)
