"""The first step by the base model of a LoRA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unalike.guidance.context import Context
from unalike.guidance.method import Method
from unalike.options import option


@dataclass(frozen=True, kw_only=True)
class FirstStepBase(Method):
    """Leaves the LoRA of the denoiser out at the first evaluation, which decides the layout.

    A model that a LoRA makes few-step draws much the same layout for every seed; the model under it
    does not. So its first evaluation is by that model, and the others are by both. A LoRA of the
    text encoders stays.

    Source: Gandikota and Bau 2025 (arXiv:2503.10637), who take the base model until the distilled
    model's second timestep. Departure: one evaluation of the base model in place of several smaller
    steps, and no classifier-free guidance of its own, so no evaluation more. Users report it for
    LoRAs of 8 steps and not of 4.

    Cost: at that evaluation each adapted layer is computed twice, with and without its LoRA,
    because nothing is switched on the model itself: other calls of it, in other threads too, keep
    the LoRA. Where nearly all layers are adapted that is at most one evaluation more.

    Args:
        stop: as in all methods. The default is the first step of up to 10, the first two of 20.

    Raises:
        OptionError: for an option outside its allowed values, or a `limit`, for x0 is not
            corrected.
        UnsupportedError: from the call, before anything is drawn, without a LoRA that is on, and
            for one that is fused into the weights.

    Example:
        >>> import torch
        >>> from unalike.guidance.context import Context
        >>> from unalike.guidance.level import Level
        >>> level = Level(alpha=0.1, sigma=0.9, next_alpha=0.5, next_sigma=0.5)
        >>> x_t, groups = torch.zeros(1, 1), torch.zeros(1)
        >>> context = Context(step=0, steps=4, level=level, x_t=x_t, groups=groups)
        >>> FirstStepBase().adapters_enabled(context), FirstStepBase().acts(1, 4)
        (False, False)
    """

    name: ClassVar[str] = "firststep"
    summary: ClassVar[str] = "leaves the LoRA of a few-step model out at the first step"
    citation: ClassVar[str] = """@misc{gandikota2025distilling,
  title = {Distilling Diversity and Control in Diffusion Models},
  author = {Gandikota, Rohit and Bau, David},
  year = {2025},
  eprint = {2503.10637},
  archivePrefix = {arXiv}
}"""

    stop: float = option(0.1, "fraction of the schedule at which it ends", low=0, high=1)

    def adapters_enabled(self, context: Context) -> bool:
        """False: the window alone says where."""
        return False
