"""The order in which a scheduler takes its steps, where it takes some of them again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from unalike.attach.diffusers import levels
from unalike.attach.run.session import Session
from unalike.guidance.level import Level
from unalike.guidance.run import Call


@dataclass(frozen=True)
class Order:
    """The steps of a schedule in the order in which they are taken.

    Attributes:
        count: steps of the schedule.
        steps: each as often as it is taken.
        turns: the positions in `steps` after which the run goes on from other latents, at the level
            of the step that follows.

    Example:
        >>> Order.passes(3, 2)
        Order(count=3, steps=[0, 1, 2, 1, 2], turns=[2])
        >>> Order.restart(4, 2)
        Order(count=4, steps=[0, 2, 3], turns=[0])
    """

    count: int
    steps: list[int]
    turns: list[int]
    _seen: dict[int, Level] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def passes(cls, count: int, passes: int) -> Order:
        """All steps, and then all but the first in each further pass."""
        length = count - 1
        steps = [*range(count), *list(range(1, count)) * (passes - 1)]
        return cls(count, steps, [length * (p + 1) for p in range(passes - 1 if length else 0)])

    @classmethod
    def restart(cls, count: int, step: int) -> Order:
        """The first step, which nothing is kept of, and then those from `step` on."""
        return cls(count, [0, *range(step, count)], [0])

    def again(self, position: int) -> int:
        """The number of times that the step at a position was taken before."""
        return self.steps[:position].count(self.steps[position])

    def level(self, position: int, scheduled: Level, scheduler: Any) -> Level:
        """The level at a position. Before a turn it ends at the level of the step that follows.

        Args:
            position: in `steps`; those before it were asked for already.
            scheduled: the level as the scheduler tells it.
            scheduler: set to this order.
        """
        self._seen.setdefault(self.steps[position], scheduled)
        if position not in self.turns:
            return scheduled
        begin = self._seen.get(self.steps[position + 1])
        if begin is None and not hasattr(type(scheduler), "_init_step_index"):
            # by timestep alone; the others look up which level is the next one
            begin = levels.level(scheduler, scheduler.timesteps[position + 1]).noise_level
        if begin is None:
            return scheduled
        return replace(scheduled, next_alpha=begin.alpha, next_sigma=begin.sigma)


@dataclass(frozen=True)
class Passes:
    """As many passes as the methods of a session ask for."""

    session: Session

    def order(self, count: int) -> Order:
        """The order of a schedule of so many steps."""
        return Order.passes(count, self.session.passes(count))

    def restarted(self, call: Call) -> Tensor:
        """The noisy latents (R, …) that a further pass begins with."""
        return self.session.restarted(call)


@dataclass(frozen=True)
class Restart:
    """A run that goes on from finished latents, noised to the level of a later step.

    Attributes:
        session: of the run.
        latents: finished ones (B, …).
        share: of the schedule that is left out; at least its first step is, where it has two.
    """

    session: Session
    latents: Tensor
    share: float

    def order(self, count: int) -> Order:
        """The order of a schedule of so many steps."""
        if count == 1:
            return Order.passes(count, 1)
        return Order.restart(count, min(max(1, round(self.share * count)), count - 1))

    def restarted(self, call: Call) -> Tensor:
        """The finished latents with fresh noise."""
        rows = self.latents.to(call.x0)
        repeated = rows.repeat(len(call.x0) // len(rows), *[1] * (rows.ndim - 1))
        return self.session.restarted(replace(call, x0=repeated))


def set_order(scheduler: Any, order: Order) -> bool:
    """Makes a scheduler take the steps that it was just set in another order.

    Returns:
        Whether it does: not for an order without turns, and not for solvers that remember earlier
        predictions.

    Raises:
        UnsupportedError: for a schedule that goes up and down by itself.
    """
    times, sigmas = scheduler.timesteps, getattr(scheduler, "sigmas", None)
    if not order.turns or not levels.takes_steps_again(scheduler):
        return False
    entry = levels.require(scheduler)
    entry.require_one_way(scheduler)
    scheduler.timesteps = times[order.steps]
    if entry.memoryless:
        scheduler.num_inference_steps = len(order.steps)  # by which it knows the last one
    if isinstance(sigmas, Tensor) and len(sigmas) == len(times) + 1:
        scheduler.sigmas = torch.cat([sigmas[order.steps], sigmas[-1:]])
    return True
