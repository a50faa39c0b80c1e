"""Noise levels of schedulers: the entry of a scheduler class, and `register` for one that has none.

Every solver reads the model's output as a statement about the clean latent, `x0 = a · sample + b ·
model_output`, at the noise level `sample = alpha · x0 + sigma · noise`. The entry of its class says
which numbers hold at the current call, and where the call goes. A class without an entry is
refused, never guessed at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from unalike.attach.diffusers.schedulers import (
    BUILT_IN,
    Entry,
    LevelMap,
    all_timesteps,
    first,
    on_any_scale,
)
from unalike.attach.diffusers.x0_maps import SchedulerLevel
from unalike.errors import UnsupportedError

__all__ = [
    "Level",
    "LevelMap",
    "SchedulerLevel",
    "deterministic_first_order",
    "first",
    "level",
    "position",
    "register",
    "require",
    "schedule",
    "scheduler_timesteps",
    "supported",
    "takes_steps_again",
]

Level = SchedulerLevel
"""The name that maps written for version 0.1 use."""

_ENTRIES: dict[type, Entry] = {}


def register(
    scheduler_class: type,
    level: LevelMap,
    schedule: Callable[[Any], Tensor] = all_timesteps,
    *,
    deterministic_first_order: bool = False,
    position: Callable[[Any, Any], int] | None = None,
    scheduler_timesteps: Callable[[Any, float], tuple[float, ...]] = on_any_scale,
) -> None:
    """Adds the entry of a scheduler class, or replaces it.

    Args:
        scheduler_class: the class; subclasses that keep its `step` are covered too.
        level: the x0 map of its current call, `(scheduler, timestep) -> SchedulerLevel`.
        schedule: the timesteps at which the model will be evaluated; all of `scheduler.timesteps`
            unless given.
        deterministic_first_order: whether a step is `next_alpha · x0 + next_sigma · noise` with the
            noise that sample and x0 imply: no memory of earlier predictions, no fresh noise, one
            evaluation. Only then can methods renew noise (`Auto`).
        position: `(scheduler, timestep) -> index` in the schedule, for a class without a step index
            whose timesteps do not tell.
        scheduler_timesteps: `(scheduler, number) -> timesteps`, those that the model may be given
            as this number; by itself, or on a scale from 0 to 1, unless given.

    Example:
        >>> import diffusers
        >>> class Straight(diffusers.FlowMatchEulerDiscreteScheduler):
        ...     def step(self, model_output, timestep, sample, **options):
        ...         return super().step(model_output, timestep, sample, **options)
        >>> supported(Straight())
        False
        >>> def straight_level(scheduler, timestep):
        ...     sigma, after = (float(scheduler.sigmas[scheduler.step_index + i]) for i in (0, 1))
        ...     return SchedulerLevel(1 - sigma, sigma, 1.0, -sigma, 1 - after, after)
        >>> register(Straight, straight_level, deterministic_first_order=True)
        >>> supported(Straight())
        True
    """
    _ENTRIES[scheduler_class] = Entry(
        level,
        schedule,
        deterministic_first_order=deterministic_first_order,
        position=position,
        scheduler_timesteps=scheduler_timesteps,
    )


def supported(scheduler: Any) -> bool:
    """Whether the scheduler's class has an entry."""
    return _entry(type(scheduler)) is not None


def require(scheduler: Any) -> Entry:
    """The entry of the scheduler's class.

    Raises:
        UnsupportedError: where there is none; the message names the class and the call that adds
            one.
    """
    entry = _entry(type(scheduler))
    if entry is None:
        known = sorted({*BUILT_IN, *(c.__name__ for c in _ENTRIES)})
        name = type(scheduler).__name__
        raise UnsupportedError(
            f"no x0 map is known for the scheduler {name}; use one of {', '.join(known)}, "
            f"or add one with unalike.attach.diffusers.levels.register({name}, level)"
        )
    return entry


def level(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """The noise level and the x0 map of the scheduler's current call.

    Raises:
        UnsupportedError: for a scheduler class or a prediction type without a map, and for a level
            that no step from noise to data has.
    """
    return require(scheduler).checked_level(scheduler, timestep)


def schedule(scheduler: Any) -> Tensor:
    """The timesteps at which the model is evaluated in a whole run, in order.

    Raises:
        UnsupportedError: for a scheduler class without an entry.
    """
    return require(scheduler).schedule(scheduler)


def position(scheduler: Any, timestep: Any, after: int, *, one_way: bool = True) -> int:
    """The index in `schedule` of the current call; see `Entry.locate`.

    Raises:
        UnsupportedError: where the timestep is not in the schedule, or the schedule goes up and
            down.
    """
    return require(scheduler).locate(scheduler, timestep, after, one_way=one_way)


def scheduler_timesteps(scheduler: Any, timestep: float) -> tuple[float, ...]:
    """The timesteps of the scheduler that a model may be given as this number."""
    return require(scheduler).scheduler_timesteps(scheduler, timestep)


def deterministic_first_order(scheduler: Any, arguments: Mapping[str, Any]) -> bool:
    """Whether a call of the scheduler with these arguments is a deterministic first-order step."""
    return require(scheduler).steps_deterministically(scheduler, arguments)


def takes_steps_again(scheduler: Any) -> bool:
    """Whether the scheduler can go back to an earlier step of its schedule."""
    return require(scheduler).memoryless or deterministic_first_order(scheduler, {})


def _entry(scheduler_class: type) -> Entry | None:
    for parent in scheduler_class.__mro__:
        entry = _ENTRIES.get(parent) or _built_in(parent)
        if entry is not None:
            keeps_step = getattr(scheduler_class, "step", None) is getattr(parent, "step", None)
            return entry if keeps_step else None
    return None


def _built_in(scheduler_class: type) -> Entry | None:
    own = scheduler_class.__module__.startswith("diffusers.schedulers.")
    return BUILT_IN.get(scheduler_class.__name__) if own else None
