"""The x0 maps of diffusers' own schedulers, and what an edit of x0 does in each of their solvers.

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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from unalike.errors import UnsupportedError
from unalike.guidance.level import Level


@dataclass(frozen=True)
class SchedulerLevel:
    """The noise level of one call of a scheduler, `sample = alpha · x0 + sigma · noise`, with the
    clean latent that the model's output stands for, `x0 = a · sample + b · model_output`, and the
    level that the call ends at.
    """

    alpha: float
    sigma: float
    a: float
    b: float
    next_alpha: float
    next_sigma: float

    @property
    def noise_level(self) -> Level:
        """The level without the x0 map, as methods see it."""
        return Level(self.alpha, self.sigma, self.next_alpha, self.next_sigma)


LevelMap = Callable[[Any, Any], SchedulerLevel]
"""`(scheduler, timestep) -> SchedulerLevel`, read right before the scheduler's own `step`; its step index,
if it has one, is set by then.
"""


@dataclass(frozen=True)
class Entry:
    """What is known of a scheduler class.

    Attributes:
        level: the map of its current call.
        schedule: the timesteps at which the model is evaluated in a whole run.
        position: of a call in that schedule, for a class that has a rule of its own and no step
            index.
    """

    level: LevelMap
    schedule: Callable[[Any], Tensor]
    position: Callable[[Any, Any], int] | None = None


def all_timesteps(scheduler: Any) -> Tensor:
    """The schedule of most classes."""
    return scheduler.timesteps


def first(timestep: Any) -> Any:
    """One number of a timestep that may come once for each image."""
    return timestep.reshape(-1)[0] if isinstance(timestep, Tensor) else timestep


def _prediction(scheduler: Any) -> str:
    return scheduler.config.prediction_type


def _x0_map(scheduler: Any, alpha: float, sigma: float, norm: float) -> tuple[float, float]:
    """`a` and `b` for the scheduler's prediction type; `norm` is `sqrt(alpha² + sigma²)` as the
    solver itself takes it.
    """
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


def _from_cumulative(scheduler: Any, here: Any, there: Any) -> SchedulerLevel:
    """Variance preserving, from two cumulative products `alpha²`."""
    alpha, sigma = math.sqrt(float(here)), math.sqrt(1 - float(here))
    a, b = _x0_map(scheduler, alpha, sigma, 1.0)
    return SchedulerLevel(alpha, sigma, a, b, math.sqrt(float(there)), math.sqrt(1 - float(there)))


def _cumulative(scheduler: Any, timestep: Any, past_the_end: Any) -> Any:
    return scheduler.alphas_cumprod[int(timestep)] if int(timestep) >= 0 else past_the_end


def _ddim(scheduler: Any, timestep: Any) -> SchedulerLevel:
    there = int(timestep) - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    return _from_cumulative(
        scheduler,
        scheduler.alphas_cumprod[int(timestep)],
        _cumulative(scheduler, there, scheduler.final_alpha_cumprod),
    )


def _ddpm(scheduler: Any, timestep: Any) -> SchedulerLevel:
    there = scheduler.previous_timestep(timestep)
    return _from_cumulative(
        scheduler,
        scheduler.alphas_cumprod[int(timestep)],
        _cumulative(scheduler, there, scheduler.one),
    )


def _pndm(scheduler: Any, timestep: Any) -> SchedulerLevel:
    stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    if scheduler.counter < len(scheduler.prk_timesteps) and not scheduler.config.skip_prk_steps:
        there = int(timestep) - (0 if scheduler.counter % 2 else stride // 2)
    else:
        there = int(timestep) - (
            0 if scheduler.counter == 1 else stride
        )  # the second call repeats the first step with a better slope
    return _from_cumulative(
        scheduler,
        scheduler.alphas_cumprod[int(timestep)],
        _cumulative(scheduler, there, scheduler.final_alpha_cumprod),
    )


def _consistency(scheduler: Any, timestep: Any) -> SchedulerLevel:
    following = scheduler.step_index + 1
    last = following >= len(scheduler.timesteps)
    there = (
        1.0
        if last
        else _cumulative(scheduler, scheduler.timesteps[following], scheduler.final_alpha_cumprod)
    )
    return _from_cumulative(scheduler, scheduler.alphas_cumprod[int(timestep)], there)


def _tcd(scheduler: Any, timestep: Any) -> SchedulerLevel:
    following = scheduler.step_index + 1
    there = 0 if following >= len(scheduler.timesteps) else scheduler.timesteps[following]
    return _from_cumulative(
        scheduler,
        scheduler.alphas_cumprod[int(timestep)],
        _cumulative(scheduler, there, scheduler.final_alpha_cumprod),
    )


def _exploding(scheduler: Any, sigma: Any, next_sigma: Any) -> SchedulerLevel:
    """Variance exploding: `sample = x0 + sigma · noise`."""
    sigma = float(sigma)
    a, b = _x0_map(scheduler, 1.0, sigma, math.hypot(1.0, sigma))
    return SchedulerLevel(1.0, sigma, a, b, 1.0, float(next_sigma))


def _euler(scheduler: Any, timestep: Any) -> SchedulerLevel:
    index = scheduler.step_index
    return _exploding(scheduler, scheduler.sigmas[index], scheduler.sigmas[index + 1])


def _heun(scheduler: Any, timestep: Any) -> SchedulerLevel:
    index = scheduler.step_index
    return _exploding(
        scheduler,
        scheduler.sigmas[index],
        scheduler.sigmas[index + 1 if scheduler.state_in_first_order else index],
    )


def _kdpm2(scheduler: Any, timestep: Any) -> SchedulerLevel:
    index = scheduler.step_index
    if scheduler.state_in_first_order:
        return _exploding(scheduler, scheduler.sigmas[index], scheduler.sigmas_interpol[index + 1])
    return _exploding(scheduler, scheduler.sigmas_interpol[index], scheduler.sigmas[index])


def _kdpm2_ancestral(scheduler: Any, timestep: Any) -> SchedulerLevel:
    index = scheduler.step_index
    if scheduler.state_in_first_order:
        return _exploding(scheduler, scheduler.sigmas[index], scheduler.sigmas_interpol[index])
    return _exploding(scheduler, scheduler.sigmas_interpol[index - 1], scheduler.sigmas[index])


def _multistep(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """Schedulers that keep sigmas and turn them into alpha and sigma themselves, variance
    preserving or straight.
    """
    index = scheduler.step_index
    alpha, sigma = (float(v) for v in scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[index]))
    next_alpha, next_sigma = (
        float(v) for v in scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[index + 1])
    )
    a, b = _x0_map(scheduler, alpha, sigma, 1.0)
    if _prediction(scheduler) == "flow_prediction":
        b = -float(
            scheduler.sigmas[index]
        )  # these solvers take the unscaled sigma here, whatever their schedule
    return SchedulerLevel(alpha, sigma, a, b, next_alpha, next_sigma)


def _flow(scheduler: Any, timestep: Any) -> SchedulerLevel:
    index = scheduler.step_index
    sigma, next_sigma = float(scheduler.sigmas[index]), float(scheduler.sigmas[index + 1])
    if scheduler.config.get(
        "invert_sigmas"
    ):  # those sigmas are shares of the data, and the model predicts data minus noise
        return SchedulerLevel(sigma, 1 - sigma, 1.0, 1 - sigma, next_sigma, 1 - next_sigma)
    return SchedulerLevel(1 - sigma, sigma, 1.0, -sigma, 1 - next_sigma, next_sigma)


def _flow_consistency(scheduler: Any, timestep: Any) -> SchedulerLevel:
    if scheduler.config.get("invert_sigmas") or (
        scheduler._scale_factors and scheduler._upscale_mode
    ):
        raise UnsupportedError(
            "FlowMatchLCMScheduler: with invert_sigmas its noise levels are not those of its model, and with scale factors latents of "
            "different steps have different sizes; only the plain schedule can be guided: set neither"
        )
    return _flow(scheduler, timestep)


def _flow_heun(scheduler: Any, timestep: Any) -> SchedulerLevel:
    index = scheduler.step_index
    sigma = float(scheduler.sigmas[index])
    next_sigma = float(scheduler.sigmas[index + 1]) if scheduler.state_in_first_order else sigma
    return SchedulerLevel(1 - sigma, sigma, 1.0, -sigma, 1 - next_sigma, next_sigma)


def _edm(scheduler: Any, timestep: Any) -> SchedulerLevel:
    sigma, next_sigma = (float(scheduler.sigmas[scheduler.step_index + i]) for i in (0, 1))
    a, b = (
        float(scheduler.precondition_outputs(*unit, sigma)) for unit in ((1.0, 0.0), (0.0, 1.0))
    )
    return SchedulerLevel(1.0, sigma, a, b, 1.0, next_sigma)


def _sde(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """Two calls a step: at its beginning, and half way to its end on a logarithmic scale of
    noise.
    """
    index = scheduler.step_index
    if not scheduler.state_in_first_order:
        return _exploding(scheduler, scheduler.mid_point_sigma, scheduler.sigmas[index])
    here, there = (float(scheduler.sigmas[index + i]) for i in (0, 1))
    return _exploding(scheduler, here, math.sqrt(here * there))


def _ipndm(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """Predicts v. The first call of a whole schedule is at pure noise, where this solver leaves its
    prediction out, edited or not.
    """
    index = scheduler.step_index
    (alpha, next_alpha), (sigma, next_sigma) = (
        (float(v[index]), float(v[index + 1])) for v in (scheduler.alphas, scheduler.betas)
    )
    return SchedulerLevel(alpha, sigma, alpha, -sigma, next_alpha, next_sigma)


def _wuerstchen(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """Predicts noise; a timestep is a share of the schedule, from 1, pure noise, down to 0, and
    comes once for each image.
    """
    now = timestep.reshape(-1)[:1]
    here, there = (
        float(scheduler._alpha_cumprod(t, t.device))
        for t in (now, scheduler.previous_timestep(now))
    )
    alpha, sigma = math.sqrt(here), math.sqrt(1 - here)
    return SchedulerLevel(
        alpha, sigma, 1 / alpha, -sigma / alpha, math.sqrt(there), math.sqrt(1 - there)
    )


def _nearest(scheduler: Any, timestep: Any) -> int:
    """The scheduler's own rule, by which timesteps in half precision are found too."""
    return int((scheduler.timesteps - first(timestep)).abs().argmin())


def _trigonometric(scheduler: Any, timestep: Any) -> SchedulerLevel:
    here, there = (float(scheduler.timesteps[scheduler.step_index + i]) for i in (0, 1))
    return SchedulerLevel(
        math.cos(here),
        math.sin(here),
        math.cos(here),
        -math.sin(here),
        math.cos(there),
        math.sin(there),
    )


def _without_the_end(scheduler: Any) -> Tensor:
    return scheduler.timesteps[:-1]


BUILT_IN: dict[str, Entry] = {
    name: Entry(level, all_timesteps)
    for name, level in (
        ("CogVideoXDDIMScheduler", _ddim),
        ("CogVideoXDPMScheduler", _ddim),
        ("CosineDPMSolverMultistepScheduler", _edm),
        ("DDIMScheduler", _ddim),
        ("DDIMParallelScheduler", _ddim),
        ("DDPMScheduler", _ddpm),
        ("DDPMParallelScheduler", _ddpm),
        ("DEISMultistepScheduler", _multistep),
        ("DPMSolverMultistepScheduler", _multistep),
        ("DPMSolverSDEScheduler", _sde),
        ("DPMSolverSinglestepScheduler", _multistep),
        ("EDMDPMSolverMultistepScheduler", _edm),
        ("EDMEulerScheduler", _edm),
        ("EulerAncestralDiscreteScheduler", _euler),
        ("EulerDiscreteScheduler", _euler),
        ("FlowMatchEulerDiscreteScheduler", _flow),
        ("FlowMatchHeunDiscreteScheduler", _flow_heun),
        ("FlowMatchLCMScheduler", _flow_consistency),
        ("HeunDiscreteScheduler", _heun),
        ("IPNDMScheduler", _ipndm),
        ("KDPM2AncestralDiscreteScheduler", _kdpm2_ancestral),
        ("KDPM2DiscreteScheduler", _kdpm2),
        ("LCMScheduler", _consistency),
        ("LMSDiscreteScheduler", _euler),
        ("PNDMScheduler", _pndm),
        ("SASolverScheduler", _multistep),
        ("TCDScheduler", _tcd),
        ("UniPCMultistepScheduler", _multistep),
    )
} | {
    "DDPMWuerstchenScheduler": Entry(_wuerstchen, _without_the_end, _nearest),
    "SCMScheduler": Entry(_trigonometric, _without_the_end),
}
