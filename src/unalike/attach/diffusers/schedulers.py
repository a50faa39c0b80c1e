"""One entry for each of diffusers' schedulers: x0 map, schedule, determinism, positions.

An edit of x0 by `delta` at one call does not move every solver's result by the same amount, because
it stays in what the solver remembers:

- One call a step (DDIM, DDPM, Euler, LCM, TCD, flow matching, SCM, Wuerstchen): `delta` counts
  once, in the step from this call.
- Two calls a step (Heun, KDPM2 and its ancestral sibling): equal edits of both make one edit of the
  step. The second call's alone makes up to several, and the first call's alone pushes the other way
  where steps are long, because it moves the point from which the second is read. Guide both or
  neither: windows and `every` that separate them do harm.
- Two calls a step of which only the second prediction is used (DPMSolverSDE): the edit of the first
  moves the point at which the model is asked again, and nothing else. The last step has one call,
  which counts.
- Runge-Kutta (PNDM's first steps): four calls with weights 1/6, 1/3, 1/3, 1/6.
- Several steps remembered (DPM++, UniPC, DEIS, SASolver, LMS, PNDM, IPNDM, EDM's and the cosine
  DPM++, CogVideoX's DPM): the solver extrapolates from edited predictions, so that an edit counts
  more than once at its own step and is partly taken back in those after it. With DPM++ of second
  order and even steps that is 1.5 times and -0.5 times. Equal edits at every call add up to one
  edit of the result; an edit at single steps (`every=5`, the ends of a window) makes a kick and a
  recoil.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor

from unalike.attach.diffusers import x0_maps
from unalike.attach.diffusers.x0_maps import SchedulerLevel
from unalike.errors import UnsupportedError

LevelMap = Callable[[Any, Any], SchedulerLevel]
"""`(scheduler, timestep) -> SchedulerLevel`, read right before the scheduler's own `step`; its step
index, if it has one, is set by then.
"""
_ROUNDED = 1e-5  # relative difference of sigmas that are one, up to rounding
_SWITCHES = ("stochastic_sampling", "clip_sample", "thresholding")


def all_timesteps(scheduler: Any) -> Tensor:
    """The schedule of most classes."""
    return scheduler.timesteps


def all_but_the_last(scheduler: Any) -> Tensor:
    """The schedule of classes whose last timestep is the end itself."""
    return scheduler.timesteps[:-1]


def first(timestep: Any) -> Any:
    """One number of a timestep that may come once for each image."""
    return timestep.reshape(-1)[0] if isinstance(timestep, Tensor) else timestep


def nearest(scheduler: Any, timestep: Any) -> int:
    """The index of the nearest timestep, by which those in half precision are found too."""
    return int((scheduler.timesteps - first(timestep)).abs().argmin())


def on_any_scale(scheduler: Any, timestep: float) -> tuple[float, ...]:
    """The timestep itself, and what it stands for on a scale from 0 to 1, upward or downward."""
    return timestep, 1000 * timestep, 1000 * (1 - timestep)


def of_flow(scheduler: Any, timestep: float) -> tuple[float, ...]:
    """As `on_any_scale`; with noise added to the data the model is given `sigma / (1 + sigma)`."""
    if x0_maps.adds_noise(scheduler) and 0 <= timestep < 1:
        return (scheduler.config.num_train_timesteps * timestep / (1 - timestep),)
    return on_any_scale(scheduler, timestep)


def of_angles(scheduler: Any, timestep: float) -> tuple[float, ...]:
    """The angle `t` for which SCM's models are given `sin t / (cos t + sin t)`."""
    return (math.atan2(timestep, 1 - timestep),)


@dataclass(frozen=True)
class Entry:
    """All that is known of a scheduler class.

    Attributes:
        level: the x0 map of its current call.
        schedule: the timesteps at which the model is evaluated in a whole run.
        deterministic_first_order: whether a step is `next_alpha · x0 + next_sigma · noise` with the
            noise that sample and x0 imply: no memory of earlier predictions, no fresh noise, one
            evaluation. Stochastic and clipping settings of the scheduler are seen to besides.
        memoryless: whether a step depends on its own evaluation and on fresh noise alone, and the
            scheduler counts its steps: such a one can take steps again, as those that are
            `deterministic_first_order` can.
        position: of a call in the schedule, for a class without a step index that has a rule of its
            own; None to go by the timesteps.
        scheduler_timesteps: the timesteps that a model may be given as this number.
    """

    level: LevelMap
    schedule: Callable[[Any], Tensor] = all_timesteps
    deterministic_first_order: bool = False
    memoryless: bool = False
    position: Callable[[Any, Any], int] | None = None
    scheduler_timesteps: Callable[[Any, float], tuple[float, ...]] = on_any_scale

    def checked_level(self, scheduler: Any, timestep: Any) -> SchedulerLevel:
        """The level of the current call.

        Raises:
            UnsupportedError: for a level that no step from noise to data has; the message says why.
        """
        found = self.level(scheduler, timestep)
        fault = found.noise_level.fault
        if fault is None and not (math.isfinite(found.a) and math.isfinite(found.b)):
            fault = f"x0 = {found.a:g} · sample + {found.b:g} · output; allowed: finite numbers"
        if fault is not None:
            raise _wrong_level(scheduler, timestep, fault)
        return found

    def steps_deterministically(self, scheduler: Any, arguments: Mapping[str, Any]) -> bool:
        """Whether a call of the scheduler with these arguments is a deterministic first-order step.

        None is where predictions are clipped, since an edit of x0 is then not what it seems.
        """
        if not self.deterministic_first_order or (arguments.get("eta") or 0) > 0:
            return False
        return not any(getattr(scheduler.config, name, False) for name in _SWITCHES)

    def require_one_way(self, scheduler: Any) -> None:
        """Refuses a schedule that goes up and down.

        Raises:
            UnsupportedError: the message shows it.
        """
        _require_one_way(scheduler, self.schedule(scheduler))

    def locate(self, scheduler: Any, timestep: Any, after: int, *, one_way: bool = True) -> int:
        """The index in the schedule of the current call; `after` is that of the one before, or -1.

        Sets the scheduler's own step index where it has one that is not set yet, just as its `step`
        would.

        Raises:
            UnsupportedError: where the timestep is not in the schedule; at the first call of a run,
                for a schedule whose noise does not fall, if it has to fall all the way.
        """
        index = self._index(scheduler, timestep, after)
        if after < 0:
            if one_way:
                self.require_one_way(scheduler)
            rise = self.checked_level(scheduler, first(timestep)).noise_level.rise
            if rise is not None:
                raise _wrong_level(scheduler, first(timestep), rise)
        return index

    def _index(self, scheduler: Any, timestep: Any, after: int) -> int:
        if hasattr(type(scheduler), "_init_step_index"):
            fresh = scheduler.step_index is None
            if fresh:
                scheduler._init_step_index(first(timestep))
            return int(scheduler.step_index)
        times = self.schedule(scheduler).tolist()
        if self.position is not None:
            index = self.position(scheduler, timestep)
            if after < index < len(times):
                return index
        now = float(first(timestep))
        for index in range(after + 1, len(times)):
            if times[index] == now:
                return index
        raise UnsupportedError(
            f"{type(scheduler).__name__} was stepped at timestep {now:g}, which is not among the "
            "ones "
            "still to come; only timesteps that set_timesteps made can be guided, in their order"
        )


def _wrong_level(scheduler: Any, timestep: Any, reason: str) -> UnsupportedError:
    name = type(scheduler).__name__
    return UnsupportedError(
        f"{name} is at a noise level that cannot be guided, at timestep {float(timestep):g}: "
        f"{reason}; use the schedule that the model was made for, or add the right map with "
        f"unalike.attach.diffusers.levels.register({name}, level)"
    )


def _require_one_way(scheduler: Any, times: Tensor) -> None:
    """Refuses a schedule that goes up and down, by its sigmas where it has some: timesteps between
    two levels may be rounded past each other.
    """
    sigmas = getattr(scheduler, "sigmas", None)
    name, given = ("timesteps", times) if not isinstance(sigmas, Tensor) else ("sigmas", sigmas)
    values = given.tolist()
    steps = [(a, b, _ROUNDED * max(abs(a), abs(b))) for a, b in pairwise(values)]
    falls = all(b <= a + off for a, b, off in steps)
    if not falls and not all(a <= b + off for a, b, off in steps):
        shown = ", ".join(f"{value:g}" for value in values[:8]) + (", …" * (len(values) > 8))
        raise UnsupportedError(
            f"the {name} of this {type(scheduler).__name__} go up and down ({shown}); only a "
            "schedule whose noise falls from step to step can be guided: pass timesteps= or "
            "sigmas= "
            "in their order, or leave them out"
        )


BUILT_IN: dict[str, Entry] = {
    "CogVideoXDDIMScheduler": Entry(x0_maps.ddim, deterministic_first_order=True),
    "CogVideoXDPMScheduler": Entry(x0_maps.ddim),
    "CosineDPMSolverMultistepScheduler": Entry(x0_maps.edm),
    "DDIMParallelScheduler": Entry(x0_maps.ddim, deterministic_first_order=True),
    "DDIMScheduler": Entry(x0_maps.ddim, deterministic_first_order=True),
    "DDPMParallelScheduler": Entry(x0_maps.ddpm),
    "DDPMScheduler": Entry(x0_maps.ddpm),
    "DDPMWuerstchenScheduler": Entry(
        x0_maps.wuerstchen, schedule=all_but_the_last, position=nearest
    ),
    "DEISMultistepScheduler": Entry(x0_maps.multistep),
    "DPMSolverMultistepScheduler": Entry(x0_maps.multistep),
    "DPMSolverSDEScheduler": Entry(x0_maps.sde),
    "DPMSolverSinglestepScheduler": Entry(x0_maps.multistep),
    "EDMDPMSolverMultistepScheduler": Entry(x0_maps.edm),
    "EDMEulerScheduler": Entry(x0_maps.edm, deterministic_first_order=True),
    "EulerAncestralDiscreteScheduler": Entry(x0_maps.euler, memoryless=True),
    "EulerDiscreteScheduler": Entry(x0_maps.euler, deterministic_first_order=True),
    "FlowMatchEulerDiscreteScheduler": Entry(
        x0_maps.flow, deterministic_first_order=True, scheduler_timesteps=of_flow
    ),
    "FlowMatchHeunDiscreteScheduler": Entry(x0_maps.flow_heun, scheduler_timesteps=of_flow),
    "FlowMatchLCMScheduler": Entry(x0_maps.flow_consistency),
    "HeunDiscreteScheduler": Entry(x0_maps.heun),
    "IPNDMScheduler": Entry(x0_maps.ipndm),
    "KDPM2AncestralDiscreteScheduler": Entry(x0_maps.kdpm2_ancestral),
    "KDPM2DiscreteScheduler": Entry(x0_maps.kdpm2),
    "LCMScheduler": Entry(x0_maps.consistency, memoryless=True),
    "LMSDiscreteScheduler": Entry(x0_maps.euler),
    "PNDMScheduler": Entry(x0_maps.pndm),
    "SASolverScheduler": Entry(x0_maps.multistep),
    "SCMScheduler": Entry(
        x0_maps.trigonometric, schedule=all_but_the_last, scheduler_timesteps=of_angles
    ),
    "TCDScheduler": Entry(x0_maps.tcd, memoryless=True),
    "UniPCMultistepScheduler": Entry(x0_maps.multistep),
}
"""Class name → entry, so that no scheduler has to be imported that is not used."""
