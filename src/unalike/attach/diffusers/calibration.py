"""Measure settings such as `radius="auto"` on unguided samples of the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from unalike.attach.diffusers.host import Host
from unalike.attach.run.randomness import copied
from unalike.guidance.method import Method

_ENOUGH = 8
_SETTINGS = (
    "num_inference_steps",
    "guidance_scale",
    "true_cfg_scale",
    "height",
    "width",
    "num_frames",
    "strength",
    "eta",
)

Sample = Callable[[dict[str, Any]], tuple[Tensor, Tensor]]
"""Runs the pipeline unguided with these arguments: final latents (B, …) and prompt groups (B,)."""


def settings_key(method: Method, pipe: Any, arguments: dict[str, Any]) -> Hashable:
    """The key of a calibration: the method, the scheduler and the settings of the call."""
    scheduler = (
        type(pipe.scheduler).__name__,
        repr(sorted((k, v) for k, v in pipe.scheduler.config.items() if not k.startswith("_"))),
    )
    return (method, scheduler, Host(pipe).guider, *(arguments.get(name) for name in _SETTINGS))


def calibrated(
    methods: Sequence[Method], arguments: dict[str, Any], sample: Sample, accepted: Sequence[str]
) -> list[Method]:
    """Calibrate methods on at least 8 unguided samples with the call's own arguments.

    The pipeline is run once, or as often as it takes to have 8 samples, with copies of the caller's
    generators, whose own state is left alone; so is torch's global one. Costs as many model
    evaluations as that many unguided calls, the decoding left out where possible.

    Args:
        methods: all of which need calibration.
        arguments: of the call.
        sample: runs the pipeline unguided.
        accepted: the names that the pipeline's call has.
    """
    quiet = {
        "output_type": "latent",
        "latents": None,
        "callback": None,
        "callback_on_step_end": None,
        "generator": copied(arguments.get("generator")),
    }
    changed = {
        **arguments,
        **{
            name: value
            for name, value in quiet.items()
            if name in accepted and (name in arguments or value is not None)
        },
    }
    latents, groups = [], []
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        while sum(len(part) for part in latents) < _ENOUGH:
            some, their_groups = sample(changed)
            latents.append(some.float().cpu())
            groups.append(their_groups.cpu())
    every, their = torch.cat(latents), torch.cat(groups)
    return [method.calibrated(every, their) for method in methods]
