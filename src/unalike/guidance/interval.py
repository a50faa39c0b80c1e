"""Interval guidance: classifier-free guidance at middle noise levels only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unalike.errors import OptionError
from unalike.guidance.context import Context
from unalike.guidance.method import Method
from unalike.options import option


@dataclass(frozen=True, kw_only=True)
class IntervalGuidance(Method):
    """Switches classifier-free guidance off outside of `sigma_low < σ / α ≤ sigma_high`.

    Guidance at high noise levels decides what is drawn, and so takes variety; at low ones it
    changes little. `σ / α` is the noise level in units of the data, the σ of the variance exploding
    form `x0 + σ noise`, whatever the model's own schedule; infinite at pure noise.

    Source: Kynkäänniemi, Aittala, Karras, Laine, Aila and Lehtinen 2024, Eq. 5 and 6
    (arXiv:2404.07724). Departure: the evaluation without the prompt is still made, so that no time
    is saved. It needs a pipeline that evaluates the model with and without the prompt, at a
    guidance scale above 1; without that there is nothing to leave out.

    Published settings (section 4.3 and Table 1 there), as `(sigma_low, sigma_high]` and guidance
    scale: SD-XL, chosen by eye, (0.28, 5.42] and 16; on ImageNet-512, best by FID, EDM2-S (0.28,
    2.90] and 2.1, EDM2-XXL (0.19, 1.61] and 2.0, DiT-XL/2 (0.34, 1.02] and 2.5; best by FD-DINOv2,
    EDM2-S and EDM2-XXL (0.60, 5.00] and 3.2 or 2.9, DiT-XL/2 (0.45, 1.23] and 4.0. The defaults are
    SD-XL's. A higher guidance scale than usual belongs to an interval.

    Args:
        sigma_low: the noise level at and below which there is no guidance.
        sigma_high: the noise level above which there is none.

    Raises:
        OptionError: for an option outside its allowed values, an empty interval, or a `limit`, for
            nothing here has a size.

    Example:
        >>> import torch
        >>> from unalike.guidance.context import Context
        >>> from unalike.guidance.level import Level
        >>> level = Level(alpha=0.6, sigma=0.8, next_alpha=0.8, next_sigma=0.6)
        >>> x_t, groups = torch.zeros(1, 4), torch.zeros(1)
        >>> context = Context(step=0, steps=2, level=level, x_t=x_t, groups=groups)
        >>> method = IntervalGuidance(sigma_low=0.3, sigma_high=1.0)
        >>> method.cfg_enabled(context)  # 0.8 / 0.6 is above 1
        False
    """

    name: ClassVar[str] = "interval"
    summary: ClassVar[str] = "switches classifier-free guidance off at high and low noise levels"
    citation: ClassVar[str] = """@inproceedings{kynkaanniemi2024applying,
  title = {Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in
    Diffusion Models},
  author = {Kynk{\\"a}{\\"a}nniemi, Tuomas and Aittala, Miika and Karras, Tero and Laine, Samuli and
    Aila, Timo and Lehtinen, Jaakko},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2024},
  eprint = {2404.07724},
  archivePrefix = {arXiv}
}"""

    sigma_low: float = option(
        0.28, "noise level at and below which there is no guidance", low=0, high=1_000_000
    )
    sigma_high: float = option(
        5.42, "noise level above which there is no guidance", above=0, high=1_000_000
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma_low >= self.sigma_high:
            raise OptionError(
                f"IntervalGuidance: sigma_low is {self.sigma_low:g} and sigma_high is "
                f"{self.sigma_high:g}; sigma_low must be below "
                "sigma_high, as in sigma_low=0.28, sigma_high=5.42"
            )

    def cfg_enabled(self, context: Context) -> bool:
        """Whether the noise level is in the interval."""
        return self.sigma_low < context.level.noise_to_signal <= self.sigma_high
