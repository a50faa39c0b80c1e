"""Every built-in scheduler setting with a model that knows one image only, written without the maps
that are tested.
"""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import diffusers
import numpy as np
import torch
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
    steps: int = 6

    @property
    def id(self) -> str:
        plain = (
            *STABLE,
            "clip_sample",
            "set_alpha_to_one",
            "final_sigmas_type",
            "lower_order_final",
            "shift",
            "flow_shift",
            "noise_sampler_seed",
            "timestep_spacing",
        )
        extra = [
            k if v is True else f"no_{k}" if v is False else str(v)
            for k, v in self.config.items()
            if k not in plain
        ]
        return "-".join([self.name.removesuffix("Scheduler"), *extra])

    def make(self) -> Any:
        return getattr(diffusers, self.name)(**self.config)


def _betas(name: str, *predictions: str, tolerance: float = 2e-4, **config: Any) -> list[Setting]:
    return [
        Setting(name, {**STABLE, **config, "prediction_type": p}, tolerance=tolerance)
        for p in predictions
    ]


SETTINGS = [
    *_betas("DDIMScheduler", "epsilon", "v_prediction", "sample", clip_sample=False),
    *_betas("DDIMParallelScheduler", "epsilon", clip_sample=False),
    *_betas("DDPMScheduler", "epsilon", "v_prediction", "sample", clip_sample=False),
    *_betas("DDPMParallelScheduler", "epsilon", clip_sample=False),
    *_betas("PNDMScheduler", "epsilon", skip_prk_steps=True, set_alpha_to_one=True),
    *_betas(
        "PNDMScheduler", "v_prediction", skip_prk_steps=True, set_alpha_to_one=True, tolerance=0.03
    ),
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
    *_betas(
        "DPMSolverSinglestepScheduler",
        "epsilon",
        "v_prediction",
        "sample",
        final_sigmas_type="zero",
        lower_order_final=True,
    ),
    *_betas("UniPCMultistepScheduler", "epsilon", "v_prediction", "sample"),
    *_betas("DEISMultistepScheduler", "epsilon", "v_prediction", "sample", tolerance=0.03),
    *_betas("SASolverScheduler", "epsilon", "v_prediction", "sample", tolerance=1e-3),
    Setting("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, "flow"),
    Setting("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, "flow"),
    Setting("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}, "inverted flow"),
    Setting("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}, "flow"),
    Setting("FlowMatchLCMScheduler", {"shift": 3.0}, "flow"),
    *(
        Setting(
            name,
            {
                **STABLE,
                "prediction_type": "flow_prediction",
                "use_flow_sigmas": True,
                "flow_shift": 3.0,
                **more,
            },
            "flow",
            2e-3,
        )
        for name, more in (
            ("DPMSolverMultistepScheduler", {}),
            ("UniPCMultistepScheduler", {}),
            (
                "DPMSolverSinglestepScheduler",
                {"final_sigmas_type": "zero", "lower_order_final": True},
            ),
        )
    ),
    *(
        Setting(name, {"prediction_type": p}, "edm")
        for name in ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
        for p in ("epsilon", "v_prediction")
    ),
    *(
        Setting("CosineDPMSolverMultistepScheduler", {"prediction_type": p}, "cosine")
        for p in ("epsilon", "v_prediction")
    ),
    *_betas(
        "DPMSolverSDEScheduler", "epsilon", "v_prediction", noise_sampler_seed=5, tolerance=2e-3
    ),
    *(
        Setting(
            name,
            {"prediction_type": p, "timestep_spacing": "trailing", "clip_sample": False},
            "shifted betas",
            steps=5,
        )
        for name in ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")
        for p in ("epsilon", "v_prediction")
    ),
    Setting(
        "IPNDMScheduler", {}, "sine", tolerance=5e-4, steps=25
    ),  # with fewer, extrapolation over four steps arrives elsewhere
    Setting("DDPMWuerstchenScheduler", {}, "ratio", tolerance=1e-3),
    Setting("DDPMWuerstchenScheduler", {"scaler": 2.0}, "ratio", tolerance=1e-3),
    Setting("SCMScheduler", {}, "trigonometric"),
]


_PREPARED: dict[str, Any] = {}


def prepared(setting: Setting) -> Any:
    """The scheduler at the beginning of a run; making the schedule is slow for some, so it is made
    once.
    """
    if setting.id not in _PREPARED:
        _PREPARED[setting.id] = _made(setting)
    return copy.deepcopy(_PREPARED[setting.id])


def _made(setting: Setting) -> Any:
    scheduler = setting.make()
    if setting.family == "trigonometric":
        scheduler.set_timesteps(
            num_inference_steps=setting.steps,
            max_timesteps=math.pi / 2,
            intermediate_timesteps=None,
        )
    else:
        scheduler.set_timesteps(setting.steps)
    return scheduler


def timesteps(setting: Setting, scheduler: Any) -> Tensor:
    return (
        scheduler.timesteps[:-1]
        if setting.family in ("trigonometric", "ratio")
        else scheduler.timesteps
    )


class Sampler:
    """Steps a scheduler as the pipelines that use it do."""

    def __init__(self, setting: Setting, scheduler: Any, seed: int = 1) -> None:
        self._setting, self._scheduler, self._seen = setting, scheduler, []
        takes_generator = "generator" in type(scheduler).step.__code__.co_varnames
        self._options = (
            {"generator": torch.Generator().manual_seed(seed)} if takes_generator else {}
        )
        self._old: Tensor | None = None

    def step(self, output: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """The sample after a step from timestep `t`."""
        if self._setting.name == "CogVideoXDPMScheduler":  # which is handed its own past
            before = self._seen[-1] if self._seen else None
            self._seen.append(t)
            sample, self._old = self._scheduler.step(
                output, self._old, t, before, sample, **self._options, return_dict=False
            )
            return sample
        t = t.expand(len(sample)).to(sample.dtype) if self._setting.family == "ratio" else t
        return self._scheduler.step(output, t, sample, **self._options, return_dict=False)[0]


def noise_level(setting: Setting, timestep: Tensor) -> tuple[float, float]:
    """`alpha`, `sigma` of the model's own input at a timestep."""
    t = float(timestep)
    if setting.family in (
        "betas",
        "shifted betas",
    ):  # the shift divides the signal to noise ratio by 3
        sigma = float(np.interp(t, np.arange(1000), TRAINING_SIGMAS)) * (
            math.sqrt(3) if setting.family == "shifted betas" else 1
        )
        return 1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma)
    if setting.family == "flow":
        return 1 - t / 1000, t / 1000
    if setting.family == "inverted flow":
        return t / 1000, 1 - t / 1000
    if setting.family == "edm":
        return 1.0, math.exp(4 * t)
    if setting.family == "cosine":
        return 1.0, math.tan(t * math.pi / 2)
    if setting.family == "sine":
        return math.cos(t * math.pi / 2), math.sin(t * math.pi / 2)
    if setting.family == "ratio":
        t = 1 - (1 - t) ** setting.config.get("scaler", 1)
        share = (
            math.cos((t + 0.008) / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)
        ) ** 2
        share = min(max(share, 1e-4), 1 - 1e-4)
        return math.sqrt(share), math.sqrt(1 - share)
    return math.cos(t), math.sin(t)


def one_image_model(
    setting: Setting, scheduler: Any, sample: Tensor, t: Tensor, image: Tensor
) -> Tensor:
    """What a perfect model of a single image predicts."""
    alpha, sigma = noise_level(setting, t)
    if setting.family in ("edm", "cosine"):
        spread = 0.5 if setting.family == "edm" else 1.0
        skip, out = spread**2 / (sigma**2 + spread**2), sigma * spread / math.hypot(sigma, spread)
        sign = 1 if scheduler.config.prediction_type == "epsilon" else -1
        return sign * (image - skip * sample) / out
    x = (
        scheduler.scale_model_input(sample, t)
        if hasattr(scheduler, "scale_model_input")
        else sample
    )
    noise = (x - alpha * image) / sigma
    if setting.family == "flow":
        return noise - image
    if setting.family == "inverted flow":
        return image - noise
    if setting.family in ("trigonometric", "sine"):
        return alpha * noise - sigma * image
    if setting.family == "ratio":
        return noise
    return {"epsilon": noise, "v_prediction": alpha * noise - sigma * image, "sample": image}[
        scheduler.config.prediction_type
    ]
