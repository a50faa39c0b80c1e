"""Further passes over a schedule: the steps of a scheduler, taken more than once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unalike.attach.diffusers import levels
from unalike.guidance.level import Level


class Order:
    """The steps of a schedule in the order in which they are taken: first all of them, then in each
    further pass all but the first.

    Args:
        count: steps of the schedule.
        passes: how many passes there are.

    Example:
        >>> Order(3, passes=2).steps
        [0, 1, 2, 1, 2]
    """

    def __init__(self, count: int, passes: int = 1) -> None:
        self.count = count
        self.steps = [*range(count), *list(range(1, count)) * (passes - 1)]
        self._seen: dict[int, Level] = {}

    def again(self, position: int) -> int:
        """How many times the step at a position was taken before."""
        return self.steps[:position].count(self.steps[position])

    def turns(self, position: int) -> bool:
        """Whether the next pass begins after a position."""
        return position + 1 < len(self.steps) and self.steps[position + 1] <= self.steps[position]

    def level(self, position: int, scheduled: Level) -> Level:
        """The level at a position, where a pass that is not the last one ends at the level that the
        next one begins at.

        Args:
            position: in the order; those before it were asked for already.
            scheduled: the level as the scheduler tells it.
        """
        self._seen.setdefault(self.steps[position], scheduled)
        if not self.turns(position):
            return scheduled
        begin = self._seen[self.steps[position + 1]]
        return replace(scheduled, next_alpha=begin.alpha, next_sigma=begin.sigma)


def repeat(scheduler: Any, passes: int) -> Order | None:
    """Makes a scheduler take the steps that it was just set more than once.

    Returns:
        None where it is left as it is: for one pass, and for solvers that remember earlier
        predictions.

    Raises:
        UnsupportedError: for a schedule that goes up and down by itself.
    """
    times, sigmas = scheduler.timesteps, getattr(scheduler, "sigmas", None)
    order = Order(len(times), passes)
    if len(order.steps) == len(times) or not levels.takes_steps_again(scheduler):
        return None
    entry = levels.require(scheduler)
    entry.require_one_way(scheduler)
    scheduler.timesteps = times[order.steps]
    if entry.memoryless:
        scheduler.num_inference_steps = len(order.steps)  # by which it knows the last one
    if isinstance(sigmas, Tensor) and len(sigmas) == len(times) + 1:
        scheduler.sigmas = torch.cat([sigmas[order.steps], sigmas[-1:]])
    return order
