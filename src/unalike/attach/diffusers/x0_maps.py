"""x0 maps of diffusers' schedulers: noise level and predicted clean latent of the current call.

Every map is a function `(scheduler, timestep) -> SchedulerLevel`, read right before the scheduler's
own `step`; the step index, if the scheduler has one, is set by then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from unalike.errors import UnsupportedError
from unalike.guidance.level import Level

_ROUNDING = 1e-4  # how far below 0 an alpha or sigma may fall by rounding


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
        """The level without the x0 map, as methods see it.

        Values that rounding has put just below 0 are 0, as of SCM's `cos(1.5708)`.
        """
        values = (self.alpha, self.sigma, self.next_alpha, self.next_sigma)
        return Level(*(0.0 if -_ROUNDING < value < 0 else value for value in values))


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
                f"{type(scheduler).__name__}: the schedule begins at pure noise (alpha is 0), "
                "where "
                "predicted noise does not determine x0; use a model with v_prediction, or a "
                "schedule without rescale_betas_zero_snr"
            )
        return 1 / alpha, -sigma / alpha
    if prediction == "v_prediction":
        return alpha / norm**2, -sigma / norm
    if prediction in ("sample", "original_sample"):
        return 0.0, 1.0
    if prediction == "flow_prediction":
        return 1.0, -sigma
    raise UnsupportedError(
        f"{type(scheduler).__name__}: no x0 map for prediction_type {prediction!r}; allowed: "
        "epsilon, "
        "v_prediction, sample and flow_prediction"
    )


def _from_cumulative(scheduler: Any, here: Any, there: Any) -> SchedulerLevel:
    """Variance preserving, from two cumulative products `alpha²`."""
    alpha, sigma = math.sqrt(float(here)), math.sqrt(1 - float(here))
    a, b = _x0_map(scheduler, alpha, sigma, 1.0)
    return SchedulerLevel(alpha, sigma, a, b, math.sqrt(float(there)), math.sqrt(1 - float(there)))


def _cumulative(scheduler: Any, timestep: Any, past_the_end: Any) -> Any:
    return scheduler.alphas_cumprod[int(timestep)] if int(timestep) >= 0 else past_the_end


def ddim(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """DDIM; also CogVideoX's two solvers."""
    there = int(timestep) - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    return _from_cumulative(
        scheduler,
        scheduler.alphas_cumprod[int(timestep)],
        _cumulative(scheduler, there, scheduler.final_alpha_cumprod),
    )


def ddpm(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """Ancestral sampling."""
    there = scheduler.previous_timestep(timestep)
    return _from_cumulative(
        scheduler,
        scheduler.alphas_cumprod[int(timestep)],
        _cumulative(scheduler, there, scheduler.one),
    )


def pndm(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """PNDM, with its Runge-Kutta steps or without."""
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


def consistency(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """Consistency sampling."""
    following = scheduler.step_index + 1
    last = following >= len(scheduler.timesteps)
    there = (
        1.0
        if last
        else _cumulative(scheduler, scheduler.timesteps[following], scheduler.final_alpha_cumprod)
    )
    return _from_cumulative(scheduler, scheduler.alphas_cumprod[int(timestep)], there)


def tcd(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """Trajectory consistency sampling."""
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


def euler(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """Euler's method on noise levels; also its ancestral form and LMS."""
    index = scheduler.step_index
    return _exploding(scheduler, scheduler.sigmas[index], scheduler.sigmas[index + 1])


def heun(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """Heun's method: two calls a step, at its beginning and its end."""
    index = scheduler.step_index
    return _exploding(
        scheduler,
        scheduler.sigmas[index],
        scheduler.sigmas[index + 1 if scheduler.state_in_first_order else index],
    )


def kdpm2(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """Two calls a step: at its beginning, and between it and its end."""
    index = scheduler.step_index
    if scheduler.state_in_first_order:
        return _exploding(scheduler, scheduler.sigmas[index], scheduler.sigmas_interpol[index + 1])
    return _exploding(scheduler, scheduler.sigmas_interpol[index], scheduler.sigmas[index])


def kdpm2_ancestral(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """As `kdpm2`, for its ancestral form."""
    index = scheduler.step_index
    if scheduler.state_in_first_order:
        return _exploding(scheduler, scheduler.sigmas[index], scheduler.sigmas_interpol[index])
    return _exploding(scheduler, scheduler.sigmas_interpol[index - 1], scheduler.sigmas[index])


def multistep(scheduler: Any, timestep: Any) -> SchedulerLevel:
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


def adds_noise(scheduler: Any) -> bool:
    """Whether a flow-matching scheduler is driven with `sample = x0 + sigma · noise`.

    Cosmos 2 does so, with sigmas up to 80; those of a straight path, `(1 - sigma) · x0 + sigma ·
    noise`, end at 1. Both read the output the same way, `x0 = sample - sigma · output`, and take
    the same step.
    """
    stochastic = scheduler.config.get("stochastic_sampling", False)
    return not stochastic and float(scheduler.sigmas.max()) > 1 + _ROUNDING


def flow(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """Straight paths, and noise added to the data (see `adds_noise`).

    With `invert_sigmas` the sigmas are shares of the data, and the model predicts data minus noise.
    """
    index = scheduler.step_index
    sigma, next_sigma = float(scheduler.sigmas[index]), float(scheduler.sigmas[index + 1])
    if scheduler.config.get("invert_sigmas"):
        return SchedulerLevel(sigma, 1 - sigma, 1.0, 1 - sigma, next_sigma, 1 - next_sigma)
    return _flow_level(scheduler, sigma, next_sigma)


def _flow_level(scheduler: Any, sigma: float, next_sigma: float) -> SchedulerLevel:
    if adds_noise(scheduler):
        return SchedulerLevel(1.0, sigma, 1.0, -sigma, 1.0, next_sigma)
    return SchedulerLevel(1 - sigma, sigma, 1.0, -sigma, 1 - next_sigma, next_sigma)


def flow_consistency(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """Consistency sampling on straight paths."""
    if scheduler.config.get("invert_sigmas") or (
        scheduler._scale_factors and scheduler._upscale_mode
    ):
        raise UnsupportedError(
            "FlowMatchLCMScheduler: with invert_sigmas its noise levels are not those of its "
            "model, "
            "and with scale factors latents of different steps have different sizes; only the "
            "plain "
            "schedule can be guided: set neither"
        )
    index = scheduler.step_index
    sigma, next_sigma = float(scheduler.sigmas[index]), float(scheduler.sigmas[index + 1])
    return SchedulerLevel(1 - sigma, sigma, 1.0, -sigma, 1 - next_sigma, next_sigma)


def flow_heun(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """Heun's method on straight paths, two calls a step, or with added noise."""
    index = scheduler.step_index
    sigma = float(scheduler.sigmas[index])
    next_sigma = float(scheduler.sigmas[index + 1]) if scheduler.state_in_first_order else sigma
    return _flow_level(scheduler, sigma, next_sigma)


def edm(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """EDM's preconditioning, which the scheduler applies itself."""
    sigma, next_sigma = (float(scheduler.sigmas[scheduler.step_index + i]) for i in (0, 1))
    a, b = (
        float(scheduler.precondition_outputs(*unit, sigma)) for unit in ((1.0, 0.0), (0.0, 1.0))
    )
    return SchedulerLevel(1.0, sigma, a, b, 1.0, next_sigma)


def sde(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """Two calls a step: at its beginning, and half way to its end on a logarithmic scale of
    noise.
    """
    index = scheduler.step_index
    if not scheduler.state_in_first_order:
        return _exploding(scheduler, scheduler.mid_point_sigma, scheduler.sigmas[index])
    here, there = (float(scheduler.sigmas[index + i]) for i in (0, 1))
    return _exploding(scheduler, here, math.sqrt(here * there))


def ipndm(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """Predicts v. The first call of a whole schedule is at pure noise, where this solver leaves its
    prediction out, edited or not.
    """
    index = scheduler.step_index
    (alpha, next_alpha), (sigma, next_sigma) = (
        (float(v[index]), float(v[index + 1])) for v in (scheduler.alphas, scheduler.betas)
    )
    return SchedulerLevel(alpha, sigma, alpha, -sigma, next_alpha, next_sigma)


def wuerstchen(scheduler: Any, timestep: Any) -> SchedulerLevel:
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


def trigonometric(scheduler: Any, timestep: Any) -> SchedulerLevel:
    """SCM: `cos t · x0 + sin t · noise`, predicting the velocity."""
    here, there = (float(scheduler.timesteps[scheduler.step_index + i]) for i in (0, 1))
    return SchedulerLevel(
        math.cos(here),
        math.sin(here),
        math.cos(here),
        -math.sin(here),
        math.cos(there),
        math.sin(there),
    )
