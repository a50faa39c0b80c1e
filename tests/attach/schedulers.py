"""Every built-in scheduler setting with a model that knows one image only, written without the maps that are tested."""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import diffusers
import numpy as np
from torch import Tensor

STABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
TRAINING_SIGMAS = np.sqrt(1 / np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2) - 1)


@dataclass(frozen=True)
class Setting:
    """A scheduler with its configuration; `family` says how its model reads the timestep."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    family: str = "betas"
    tolerance: float = 2e-4

    @property
    def id(self) -> str:
        plain = (*STABLE, "clip_sample", "set_alpha_to_one", "final_sigmas_type", "lower_order_final", "shift", "flow_shift")
        extra = [k if v is True else f"no_{k}" if v is False else str(v) for k, v in self.config.items() if k not in plain]
        return "-".join([self.name.removesuffix("Scheduler"), *extra])

    def make(self) -> Any:
        return getattr(diffusers, self.name)(**self.config)


def _betas(name: str, *predictions: str, tolerance: float = 2e-4, **config: Any) -> list[Setting]:
    return [Setting(name, {**STABLE, **config, "prediction_type": p}, tolerance=tolerance) for p in predictions]


SETTINGS = [
    *_betas("DDIMScheduler", "epsilon", "v_prediction", "sample", clip_sample=False),
    *_betas("DDIMParallelScheduler", "epsilon", clip_sample=False),
    *(
        Setting(name, {**STABLE, "prediction_type": p, "snr_shift_scale": 3.0}, "shifted betas")
        for name in ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")
        for p in ("epsilon", "v_prediction", "sample")
    ),
    *_betas("DDPMScheduler", "epsilon", "v_prediction", "sample", clip_sample=False),
    *_betas("DDPMParallelScheduler", "epsilon", clip_sample=False),
    *_betas("PNDMScheduler", "epsilon", skip_prk_steps=True, set_alpha_to_one=True),
    *_betas("PNDMScheduler", "v_prediction", skip_prk_steps=True, set_alpha_to_one=True, tolerance=0.03),
    *_betas("PNDMScheduler", "epsilon", skip_prk_steps=False, set_alpha_to_one=True),
    *_betas("LCMScheduler", "epsilon", "v_prediction", "sample", clip_sample=False, tolerance=1e-3),
    *_betas("TCDScheduler", "epsilon", "v_prediction", "sample", clip_sample=False, tolerance=1e-3),
    *_betas("EulerDiscreteScheduler", "epsilon", "v_prediction", "sample"),
    *_betas("EulerAncestralDiscreteScheduler", "epsilon", "v_prediction"),
    *_betas("LMSDiscreteScheduler", "epsilon", "v_prediction", "sample"),
    *_betas("HeunDiscreteScheduler", "epsilon", "v_prediction", "sample"),
    *_betas("KDPM2DiscreteScheduler", "epsilon", "v_prediction", tolerance=2e-3),
    *_betas("KDPM2AncestralDiscreteScheduler", "epsilon", "v_prediction", tolerance=2e-3),
    *_betas("DPMSolverMultistepScheduler", "epsilon", "v_prediction", "sample"),
    *_betas("DPMSolverMultistepScheduler", "epsilon", algorithm_type="sde-dpmsolver++"),
    *_betas("DPMSolverMultistepScheduler", "epsilon", use_karras_sigmas=True, tolerance=2e-3),
    *_betas("DPMSolverSinglestepScheduler", "epsilon", "v_prediction", "sample", final_sigmas_type="zero", lower_order_final=True),
    *_betas("UniPCMultistepScheduler", "epsilon", "v_prediction", "sample"),
    *_betas("DEISMultistepScheduler", "epsilon", "v_prediction", "sample", tolerance=0.03),
    *_betas("SASolverScheduler", "epsilon", "v_prediction", "sample", tolerance=1e-3),
    Setting("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, "flow"),
    Setting("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, "flow"),
    Setting("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}, "inverted flow"),
    Setting("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}, "flow"),
    *(
        Setting(name, {**STABLE, "prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0, **more}, "flow", 2e-3)
        for name, more in (
            ("DPMSolverMultistepScheduler", {}),
            ("UniPCMultistepScheduler", {}),
            ("DPMSolverSinglestepScheduler", {"final_sigmas_type": "zero", "lower_order_final": True}),
        )
    ),
    *(
        Setting(name, {"prediction_type": p}, "edm")
        for name in ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
        for p in ("epsilon", "v_prediction")
    ),
    Setting("SCMScheduler", {}, "trigonometric"),
]


_PREPARED: dict[str, Any] = {}


def prepared(setting: Setting, steps: int = 6) -> Any:
    """The scheduler at the beginning of a run; making the schedule is slow for some, so it is made once."""
    if setting.id not in _PREPARED:
        _PREPARED[setting.id] = _made(setting, steps)
    return copy.deepcopy(_PREPARED[setting.id])


def _made(setting: Setting, steps: int) -> Any:
    scheduler = setting.make()
    if setting.family == "trigonometric":
        scheduler.set_timesteps(num_inference_steps=steps, max_timesteps=math.pi / 2, intermediate_timesteps=None)
    else:
        scheduler.set_timesteps(steps)
    return scheduler


def timesteps(setting: Setting, scheduler: Any) -> Tensor:
    return scheduler.timesteps[:-1] if setting.family == "trigonometric" else scheduler.timesteps


def noise_level(setting: Setting, timestep: Tensor) -> tuple[float, float]:
    """`alpha`, `sigma` of the model's own input at a timestep."""
    t = float(timestep)
    if "betas" in setting.family:
        sigma = float(np.interp(t, np.arange(1000), TRAINING_SIGMAS)) * (3**0.5 if setting.family == "shifted betas" else 1)
        return 1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma)
    if setting.family == "flow":
        return 1 - t / 1000, t / 1000
    if setting.family == "inverted flow":
        return t / 1000, 1 - t / 1000
    if setting.family == "edm":
        return 1.0, math.exp(4 * t)
    return math.cos(t), math.sin(t)


def one_image_model(setting: Setting, scheduler: Any, sample: Tensor, t: Tensor, image: Tensor) -> Tensor:
    """What a perfect model of a single image predicts."""
    alpha, sigma = noise_level(setting, t)
    if setting.family == "edm":
        skip, out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / math.hypot(sigma, 0.5)
        sign = 1 if scheduler.config.prediction_type == "epsilon" else -1
        return sign * (image - skip * sample) / out
    x = scheduler.scale_model_input(sample, t) if hasattr(scheduler, "scale_model_input") else sample
    noise = (x - alpha * image) / sigma
    if setting.family == "flow":
        return noise - image
    if setting.family == "inverted flow":
        return image - noise
    if setting.family == "trigonometric":
        return alpha * noise - sigma * image
    return {"epsilon": noise, "v_prediction": alpha * noise - sigma * image, "sample": image}[scheduler.config.prediction_type]
