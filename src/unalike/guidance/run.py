"""One guided generation, whatever the host: runs the methods at a step and keeps what they did.

The host (a diffusers pipeline, a k-diffusion sampler, a loop of one's own) gives the predicted
clean latents and the noise levels of each model evaluation and applies the correction that comes
back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unalike.errors import NumericsError
from unalike.guidance.base import (
    Context,
    Images,
    Method,
    Protected,
    Pushing,
    References,
    denoiser_step,
    limited,
    per_image_norm,
    renewable,
    renewed,
)


@dataclass
class Renewal:
    """The noise that one method had drawn anew.

    Attributes:
        asked: the largest share of the noise that it asked for at any step.
        used: the largest share that was drawn anew; 0 where the solver allows none.
        steps: at how many steps.
    """

    asked: float = 0.0
    used: float = 0.0
    steps: int = 0

    def add(self, share: float, *, possible: bool) -> None:
        """Counts one step at which the method asked for `share`."""
        self.asked = max(self.asked, share)
        if possible and share > 0:
            self.used, self.steps = max(self.used, share), self.steps + 1


@dataclass
class Trace:
    """What one method did: per step a row (B,) of correction sizes, 0 where it corrected nothing,
    and a row of whether it did anything.

    `of_x0` is `||delta|| / ||x0||`; `of_step` is `||delta||` as a share of the denoiser's own step
    (see `denoiser_step`). `renewal` is apart: drawing noise anew corrects no prediction.
    """

    method: str
    of_x0: list[Tensor] = field(default_factory=list)
    of_step: list[Tensor] = field(default_factory=list)
    active: list[Tensor] = field(default_factory=list)
    renewal: Renewal = field(default_factory=Renewal)


@dataclass(frozen=True)
class Prepared:
    """How the model is to be evaluated at a step.

    Attributes:
        embeddings: of the prompts, as the methods leave them; None in the place of those that no
            method changes.
        cfg: whether classifier-free guidance is on.
    """

    embeddings: tuple[Tensor | None, ...]
    cfg: bool


class Run:
    """The state of one generation of `B` images: methods, their states, references and traces.

    Args:
        methods: applied in order; each sees the prediction as the ones before it left it.
        steps: number of model evaluations to come.
        groups: (B,) int64, equal for images of the same prompt.
        prompts: (B, p) float32 embeddings, or None.
        memory: earlier generations, or None.
        shield: protected regions, or None.
        images: predictions as images, or None.
        masks: where regions are, or None.
        generators: for methods that draw random numbers, one for each image.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        *,
        steps: int,
        groups: Tensor,
        prompts: Tensor | None = None,
        memory: References | None = None,
        shield: Protected | Pushing | None = None,
        images: Images | None = None,
        masks: Callable[[Any], Tensor] | None = None,
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        self.methods = tuple(methods)
        self.steps = steps
        self.groups = groups
        self.prompts = prompts
        self.memory = memory
        self.shield = shield
        self.images = images
        self.masks = masks
        self.generators = generators
        self.traces = [Trace(m.name) for m in self.methods]
        self._states: list[dict[str, Any]] = [{} for _ in self.methods]
        self._prepared: set[int] = (
            set()
        )  # methods that changed how the model is evaluated at the coming step

    def prepare(
        self,
        embeddings: Sequence[Tensor],
        *,
        step: int,
        x_t: Tensor,
        alpha: float,
        sigma: float,
        next_alpha: float,
        next_sigma: float,
    ) -> Prepared:
        """What the methods make of the prompts' embeddings, each (B, …), and of classifier-free
        guidance, before the model is evaluated.

        Raises:
            NumericsError: when changed embeddings are not finite.
        """
        current: list[Tensor | None] = [None] * len(embeddings)
        cfg, self._prepared = True, set()
        for i, (method, state) in enumerate(zip(self.methods, self._states, strict=True)):
            if not (method.acts_on_prompts and method.acts(step, self.steps)):
                continue
            context = self._context(step, x_t, alpha, sigma, next_alpha, next_sigma, state)
            context.memory = context.shield = (
                None  # which hold latents, and the model's input need not be one
            )
            for k, original in enumerate(embeddings):
                before = current[k]
                changed = method.condition(original if before is None else before, context)
                if changed is not None:
                    if not torch.isfinite(changed).all():
                        raise NumericsError(
                            f"{method.name} made NaN or infinite prompt embeddings at step {step} of {self.steps}"
                        )
                    current[k] = changed
                    self._prepared.add(i)
            if not method.cfg_enabled(context):
                cfg = False
                self._prepared.add(i)
        return Prepared(tuple(current), cfg)

    def correct(
        self,
        x0: Tensor,
        *,
        step: int,
        x_t: Tensor,
        alpha: float,
        sigma: float,
        next_alpha: float,
        next_sigma: float,
        one_step: bool = False,
    ) -> Tensor | None:
        """The sum of all corrections (B, …) in float32 for predictions `x0` (B, …); None where no
        method changes anything.

        Where methods ask for noise to be drawn anew, the most that one asks for is, once, after all
        corrections; the edit that does it is part of the sum and of no method's trace of sizes, for
        it corrects nothing. `one_step` is that of `Context`.

        Raises:
            NumericsError: when the prediction or a correction is not finite.
        """
        if not torch.isfinite(x0).all():
            raise NumericsError(
                f"the model's prediction at step {step} of {self.steps} has NaN or infinite values; "
                "try float32, or bfloat16 in place of float16"
            )
        current, total, prepared = x0.float(), None, self._prepared
        self._prepared, shares = set(), [0.0]
        levels = (step, x_t, alpha, sigma, next_alpha, next_sigma)
        for i, (method, trace, state) in enumerate(
            zip(self.methods, self.traces, self._states, strict=True)
        ):
            delta = None
            context = self._context(*levels, state, one_step)
            if method.acts(step, self.steps):
                delta = method.x0_delta(current, context)
                shares.append(method.renewal(context))
                trace.renewal.add(shares[-1], possible=renewable(context))
                if shares[-1] > 0 and renewable(context):
                    prepared.add(i)
            if delta is None:
                trace.of_x0.append(torch.zeros(len(x0)))
                trace.of_step.append(torch.zeros(len(x0)))
                trace.active.append(torch.full((len(x0),), i in prepared))
                continue
            delta = limited(delta.float(), current, context, method.limit)
            if not torch.isfinite(delta).all():
                raise NumericsError(
                    f"the correction of {method.name} at step {step} of {self.steps} has NaN or infinite values; lower its strength"
                )
            size, tiny = per_image_norm(delta), torch.finfo(torch.float32).tiny
            trace.of_x0.append((size / per_image_norm(current).clamp_min(tiny)).cpu())
            trace.of_step.append((size / denoiser_step(current, context).clamp_min(tiny)).cpu())
            trace.active.append((size > 0).cpu() | (i in prepared))
            current = current + delta
            total = delta if total is None else total + delta
        edit = renewed(current, max(shares), self._context(*levels, {}, one_step))
        if edit is None:
            return total
        return edit if total is None else total + edit

    def _context(
        self,
        step: int,
        x_t: Tensor,
        alpha: float,
        sigma: float,
        next_alpha: float,
        next_sigma: float,
        state: dict[str, Any],
        one_step: bool = False,
    ) -> Context:
        return Context(
            step=step,
            steps=self.steps,
            alpha=alpha,
            sigma=sigma,
            next_alpha=next_alpha,
            next_sigma=next_sigma,
            x_t=x_t,
            groups=self.groups,
            prompts=self.prompts,
            memory=self.memory,
            shield=self.shield,
            images=self.images,
            masks=self.masks,
            generators=self.generators,
            one_step=one_step,
            state=state,
        )
