"""`Method`: the base of all guidance methods.

A method is a frozen dataclass of options with one or several hooks. It may change the starting
noise. At each step it may correct the predicted clean latent x0, change the embeddings of the
prompts or the features inside the denoiser, switch classifier-free guidance or the denoiser's
adapters off, or ask for noise to be renewed. The host does everything else. What a method has to
remember between steps lives in `Context.state`, so that one object serves any number of runs.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from unalike.errors import OptionError
from unalike.guidance.context import Context, Layer
from unalike.options import option, require_allowed

FEW = 20
"""Fewer model evaluations than this are few: one of them is a large part of the schedule."""

HOOKS = {
    "x0_delta": "x0_delta(x0, context)",
    "renewal": "renewal(context)",
    "condition": "condition(embeddings, context)",
    "cfg_enabled": "cfg_enabled(context)",
    "initial_noise": "initial_noise(noise, context)",
    "features": "features(hidden, layer, context)",
    "adapters_enabled": "adapters_enabled(context)",
}
"""The hooks by name, and how they are called."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """Base of all guidance methods: a window in the schedule, a stride, a limit on corrections.

    Args:
        start: fraction of the schedule at which the method begins to act.
        stop: fraction at which it no longer acts; the step `i` of `n` is inside where `start <= i /
            n < stop`. See `acts` for windows shorter than a step.
        every: act at each `every`-th step only, step 0 included.
        limit: the largest correction allowed, as a share of the denoiser's own step `||x0 - x_t /
            alpha||` of that image; None for none. At the noise of a first step that is many times
            `||x0||`, so there a limit below 1 rarely binds: the strength does.

    Raises:
        OptionError: for any option outside its allowed values, or of no effect for this method,
            naming the option, the value and what is allowed.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    citation: ClassVar[str]
    repaired: ClassVar[bool] = False
    """Whether what it does needs a later evaluation to repair it: see `acts`."""

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
        self._require_options_in_use()

    def _require_options_in_use(self) -> None:
        """Refuse shared options that no hook of this method reads."""
        own, defined = type(self).__name__, {hook for hook in HOOKS if self.defines(hook)}
        if defined and "x0_delta" not in defined and self.limit is not None:
            raise OptionError(
                f"{own}: limit is {self.limit:g}, and x0 is not corrected; leave it out"
            )
        if defined != {"initial_noise"}:
            return
        for name, plain in (("start", 0.0), ("stop", 1.0), ("every", 1)):
            if (value := getattr(self, name)) != plain:
                raise OptionError(
                    f"{own}: {name} is {value:g}, and it acts once, before the first step; "
                    "leave it out"
                )

    def defines(self, hook: str) -> bool:
        """Whether this method has a hook of its own, one of `HOOKS`."""
        own = getattr(type(self), hook)  # `ParticleGuidance.features` is an option and no hook
        return inspect.isfunction(own) and own is not getattr(Method, hook)

    def acts(self, step: int, steps: int) -> bool:
        """Whether the step lies in the window and on the stride.

        Every window has a step: one that begins and ends between two steps has the step that it
        begins in, and one whose steps are all off the stride has its first. Where there are few
        evaluations (below `FEW`), a method that is `repaired` leaves out the last of them, which
        nothing follows, unless its window has no other.

        Example:
            >>> [step for step in range(4) if Method(start=0.3, stop=0.4).acts(step, 4)]
            [1]
        """
        first = min(math.floor(self.start * steps), steps - 1)
        window = range(math.ceil(self.start * steps), math.ceil(self.stop * steps))
        window = window or range(first, first + 1)
        if self.repaired and steps < FEW and len(window) > 1 and window[-1] == steps - 1:
            window = window[:-1]
        if step % self.every:
            strided = any(other % self.every == 0 for other in window)
            return step == window[0] and not strided
        return step in window

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        """The correction (B, …) in float32 of the predicted clean latents `x0` (B, …), or None."""
        if not any(self.defines(hook) for hook in HOOKS):
            raise TypeError(
                f"{type(self).__name__} has no hook; define {', '.join(HOOKS.values())}"
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

    def initial_noise(self, noise: Tensor, context: Context) -> Tensor | None:
        """The starting noise (B, …) in place of `noise`, of variance 1 for each number, or None.

        Called once, where the pipeline draws its noise or is given it as `latents`, before it
        scales it. The context has the level of pure noise and the noise as `x_t`; the number of
        steps is not known then (1), and there is neither memory nor shield.
        """
        return None

    def features(self, hidden: Tensor, layer: Layer, context: Context) -> Tensor | None:
        """Other outputs (B, …) of a layer of the denoiser in place of `hidden`, or None.

        Called while the model is evaluated, for each layer in turn, and for each block of its batch
        apart: with classifier-free guidance once for the empty prompts and once for the prompts.
        The context is that of `condition`.
        """
        return None

    def adapters_enabled(self, context: Context) -> bool:
        """Whether the denoiser's adapters (LoRA) are on at this step; called as `condition` is."""
        return True

    def without_renewal(self) -> Self:
        """The method as it acts where the solver cannot renew noise; reports describe that."""
        return self

    def candidates_for(self, steps: int, *, again: bool) -> int:
        """The number of candidates that each image is best chosen from in a call of so many steps,
        where the caller does not say; 1 for no choice.

        Args:
            steps: of the schedule.
            again: whether they can be taken again, as `passes_for` asks.
        """
        return 1

    def passes_for(self, steps: int) -> int:
        """The number of times that the steps after the first are taken, of a schedule of so many.

        A pass ends in predictions of finished latents. Each further one begins with these, noised
        anew to the level of the second step (restart sampling, arXiv:2306.14878), and costs one
        evaluation less than the schedule has steps. There are none with solvers that remember
        earlier predictions, in calls of a part of the schedule, where no image has another of its
        prompt or a memory beside it, and outside diffusers.
        """
        return 1

    def without_passes(self) -> Self:
        """The method as it acts where there is one pass; reports describe that."""
        return self

    @property
    def acts_on_prompts(self) -> bool:
        """Whether the method needs a host that can change the model's prompts."""
        return self.defines("condition") or self.defines("cfg_enabled")

    @property
    def needs_calibration(self) -> bool:
        """Whether `calibrated` must first measure a setting on unguided samples."""
        return False

    def calibrated(self, latents: Tensor, groups: Tensor) -> Self:
        """The method with its settings measured on final, unguided latents (B, …) and their prompt
        groups (B,).
        """
        return self
