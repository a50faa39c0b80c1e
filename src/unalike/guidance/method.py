"""`Method`: the base of all guidance methods.

A method is a frozen dataclass of options with one or several hooks. At each step it may correct the
predicted clean latent x0, change the embeddings of the prompts, switch classifier-free guidance off
or ask for noise to be renewed. The host does everything else. What a method has to remember between
steps lives in `Context.state`, so that one object serves any number of runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from unalike.errors import OptionError
from unalike.guidance.context import Context
from unalike.options import option, require_allowed


@dataclass(frozen=True, kw_only=True)
class Method:
    """Base of all guidance methods: a window in the schedule, a stride, a limit on corrections.

    Args:
        start: fraction of the schedule at which the method begins to act.
        stop: fraction at which it no longer acts; the step `i` of `n` is inside where `start <= i /
            n < stop`.
        every: act at each `every`-th step only, step 0 included.
        limit: the largest correction allowed, as a share of the denoiser's own step `||x0 - x_t /
            alpha||` of that image; None for none.

    Raises:
        OptionError: for any option outside its allowed values, naming the option, the value and
            what is allowed.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    citation: ClassVar[str]

    start: float = option(0.0, "fraction of the schedule at which it begins", low=0, high=1)
    stop: float = option(1.0, "fraction of the schedule at which it ends", low=0, high=1)
    every: int = option(1, "act at every such step only", low=1, high=10_000)
    limit: float | None = option(
        None,
        "largest correction, as a share of the denoiser's own step",
        above=0,
        high=1000,
        choices=(None,),
    )

    def __post_init__(self) -> None:
        require_allowed(self, owner=type(self).__name__)
        if self.start >= self.stop:
            raise OptionError(
                f"{type(self).__name__}: start is {self.start} and stop is {self.stop}; "
                "start must be below stop, as in start=0.0, stop=0.6"
            )

    def acts(self, step: int, steps: int) -> bool:
        """Whether the step lies in the window and on the stride."""
        return self.start * steps <= step < self.stop * steps and step % self.every == 0

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        """The correction (B, …) in float32 of the predicted clean latents `x0` (B, …), or None."""
        if not self.acts_on_prompts and type(self).renewal is Method.renewal:
            raise TypeError(
                f"{type(self).__name__} has no hook; define x0_delta(x0, context), "
                "renewal(context), condition(embeddings, context) or cfg_enabled(context)"
            )
        return None

    def condition(self, embeddings: Tensor, context: Context) -> Tensor | None:
        """The embeddings (B, …) that the model is given in place of `embeddings`, or None.

        Called before the model, once for each tensor of embeddings that it takes (tokens, pooled, a
        class in each block). The context has the model's own input as `x_t`, and neither memory nor
        shield.
        """
        return None

    def cfg_enabled(self, context: Context) -> bool:
        """Whether classifier-free guidance is on at this step; called as `condition` is."""
        return True

    def renewal(self, context: Context) -> float:
        """Eta of this step: 0 renews no noise, 1 as much as ancestral sampling (see
        `unalike.guidance.noise.renew_noise`).
        """
        return 0.0

    def without_renewal(self) -> Self:
        """The method as it acts where the solver cannot renew noise; reports describe that."""
        return self

    @property
    def acts_on_prompts(self) -> bool:
        """Whether the method needs a host that can change the model's prompts."""
        own = type(self)
        return own.condition is not Method.condition or own.cfg_enabled is not Method.cfg_enabled

    @property
    def needs_calibration(self) -> bool:
        """Whether `calibrated` must first measure a setting on unguided samples."""
        return False

    def calibrated(self, latents: Tensor, groups: Tensor) -> Self:
        """The method with its settings measured on final, unguided latents (B, …) and their prompt
        groups (B,).
        """
        return self
