"""Unguided generations of a model as points of the space of a protected set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unalike.attach import guide
from unalike.errors import OptionError, named
from unalike.memory import Memory
from unalike.runs.pipeline import RunPipeline
from unalike.runs.plan import planned_images
from unalike.runs.progress import Progress
from unalike.runs.settings import GenerateSettings
from unalike.runs.shield.encoders import Encoder
from unalike.runs.shield.settings import GENERATIONS, BuildSettings


def unguided_points(
    settings: BuildSettings, encoder: Encoder, tell: Progress
) -> tuple[np.ndarray, dict]:
    """Points (m, d) float64 of unguided images of the prompts, and the settings of their drawing.

    In a latent space they are the final latents themselves, otherwise the encoded images.

    Raises:
        OptionError: for an unknown model or class, and where the model draws another size than the
            set is of.
    """
    num = settings.generations or GENERATIONS
    asked = GenerateSettings(
        prompts=settings.prompts,
        num=num,
        model=settings.model or "",
        device=settings.device,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )
    pipeline = RunPipeline.open(asked, asked.prompts)
    memory = Memory(capacity=asked.total)
    guided = guide(pipeline.pipe, memory=memory)
    plan, features = planned_images(asked.prompts, num, asked.seed), []
    for start in range(0, len(plan), asked.batch_size):
        batch = plan[start : start + asked.batch_size]
        images = pipeline.draw(guided, batch, lambda: None)
        if encoder.embedding is not None:
            features.append(encoder.encode(images))
        done = start + len(batch)
        tell(done / len(plan), f"{done} of {len(plan)} unguided images")
    how = {
        "prompts": list(asked.prompts),
        "of_each": num,
        "seed": asked.seed,
        "steps": pipeline.steps,
        "guidance_scale": pipeline.guidance_scale,
    }
    return _points(features, memory, encoder).double().numpy(), how


def _points(features: Sequence[Tensor], memory: Memory, encoder: Encoder) -> Tensor:
    if features:
        return torch.cat(list(features))
    (space,) = memory.spaces()
    view = memory.view(space)
    assert view is not None
    if view.latents.shape[1] != torch.Size(encoder.shape).numel():
        raise OptionError(
            named(
                "the model draws latents of {} numbers, and those of images of the size {} have "
                "{}; leave {size} out, or give a number, as in {radius=20}",
                view.latents.shape[1],
                encoder.size,
                torch.Size(encoder.shape).numel(),
            )
        )
    return view.latents
