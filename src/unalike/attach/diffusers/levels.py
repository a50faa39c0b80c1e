"""What a scheduler's current call means: the noise level, and the clean latent that the model's
output stands for.

Every solver reads the model's output as a statement about the clean latent, `x0 = a · sample + b ·
model_output`, at the noise level `sample = alpha · x0 + sigma · noise`. One function per scheduler
class says which four numbers hold at its current call, and where the call goes. A class that is not
in the table is refused: `register` adds one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import diffusers
from torch import Tensor

from unalike.attach.diffusers.schedulers import (
    BUILT_IN,
    Entry,
    LevelMap,
    SchedulerLevel,
    all_timesteps,
    first,
)
from unalike.errors import UnsupportedError

__all__ = [
    "LevelMap",
    "SchedulerLevel",
    "deterministic_first_order",
    "first",
    "level",
    "position",
    "register",
    "require",
    "schedule",
    "supported",
]

_ENTRIES: dict[type, Entry] = {}


def deterministic_first_order(scheduler: Any, arguments: Mapping[str, Any]) -> bool:
    """Whether a call of the scheduler with these arguments is one deterministic step of first order
    from x0 and the noisy latents alone.

    It is for DDIM without η and for Euler's method on noise levels or straight paths. All others
    have a memory, noise of their own, or several evaluations a step; and none is where predictions
    are clipped, for then an edit of x0 is not what it seems.
    """
    known = (
        diffusers.DDIMScheduler,
        diffusers.EulerDiscreteScheduler,
        diffusers.FlowMatchEulerDiscreteScheduler,
    )
    if not isinstance(scheduler, known):
        return False
    switches = ("stochastic_sampling", "clip_sample", "thresholding")
    return not (
        arguments.get("eta", 0) > 0
        or any(getattr(scheduler.config, name, False) for name in switches)
    )


def register(
    scheduler_class: type, level: LevelMap, schedule: Callable[[Any], Tensor] = all_timesteps
) -> None:
    """Adds a scheduler class, or replaces its map.

    Args:
        scheduler_class: the class; subclasses that keep its `step` are covered too.
        level: the map of its current call.
        schedule: the timesteps at which the model will be evaluated; all of `scheduler.timesteps`
            unless given.

    Example:
        >>> class Straight(diffusers.FlowMatchEulerDiscreteScheduler):
        ...     def step(self, model_output, timestep, sample, **options):
        ...         return super().step(model_output, timestep, sample, **options)
        >>> supported(Straight())
        False
        >>> def straight_level(scheduler, timestep):
        ...     sigma, after = (float(scheduler.sigmas[scheduler.step_index + i]) for i in (0, 1))
        ...     return SchedulerLevel(alpha=1 - sigma, sigma=sigma, a=1.0, b=-sigma, next_alpha=1 - after, next_sigma=after)
        >>> register(Straight, straight_level)
        >>> supported(Straight())
        True
    """
    _ENTRIES[scheduler_class] = Entry(level, schedule)


def supported(scheduler: Any) -> bool:
    """Whether the scheduler's class has a map."""
    return _entry(type(scheduler)) is not None


def level(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """The noise levels and the x0 map of the scheduler's current call.

    Raises:
        UnsupportedError: for a scheduler class or a prediction type without a map.
    """
    return require(scheduler).level(scheduler, timestep)


def schedule(scheduler: Any) -> Tensor:
    """The timesteps at which the model is evaluated in a whole run, in order.

    Raises:
        UnsupportedError: for a scheduler class without a map.
    """
    return require(scheduler).schedule(scheduler)


def meant(scheduler: Any, timestep: float) -> tuple[float, ...]:
    """The timesteps of the scheduler that a model may be asked about by this number.

    They are the scheduler's own, or on a scale from 0 to 1, upward or downward; for the angles `t`
    of SCM, `sin t / (cos t + sin t)`.
    """
    if isinstance(scheduler, diffusers.SCMScheduler):
        return (math.atan2(timestep, 1 - timestep),)
    return timestep, 1000 * timestep, 1000 * (1 - timestep)


def position(scheduler: Any, timestep: Any, after: int) -> int:
    """The index in `schedule` of the current call; `after` is that of the one before, or -1.

    Sets the scheduler's own step index where it has one that is not set yet, just as its `step`
    would.

    Raises:
        UnsupportedError: where the timestep is not in the schedule.
    """
    if hasattr(type(scheduler), "_init_step_index"):
        fresh = scheduler.step_index is None
        if fresh:
            scheduler._init_step_index(first(timestep))
        return int(scheduler.step_index)
    own = require(scheduler).position
    times, now = schedule(scheduler).tolist(), float(first(timestep))
    if own is not None:
        index = own(scheduler, timestep)
        if after < index < len(times):
            return index
    for index in range(after + 1, len(times)):
        if times[index] == now:
            return index
    raise UnsupportedError(
        f"{type(scheduler).__name__} was stepped at timestep {now:g}, which is not among the ones still to come; "
        "only timesteps that set_timesteps made can be guided, in their order"
    )


def _entry(scheduler_class: type) -> Entry | None:
    for parent in scheduler_class.__mro__:
        entry = _ENTRIES.get(parent) or _built_in(parent)
        if entry is not None:
            return (
                entry
                if getattr(scheduler_class, "step", None) is getattr(parent, "step", None)
                else None
            )
    return None


def _built_in(scheduler_class: type) -> Entry | None:
    """The row of one of diffusers' own classes, by its name, so that none has to be imported that
    is not used.
    """
    return (
        BUILT_IN.get(scheduler_class.__name__)
        if scheduler_class.__module__.startswith("diffusers.schedulers.")
        else None
    )


def require(scheduler: Any) -> Entry:
    """The row of the scheduler's class.

    Raises:
        UnsupportedError: where there is none; the message names the class and the call that adds
            one.
    """
    entry = _entry(type(scheduler))
    if entry is None:
        raise UnsupportedError(
            f"no x0 map is known for the scheduler {type(scheduler).__name__}; use one of "
            f"{', '.join(sorted({*BUILT_IN, *(c.__name__ for c in _ENTRIES)}))}, "
            f"or add one with unalike.attach.diffusers.levels.register({type(scheduler).__name__}, level)"
        )
    return entry
