"""Route a scheduler's steps through guidance while a pipeline runs.

`step` and `set_timesteps` are bound on the instance, so the scheduler keeps its class, its
signature and its place in the pipeline, and a deep copy of it steps itself, unguided. The guidance
edits the model's output by `delta / b`, which every solver reads as x0 moved by `delta`; where
there is no delta, the very same object is passed on, so that "no guidance" is exact to the last
bit.
"""

from __future__ import annotations

import functools
import inspect
import math
from dataclasses import replace
from types import MethodType
from typing import Any, Protocol

import torch
from torch import Tensor

from unalike.attach.diffusers import levels
from unalike.attach.diffusers.passes import Order, set_order
from unalike.attach.diffusers.scoped import own_schedulers
from unalike.errors import AttachmentError, UnsupportedError
from unalike.guidance.run import Call, UpcomingCall

_MARK = "_unalike_binding"


class Guidance(Protocol):
    """The guidance that a binding asks at each call."""

    def reset(self) -> None:
        """A new schedule was set: nothing before it counts."""
        ...

    def correct(self, call: Call) -> Tensor | None:
        """The correction of `call.x0` (R, …); None for none."""
        ...

    def finish(self, latents: Tensor) -> Tensor | None:
        """Latents to return in place of the final ones (R, …); None to leave them."""
        ...


class Repeats(Protocol):
    """Steps that are taken again: their order, and the latents that a run goes on from."""

    def order(self, count: int) -> Order:
        """The order in which the steps of a schedule of so many are taken."""
        ...

    def restarted(self, call: Call) -> Tensor:
        """The noisy latents (R, …) that the run goes on from after a turn, at the level that the
        call ends at; `call.x0` is corrected.
        """
        ...


class Steps(Protocol):
    """The scheduler's own steps, as they are taken."""

    def add(self, call: UpcomingCall, before: Tensor, after: Tensor) -> None:
        """The step of a call went from the latents `before` to `after` (R, …)."""
        ...


class Binding:
    """Context manager: while it is open, the pipeline's scheduler is guided.

    Args:
        pipe: a diffusers pipeline, or anything with a diffusers scheduler as `scheduler`.
        guidance: asked at each call.
        repeats: asked for the order of the steps; None for that of the schedule.
        steps: told of each step; None where nobody asks.

    Attributes:
        unguided: names of the other schedulers that were stepped: those of a pipeline's further
            parts, and copies of this one, as for the sound of a video.

    Raises:
        AttachmentError: on entering when the scheduler is guided already; on leaving when the
            pipeline's scheduler was replaced meanwhile.
        UnsupportedError: on entering for a scheduler without an x0 map; from a step that a scalar
            x0 map cannot describe; when copies of the scheduler are stepped in its place.
    """

    def __init__(
        self,
        pipe: Any,
        guidance: Guidance,
        repeats: Repeats | None = None,
        steps: Steps | None = None,
    ) -> None:
        self._pipe = pipe
        self._scheduler = pipe.scheduler
        self._guidance = guidance
        self._repeats = repeats
        self._steps = steps
        self._order: Order | None = None
        self._position, self._done = -1, 0
        self._stepped = False
        self._saved: dict[str, Any] = {}
        self.unguided: list[str] = []

    def __enter__(self) -> Binding:
        scheduler = self._scheduler
        levels.require(scheduler)
        if getattr(scheduler.step, _MARK, False):
            raise AttachmentError(
                f"the {type(scheduler).__name__} of this pipeline is being guided already; let "
                "that call end first, "
                "or give all methods to one guide(pipe, method, method)"
            )
        self._saved = {
            name: vars(scheduler)[name]
            for name in ("step", "set_timesteps")
            if name in vars(scheduler)
        }
        for name, own in self._saved.items():
            if getattr(own, "__self__", None) is not scheduler:
                raise AttachmentError(
                    f"{name} of this {type(scheduler).__name__} was replaced by something else "
                    "than a method of it; remove that first, "
                    f"as in del pipe.scheduler.{name}"
                )
        for name, routed in (("step", self._step), ("set_timesteps", self._set_timesteps)):
            setattr(scheduler, name, self._bound(getattr(scheduler, name), routed))
        for name, other in own_schedulers(self._pipe).items():
            if other is not scheduler:
                vars(other)["step"] = self._noted(other.step, f"{name} ({type(other).__name__})")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for name in ("step", "set_timesteps"):
            if name in self._saved:
                setattr(self._scheduler, name, self._saved[name])
            else:
                vars(self._scheduler).pop(name, None)
        if kind is None and self._pipe.scheduler is not self._scheduler:
            raise AttachmentError(
                "the pipeline's scheduler was replaced by a "
                f"{type(self._pipe.scheduler).__name__} while it was guided, so the guidance "
                "was lost on the way; set pipe.scheduler before the call"
            )

    def _bound(self, own: Any, routed: Any) -> MethodType:
        function, scheduler = own.__func__, self._scheduler

        @functools.wraps(function)
        def method(this: Any, *args: Any, **kwargs: Any) -> Any:
            if this is not scheduler:  # a deep copy of the scheduler steps itself
                if function.__name__ == "step":
                    self._see_copy()
                return function(this, *args, **kwargs)
            return routed(own, *args, **kwargs)

        setattr(method, _MARK, True)
        return MethodType(method, scheduler)

    def _noted(self, own: Any, name: str) -> MethodType:
        """The step of another scheduler, which leaves its name in `unguided`."""
        function = own.__func__

        @functools.wraps(function)
        def step(this: Any, *args: Any, **kwargs: Any) -> Any:
            if name not in self.unguided:
                self.unguided.append(name)
            return function(this, *args, **kwargs)

        return MethodType(step, own.__self__)

    def _see_copy(self) -> None:
        kind = type(self._scheduler).__name__
        if not self._stepped:
            raise UnsupportedError(
                f"{type(self._pipe).__name__} steps copies of its {kind} in place of the "
                "scheduler itself, which cannot be guided; use "
                "another pipeline of this model, or call it without guide"
            )
        name = f"copy of scheduler ({kind})"
        if name not in self.unguided:
            self.unguided.append(name)

    def upcoming(self, timestep: float) -> UpcomingCall:
        """The step that the next evaluation of the model belongs to.

        Args:
            timestep: what the model is given as such: the scheduler's own, or that on another scale
                (see `levels.scheduler_timesteps`).

        Raises:
            UnsupportedError: where it is not among the timesteps still to come.
        """
        scheduler, first = self._scheduler, self._position + 1
        times = levels.schedule(scheduler).tolist()
        candidates = levels.scheduler_timesteps(scheduler, timestep)
        near = [(min(abs(times[i] - t) for t in candidates), i) for i in range(first, len(times))]
        begin = getattr(scheduler, "begin_index", None) if self._position < 0 else 0
        if (
            begin is not None
        ):  # then it is known which one comes next, however coarsely half precision has rounded it
            near = near[begin : begin + 1]
        off, index = min(near, default=(math.inf, 0))
        if off > max(
            1e-3, 0.01 * abs(times[index])
        ):  # bfloat16 may have rounded it twice, by up to 0.4 % each
            raise UnsupportedError(
                f"the model is asked at timestep {timestep:g}, which is none of those that "
                f"{type(scheduler).__name__} still has to take; "
                "methods that act on prompts need to know at which step they are: leave them out "
                "for this pipeline"
            )
        scheduled = levels.schedule(scheduler)[index]
        self._locate(scheduled)  # sets the step index, as the step itself would
        return self._upcoming(index, levels.level(scheduler, scheduled))

    def _set_timesteps(self, own: Any, *args: Any, **kwargs: Any) -> Any:
        result = own(*args, **kwargs)
        self._position, self._done = -1, 0
        self._guidance.reset()
        if self._repeats is not None:
            order = self._repeats.order(len(levels.schedule(self._scheduler)))
            self._order = order if set_order(self._scheduler, order) else None
        return result

    def _locate(self, timestep: Any) -> int:
        one_way = self._order is None
        return levels.position(self._scheduler, timestep, self._position, one_way=one_way)

    def _upcoming(self, position: int, level: levels.SchedulerLevel) -> UpcomingCall:
        """The call at a position of the schedule."""
        order = self._order
        if order is None:
            left = len(levels.schedule(self._scheduler)) - position
            return UpcomingCall(level=level.noise_level, step=self._done, steps=self._done + left)
        return UpcomingCall(
            level=order.level(position, level.noise_level, self._scheduler),
            step=order.steps[position],
            steps=order.count,
            again=order.again(position),
        )

    def _step(self, own: Any, *args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(own).bind(*args, **kwargs)
        arguments, scheduler, timestep = (
            bound.arguments,
            self._scheduler,
            bound.arguments["timestep"],
        )
        self._stepped = True
        _refuse(scheduler, arguments)
        self._position = self._locate(timestep)
        remaining = len(levels.schedule(scheduler)) - self._position
        level = levels.level(scheduler, levels.first(timestep))
        call = _call(scheduler, arguments, level, self._upcoming(self._position, level))
        delta = (
            None if level.b == 0 else self._guidance.correct(call)
        )  # at b = 0 the output has no say in x0
        if delta is None:
            result = own(*args, **kwargs)
        else:
            arguments["model_output"] = _edited(arguments["model_output"], delta / level.b)
            result = own(*bound.args, **bound.kwargs)
        self._done += 1
        if self._steps is not None:
            self._steps.add(call, arguments["sample"], result[0])
        if self._repeats and self._order and self._position in self._order.turns:
            corrected = call if delta is None else replace(call, x0=call.x0 + delta)
            return _with_next(result, self._repeats.restarted(corrected))
        if remaining == 1:
            final = self._guidance.finish(result[0])
            if final is not None:
                result = _with_sample(result, final)
        return result


def _call(
    scheduler: Any,
    arguments: dict[str, Any],
    level: levels.SchedulerLevel,
    upcoming: UpcomingCall,
) -> Call:
    sample, output = arguments["sample"], arguments["model_output"]
    precise = torch.promote_types(sample.dtype, torch.float32)
    x_t = sample.to(precise)
    x0 = level.a * x_t + level.b * _mean_part(output, sample.shape[1]).to(precise)
    return Call(
        x0=x0,
        x_t=x_t,
        level=upcoming.level,
        step=upcoming.step,
        steps=upcoming.steps,
        again=upcoming.again,
        deterministic_first_order=levels.deterministic_first_order(scheduler, arguments),
    )


def _mean_part(output: Tensor, channels: int) -> Tensor:
    """The channels that predict the sample, where a learned variance follows them."""
    return output[:, :channels] if output.shape[1] == 2 * channels else output


def _edited(output: Tensor, change: Tensor) -> Tensor:
    mean = _mean_part(output, change.shape[1])
    edited = (mean.to(change.dtype) + change).to(output.dtype)
    return edited if mean is output else torch.cat([edited, output[:, change.shape[1] :]], dim=1)


def _with_next(result: Any, sample: Tensor) -> Any:
    """A step's result that goes on from `sample`."""
    if isinstance(result, tuple):
        return (sample.to(result[0].dtype), *result[1:])
    result.prev_sample = sample.to(result.prev_sample.dtype)
    return result


def _with_sample(result: Any, sample: Tensor) -> Any:
    """A last step's result that ends in `sample`; its prediction of x0, where it has one, too, for
    some pipelines return that instead.
    """
    if isinstance(result, tuple):
        return (
            sample,
            *(
                sample if isinstance(part, Tensor) and part.shape == sample.shape else part
                for part in result[1:]
            ),
        )
    result.prev_sample = sample
    for name in ("pred_original_sample", "denoised"):
        if isinstance(getattr(result, name, None), Tensor):
            setattr(result, name, sample)
    return result


def _refuse(scheduler: Any, arguments: dict[str, Any]) -> None:
    """Refuses what makes the x0 map no longer one pair of numbers for the whole batch."""
    name = type(scheduler).__name__
    if arguments.get("s_churn", 0) > 0:
        raise UnsupportedError(
            f"{name} was stepped with s_churn={arguments['s_churn']}, which moves the sample "
            "after the model has seen it; use s_churn=0"
        )
    timestep = arguments["timestep"]
    if arguments.get("per_token_timesteps") is not None or (
        isinstance(timestep, Tensor) and bool((timestep != levels.first(timestep)).any())
    ):
        raise UnsupportedError(
            f"{name} was stepped with different timesteps for tokens or images; only one timestep "
            "for the whole batch can be guided"
        )
    if arguments.get("pred_original_sample") is not None:
        raise UnsupportedError(
            f"{name} was given pred_original_sample, which overrides the model's output; leave it "
            "out to guide this pipeline"
        )
