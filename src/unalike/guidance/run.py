"""`Run`: one guided generation on any host.

The host (a diffusers pipeline, a k-diffusion sampler, your own loop) hands over each model
evaluation as a `Call` and applies the correction that comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unalike.errors import NumericsError
from unalike.guidance.context import Context, Layer
from unalike.guidance.level import Level
from unalike.guidance.method import Method
from unalike.guidance.noise import limited, renew_noise, renews_noise
from unalike.guidance.protocols import Images, Protected, ProtectedFeatures, References
from unalike.guidance.trace import Trace


@dataclass(frozen=True, kw_only=True)
class UpcomingCall:
    """A model evaluation that is about to happen.

    Attributes:
        level: its noise level, and the one that its step ends at.
        step: its index in the schedule, from 0.
        steps: how many steps the schedule has, as far as it tells.
        again: how many times this step was taken before.
    """

    level: Level
    step: int
    steps: int
    again: int = 0


@dataclass(frozen=True, kw_only=True)
class Call(UpcomingCall):
    """A model evaluation, as the solver gets its result.

    Attributes:
        x0: predicted clean latents (R, …), at least float32; R counts the solver's rows, duplicates
            for classifier-free guidance included.
        x_t: the noisy latents (R, …) that they were predicted from.
        deterministic_first_order: as in `Context`.
    """

    x0: Tensor
    x_t: Tensor
    deterministic_first_order: bool = False


@dataclass(frozen=True)
class Prepared:
    """The model's input at a step, as the methods change it.

    Attributes:
        embeddings: of the prompts; None in the place of those that no method changes.
        cfg: whether classifier-free guidance is on.
    """

    embeddings: tuple[Tensor | None, ...]
    cfg: bool


class Run:
    """The state of one generation of `B` images: methods, their states, references and traces.

    Args:
        methods: applied in order; each sees the prediction as the ones before it left it.
        groups: (B,) int64, equal for images of the same prompt.
        prompts: (B, p) float32 embeddings, or None.
        memory: earlier samples, or None.
        shield: the protected set, or None.
        images: decodes predictions, or None.
        masks: locates regions, or None.
        generators: for methods that draw random numbers, one for each image.
        padding: (B, L) bool, which tokens of the prompts are padding, or None.
        streams: for each method what it stored in earlier runs; changed by this one.
        predict: as in `Context`.

    Attributes:
        steps: the number of model evaluations, as the last call told it.
        traces: one for each method.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        *,
        groups: Tensor,
        prompts: Tensor | None = None,
        memory: References | None = None,
        shield: Protected | ProtectedFeatures | None = None,
        images: Images | None = None,
        masks: Callable[[Any], Tensor] | None = None,
        generators: Sequence[torch.Generator] = (),
        padding: Tensor | None = None,
        streams: Sequence[dict[str, Any]] | None = None,
        predict: Callable[[Tensor, bool], Tensor] | None = None,
    ) -> None:
        self.methods = tuple(methods)
        self.steps = 0
        self.groups = groups
        self.prompts = prompts
        self.memory = memory
        self.shield = shield
        self.images = images
        self.masks = masks
        self.generators = generators
        self.padding = padding
        self.predict = predict
        self.streams = [{} for _ in self.methods] if streams is None else list(streams)
        self.traces = [Trace(m.name) for m in self.methods]
        self._states: list[dict[str, Any]] = [{} for _ in self.methods]
        self._acted: set[tuple[int, int]] = set()  # step and method that acted before its end

    def start(self, noise: Tensor) -> Tensor | None:
        """The starting noise (B, …) as the methods change `noise`; None where none does.

        Raises:
            NumericsError: when it is not finite.
        """
        pure = UpcomingCall(level=Level(0.0, 1.0, 0.0, 1.0), step=0, steps=1)

        def change(method: Method, current: Tensor, context: Context) -> Tensor | None:
            return method.initial_noise(current, context)

        return self._changed("initial_noise", pure, noise, noise, change, "starting noise")

    def features(
        self, call: UpcomingCall, x_t: Tensor, hidden: Tensor, layer: Layer
    ) -> Tensor | None:
        """The output (B, …) of a layer as the methods change `hidden`; None where none does.

        Args:
            call: the evaluation that runs.
            x_t: the model's input (B, …).
            hidden: the layer's own output.
            layer: which one it is.

        Raises:
            NumericsError: when it is not finite.
        """

        def change(method: Method, current: Tensor, context: Context) -> Tensor | None:
            return method.features(current, layer, context)

        return self._changed("features", call, x_t, hidden, change, f"features of {layer.name}")

    def adapters_enabled(self, call: UpcomingCall, x_t: Tensor) -> bool:
        """Whether all methods leave the denoiser's adapters on at the coming evaluation.

        Args:
            call: the evaluation to come.
            x_t: the model's input (B, …).
        """
        off = [
            i
            for i, method in self._acting("adapters_enabled", call)
            if not method.adapters_enabled(self._input_context(call, x_t, i))
        ]
        self._acted.update((call.step, i) for i in off)
        return not off

    def _changed(
        self,
        hook: str,
        call: UpcomingCall,
        x_t: Tensor,
        values: Tensor,
        change: Callable[[Method, Tensor, Context], Tensor | None],
        what: str,
    ) -> Tensor | None:
        """Let the methods with a hook change `values` (B, …) in order; None where none does."""
        current = None
        for i, method in self._acting(hook, call):
            context = self._input_context(call, x_t, i)
            changed = change(method, values if current is None else current, context)
            if changed is None:
                continue
            if not torch.isfinite(changed).all():
                raise NumericsError(
                    f"{method.name} made NaN or infinite {what} at step {call.step} of {call.steps}"
                )
            current = changed.to(values)
            self._acted.add((call.step, i))
        return current

    def _acting(self, hook: str, call: UpcomingCall) -> list[tuple[int, Method]]:
        return [
            (i, method)
            for i, method in enumerate(self.methods)
            if method.defines(hook) and method.acts(call.step, call.steps)
        ]

    def _input_context(self, call: UpcomingCall, x_t: Tensor, i: int) -> Context:
        """The context of method `i` before the model's prediction."""
        context = self._context(call, x_t, i)
        # memory and shield hold latents, and the model's input need not be one
        context.memory = context.shield = None
        return context

    def prepare(self, call: UpcomingCall, x_t: Tensor, embeddings: Sequence[Tensor]) -> Prepared:
        """The methods' embeddings of the prompts and their say on classifier-free guidance, before
        the model is evaluated.

        Args:
            call: the evaluation to come.
            x_t: the model's input (B, …).
            embeddings: of the prompts, each (B, …).

        Raises:
            NumericsError: when changed embeddings are not finite.
        """
        self.steps = call.steps
        current: list[Tensor | None] = [None] * len(embeddings)
        cfg = True
        for i, method in enumerate(self.methods):
            if not (method.acts_on_prompts and method.acts(call.step, call.steps)):
                continue
            context = self._input_context(call, x_t, i)
            for k, original in enumerate(embeddings):
                before = current[k]
                changed = method.condition(original if before is None else before, context)
                if changed is not None:
                    if not torch.isfinite(changed).all():
                        raise NumericsError(
                            f"{method.name} made NaN or infinite prompt embeddings at step "
                            f"{call.step} of {call.steps}"
                        )
                    current[k] = changed
                    self._acted.add((call.step, i))
            if not method.cfg_enabled(context):
                cfg = False
                self._acted.add((call.step, i))
        return Prepared(tuple(current), cfg)

    def correct(self, call: Call) -> Tensor | None:
        """The sum of all corrections (B, …) in float32 for the predictions `call.x0` (B, …); None
        where no method changes anything.

        Noise is renewed once, after all corrections, with the largest eta that a method asks for.
        The edit that does it is part of the sum, but of no method's trace of sizes, since it
        corrects nothing.

        Raises:
            NumericsError: when the prediction or a correction is not finite.
        """
        if not torch.isfinite(call.x0).all():
            raise NumericsError(
                f"the model's prediction at step {call.step} of {call.steps} has NaN or infinite "
                "values; try float32, or bfloat16 in place of float16"
            )
        self.steps = call.steps
        acted = {i for step, i in self._acted if step == call.step}
        current, total = call.x0.float(), None
        self._acted, etas = set(), [0.0]
        for i, (method, trace) in enumerate(zip(self.methods, self.traces, strict=True)):
            context, delta = self._context_of(call, i), None
            if method.acts(call.step, call.steps):
                delta = method.x0_delta(current, context)
                etas.append(method.renewal(context))
                trace.renewal.add(etas[-1], possible=renews_noise(context))
                if etas[-1] > 0 and renews_noise(context):
                    acted.add(i)
            if delta is not None:
                delta = self._limited(method, delta, current, context)
            trace.add(current, delta, i in acted, context)
            if delta is not None:
                current = current + delta
                total = delta if total is None else total + delta
        edit = renew_noise(current, max(etas), self._context_of(call))
        if edit is None:
            return total
        return edit if total is None else total + edit

    def restarted(self, call: Call) -> Tensor:
        """The noisy latents (B, …) that a further pass begins with: the corrected predictions
        `call.x0` (B, …) and fresh noise, at the level that `call` ends at.
        """
        context, level = self._context_of(call), call.level
        return level.next_alpha * call.x0 + level.next_sigma * context.noise(call.x0)

    def _limited(self, method: Method, delta: Tensor, x0: Tensor, context: Context) -> Tensor:
        delta = limited(delta.float(), x0, context, method.limit)
        if not torch.isfinite(delta).all():
            raise NumericsError(
                f"the correction of {method.name} at step {context.step} of {context.steps} has "
                "NaN or infinite values; lower its strength"
            )
        return delta

    def _context_of(self, call: Call, i: int | None = None) -> Context:
        context = self._context(call, call.x_t, i)
        context.deterministic_first_order = call.deterministic_first_order
        return context

    def _context(self, call: UpcomingCall, x_t: Tensor, i: int | None) -> Context:
        """The context of method `i`; None for that of no method."""
        return Context(
            step=call.step,
            steps=call.steps,
            again=call.again,
            level=call.level,
            x_t=x_t,
            groups=self.groups,
            prompts=self.prompts,
            memory=self.memory,
            shield=self.shield,
            images=self.images,
            masks=self.masks,
            generators=self.generators,
            predict=self.predict,
            padding=self.padding,
            state={} if i is None else self._states[i],
            stream={} if i is None else self.streams[i],
        )
