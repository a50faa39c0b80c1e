"""What a scheduler's current call means: the noise level, and the clean latent that the model's output stands for.

Every solver reads the model's output as a statement about the clean latent, `x0 = a · sample + b · model_output`, at the noise level
`sample = alpha · x0 + sigma · noise`. One function per scheduler class says which four numbers hold at its current call, and where the
call goes. A class that is not in the table is refused: `register` adds one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
from torch import Tensor

from unalike.errors import UnsupportedError


@dataclass(frozen=True)
class Level:
    """One call of a scheduler: `sample = alpha · x0 + sigma · noise`, `x0 = a · sample + b · model_output`, and the level it goes to."""

    alpha: float
    sigma: float
    a: float
    b: float
    next_alpha: float
    next_sigma: float


LevelMap = Callable[[Any, Any], Level]
"""`(scheduler, timestep) -> Level`, read right before the scheduler's own `step`; its step index, if it has one, is set by then."""


@dataclass(frozen=True)
class _Entry:
    level: LevelMap
    schedule: Callable[[Any], Tensor]


_ENTRIES: dict[type, _Entry] = {}


def _all_timesteps(scheduler: Any) -> Tensor:
    return scheduler.timesteps


def one_step(scheduler: Any, arguments: Mapping[str, Any]) -> bool:
    """Whether a call of the scheduler with these arguments is one deterministic step of first order from x0 and the noisy latents alone.

    It is for DDIM without η and for Euler's method on noise levels or straight paths. All others have a memory, noise of their own, or
    several evaluations a step; and none is where predictions are clipped, for then an edit of x0 is not what it seems.
    """
    known = (diffusers.DDIMScheduler, diffusers.EulerDiscreteScheduler, diffusers.FlowMatchEulerDiscreteScheduler)
    if not isinstance(scheduler, known):
        return False
    switches = ("stochastic_sampling", "clip_sample", "thresholding")
    return not (arguments.get("eta", 0) > 0 or any(getattr(scheduler.config, name, False) for name in switches))


def register(scheduler_class: type, level: LevelMap, schedule: Callable[[Any], Tensor] = _all_timesteps) -> None:
    """Adds a scheduler class, or replaces its map.

    Args:
        scheduler_class: the class; subclasses that keep its `step` are covered too.
        level: the map of its current call.
        schedule: the timesteps at which the model will be evaluated; all of `scheduler.timesteps` unless given.

    Example:
        >>> class Straight(diffusers.FlowMatchEulerDiscreteScheduler):
        ...     def step(self, model_output, timestep, sample, **options):
        ...         return super().step(model_output, timestep, sample, **options)
        >>> supported(Straight())
        False
        >>> def straight_level(scheduler, timestep):
        ...     sigma, after = (float(scheduler.sigmas[scheduler.step_index + i]) for i in (0, 1))
        ...     return Level(alpha=1 - sigma, sigma=sigma, a=1.0, b=-sigma, next_alpha=1 - after, next_sigma=after)
        >>> register(Straight, straight_level)
        >>> supported(Straight())
        True
    """
    _ENTRIES[scheduler_class] = _Entry(level, schedule)


def supported(scheduler: Any) -> bool:
    """Whether the scheduler's class has a map."""
    return _entry(type(scheduler)) is not None


def level(scheduler: Any, timestep: Any) -> Level:
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


def first(timestep: Any) -> Any:
    """The timestep of a batch, where a pipeline gives one for each image."""
    return timestep.reshape(-1)[0] if isinstance(timestep, Tensor) else timestep


def meant(scheduler: Any, timestep: float) -> tuple[float, ...]:
    """The timesteps of the scheduler that a model may be asked about by this number.

    They are the scheduler's own, or on a scale from 0 to 1, upward or downward; for the angles `t` of SCM, `sin t / (cos t + sin t)`.
    """
    if isinstance(scheduler, diffusers.SCMScheduler):
        return (math.atan2(timestep, 1 - timestep),)
    return timestep, 1000 * timestep, 1000 * (1 - timestep)


def position(scheduler: Any, timestep: Any, after: int) -> int:
    """The index in `schedule` of the current call; `after` is that of the one before, or -1.

    Sets the scheduler's own step index where it has one that is not set yet, just as its `step` would.

    Raises:
        UnsupportedError: where the timestep is not in the schedule.
    """
    if hasattr(type(scheduler), "_init_step_index"):
        fresh = scheduler.step_index is None
        if fresh:
            scheduler._init_step_index(first(timestep))
        return int(scheduler.step_index)
    times, now = schedule(scheduler).tolist(), float(first(timestep))
    for index in range(after + 1, len(times)):
        if times[index] == now:
            return index
    raise UnsupportedError(
        f"{type(scheduler).__name__} was stepped at timestep {now:g}, which is not among the ones still to come; "
        "only timesteps that set_timesteps made can be guided, in their order"
    )


def _entry(scheduler_class: type) -> _Entry | None:
    for parent in scheduler_class.__mro__:
        if parent in _ENTRIES:
            same = getattr(scheduler_class, "step", None) is getattr(parent, "step", None)
            return _ENTRIES[parent] if same else None
    return None


def require(scheduler: Any) -> _Entry:
    """The row of the scheduler's class.

    Raises:
        UnsupportedError: where there is none; the message names the class and the call that adds one.
    """
    entry = _entry(type(scheduler))
    if entry is None:
        raise UnsupportedError(
            f"no x0 map is known for the scheduler {type(scheduler).__name__}; use one of "
            f"{', '.join(sorted(c.__name__ for c in _ENTRIES))}, "
            f"or add one with unalike.attach.levels.register({type(scheduler).__name__}, level)"
        )
    return entry


def _prediction(scheduler: Any) -> str:
    return scheduler.config.prediction_type


def _x0_map(scheduler: Any, alpha: float, sigma: float, norm: float) -> tuple[float, float]:
    """`a` and `b` for the scheduler's prediction type; `norm` is `sqrt(alpha² + sigma²)` as the solver itself takes it."""
    prediction = _prediction(scheduler)
    if prediction == "epsilon":
        if alpha == 0:
            raise UnsupportedError(
                f"{type(scheduler).__name__}: the schedule begins at pure noise (alpha is 0), where predicted noise does not "
                "determine x0; use a model with v_prediction, or a schedule without rescale_betas_zero_snr"
            )
        return 1 / alpha, -sigma / alpha
    if prediction == "v_prediction":
        return alpha / norm**2, -sigma / norm
    if prediction in ("sample", "original_sample"):
        return 0.0, 1.0
    if prediction == "flow_prediction":
        return 1.0, -sigma
    raise UnsupportedError(
        f"{type(scheduler).__name__}: no x0 map for prediction_type {prediction!r}; known are epsilon, v_prediction, sample "
        "and flow_prediction"
    )


def _from_cumulative(scheduler: Any, here: Any, there: Any) -> Level:
    """Variance preserving, from two cumulative products `alpha²`."""
    alpha, sigma = math.sqrt(float(here)), math.sqrt(1 - float(here))
    a, b = _x0_map(scheduler, alpha, sigma, 1.0)
    return Level(alpha, sigma, a, b, math.sqrt(float(there)), math.sqrt(1 - float(there)))


def _cumulative(scheduler: Any, timestep: Any, past_the_end: Any) -> Any:
    return scheduler.alphas_cumprod[int(timestep)] if int(timestep) >= 0 else past_the_end


def _ddim(scheduler: Any, timestep: Any) -> Level:
    there = int(timestep) - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    return _from_cumulative(
        scheduler, scheduler.alphas_cumprod[int(timestep)], _cumulative(scheduler, there, scheduler.final_alpha_cumprod)
    )


def _ddpm(scheduler: Any, timestep: Any) -> Level:
    there = scheduler.previous_timestep(timestep)
    return _from_cumulative(scheduler, scheduler.alphas_cumprod[int(timestep)], _cumulative(scheduler, there, scheduler.one))


def _pndm(scheduler: Any, timestep: Any) -> Level:
    stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    if scheduler.counter < len(scheduler.prk_timesteps) and not scheduler.config.skip_prk_steps:
        there = int(timestep) - (0 if scheduler.counter % 2 else stride // 2)
    else:
        there = int(timestep) - (0 if scheduler.counter == 1 else stride)  # the second call repeats the first step with a better slope
    return _from_cumulative(
        scheduler, scheduler.alphas_cumprod[int(timestep)], _cumulative(scheduler, there, scheduler.final_alpha_cumprod)
    )


def _consistency(scheduler: Any, timestep: Any) -> Level:
    following = scheduler.step_index + 1
    last = following >= len(scheduler.timesteps)
    there = 1.0 if last else _cumulative(scheduler, scheduler.timesteps[following], scheduler.final_alpha_cumprod)
    return _from_cumulative(scheduler, scheduler.alphas_cumprod[int(timestep)], there)


def _tcd(scheduler: Any, timestep: Any) -> Level:
    following = scheduler.step_index + 1
    there = 0 if following >= len(scheduler.timesteps) else scheduler.timesteps[following]
    return _from_cumulative(
        scheduler, scheduler.alphas_cumprod[int(timestep)], _cumulative(scheduler, there, scheduler.final_alpha_cumprod)
    )


def _exploding(scheduler: Any, sigma: Any, next_sigma: Any) -> Level:
    """Variance exploding: `sample = x0 + sigma · noise`."""
    sigma = float(sigma)
    a, b = _x0_map(scheduler, 1.0, sigma, math.hypot(1.0, sigma))
    return Level(1.0, sigma, a, b, 1.0, float(next_sigma))


def _euler(scheduler: Any, timestep: Any) -> Level:
    index = scheduler.step_index
    return _exploding(scheduler, scheduler.sigmas[index], scheduler.sigmas[index + 1])


def _heun(scheduler: Any, timestep: Any) -> Level:
    index = scheduler.step_index
    return _exploding(scheduler, scheduler.sigmas[index], scheduler.sigmas[index + 1 if scheduler.state_in_first_order else index])


def _kdpm2(scheduler: Any, timestep: Any) -> Level:
    index = scheduler.step_index
    if scheduler.state_in_first_order:
        return _exploding(scheduler, scheduler.sigmas[index], scheduler.sigmas_interpol[index + 1])
    return _exploding(scheduler, scheduler.sigmas_interpol[index], scheduler.sigmas[index])


def _kdpm2_ancestral(scheduler: Any, timestep: Any) -> Level:
    index = scheduler.step_index
    if scheduler.state_in_first_order:
        return _exploding(scheduler, scheduler.sigmas[index], scheduler.sigmas_interpol[index])
    return _exploding(scheduler, scheduler.sigmas_interpol[index - 1], scheduler.sigmas[index])


def _multistep(scheduler: Any, timestep: Any) -> Level:
    """Schedulers that keep sigmas and turn them into alpha and sigma themselves, variance preserving or straight."""
    index = scheduler.step_index
    alpha, sigma = (float(v) for v in scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[index]))
    next_alpha, next_sigma = (float(v) for v in scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[index + 1]))
    a, b = _x0_map(scheduler, alpha, sigma, 1.0)
    if _prediction(scheduler) == "flow_prediction":
        b = -float(scheduler.sigmas[index])  # these solvers take the unscaled sigma here, whatever their schedule
    return Level(alpha, sigma, a, b, next_alpha, next_sigma)


def _flow(scheduler: Any, timestep: Any) -> Level:
    index = scheduler.step_index
    sigma, next_sigma = float(scheduler.sigmas[index]), float(scheduler.sigmas[index + 1])
    if scheduler.config.get("invert_sigmas"):  # those sigmas are shares of the data, and the model predicts data minus noise
        return Level(sigma, 1 - sigma, 1.0, 1 - sigma, next_sigma, 1 - next_sigma)
    return Level(1 - sigma, sigma, 1.0, -sigma, 1 - next_sigma, next_sigma)


def _flow_heun(scheduler: Any, timestep: Any) -> Level:
    index = scheduler.step_index
    sigma = float(scheduler.sigmas[index])
    next_sigma = float(scheduler.sigmas[index + 1]) if scheduler.state_in_first_order else sigma
    return Level(1 - sigma, sigma, 1.0, -sigma, 1 - next_sigma, next_sigma)


def _edm(scheduler: Any, timestep: Any) -> Level:
    sigma, next_sigma = (float(scheduler.sigmas[scheduler.step_index + i]) for i in (0, 1))
    a, b = (float(scheduler.precondition_outputs(*unit, sigma)) for unit in ((1.0, 0.0), (0.0, 1.0)))
    return Level(1.0, sigma, a, b, 1.0, next_sigma)


def _trigonometric(scheduler: Any, timestep: Any) -> Level:
    here, there = (float(scheduler.timesteps[scheduler.step_index + i]) for i in (0, 1))
    return Level(math.cos(here), math.sin(here), math.cos(here), -math.sin(here), math.cos(there), math.sin(there))


def _without_the_end(scheduler: Any) -> Tensor:
    return scheduler.timesteps[:-1]


_BUILT_IN: dict[str, LevelMap] = {
    "DDIMScheduler": _ddim,
    "DDIMParallelScheduler": _ddim,
    "DDPMScheduler": _ddpm,
    "DDPMParallelScheduler": _ddpm,
    "PNDMScheduler": _pndm,
    "LCMScheduler": _consistency,
    "TCDScheduler": _tcd,
    "EulerDiscreteScheduler": _euler,
    "EulerAncestralDiscreteScheduler": _euler,
    "LMSDiscreteScheduler": _euler,
    "HeunDiscreteScheduler": _heun,
    "KDPM2DiscreteScheduler": _kdpm2,
    "KDPM2AncestralDiscreteScheduler": _kdpm2_ancestral,
    "DPMSolverMultistepScheduler": _multistep,
    "DPMSolverSinglestepScheduler": _multistep,
    "UniPCMultistepScheduler": _multistep,
    "DEISMultistepScheduler": _multistep,
    "SASolverScheduler": _multistep,
    "FlowMatchEulerDiscreteScheduler": _flow,
    "FlowMatchHeunDiscreteScheduler": _flow_heun,
    "EDMEulerScheduler": _edm,
    "EDMDPMSolverMultistepScheduler": _edm,
    "SCMScheduler": _trigonometric,
}
for _name, _map in _BUILT_IN.items():
    register(getattr(diffusers, _name), _map, _without_the_end if _name == "SCMScheduler" else _all_timesteps)
