"""The x0 sequences of guided generations, as a search meets them: recorded before they are
corrected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.shield_search.latents import MODEL
from benchmarks.shield_search.pictures import SIDE
from unalike import tensorfile
from unalike.guidance.context import Context
from unalike.guidance.method import Method
from unalike.guidance.spell import SPELL
from unalike.pipelines.catalogue import MODELS
from unalike.pipelines.loading import load
from unalike.shields.search import Search
from unalike.shields.trajectory import Trajectory

_KIND = ("benchmarks.trajectories", 1)


@dataclass(frozen=True, kw_only=True)
class Repelled(Method):
    """SPELL around protected vectors, and a record of what their search was asked for.

    Args:
        run: the search of one run.
        seen: gets x0 before the correction (B, d) at each step.
    """

    name: ClassVar[str] = "repelled"
    summary: ClassVar[str] = "SPELL around protected vectors, recorded"
    citation: ClassVar[str] = ""

    run: Trajectory
    seen: list[Tensor] = field(default_factory=list)

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        """The correction (B, …); None where no ball is touched."""
        self.seen.append(x0.flatten(1).float().clone())
        return SPELL(batch=False, memory=False).x0_delta(
            x0, replace(context, shield=self.run, state={})
        )


@dataclass(frozen=True)
class Recorded:
    """The trajectories of one radius.

    Attributes:
        radius: that the images were guided with.
        prompts: one for each trajectory, which is a batch of images.
        x0: (trajectories, steps, B, d) float32, before the correction.
    """

    radius: float
    prompts: list[str]
    x0: Tensor


def record(
    path: Path, search: Search, radius: float, prompts: Sequence[str], *, images: int, steps: int
) -> Recorded:
    """The trajectories in the file; drawn and written first where it is not there.

    All prompts are drawn in one call, which is the same as one call for each: no image repels
    another.
    """
    if not path.is_file():
        pipe = load(MODEL)
        pipe.set_progress_bar_config(disable=True)
        method = Repelled(run=Trajectory(search, radius))
        _draw(pipe, method, [prompt for prompt in prompts for _ in range(images)], steps)
        x0 = (
            torch.stack(method.seen)
            .view(steps, len(prompts), images, -1)
            .transpose(0, 1)
            .contiguous()
        )
        tensorfile.write(path, *_KIND, {"radius": radius, "prompts": list(prompts)}, {"x0": x0})
    header, tensors = tensorfile.read(path, *_KIND)
    return Recorded(header["radius"], header["prompts"], tensors["x0"])


def _draw(pipe: Any, method: Method, prompts: Sequence[str], steps: int) -> Any:
    from unalike.attach import (
        guide,
    )  # with diffusers, for which a list of the benchmarks should not wait

    return guide(pipe, method)(
        prompt=list(prompts),
        height=SIDE,
        width=SIDE,
        generator=[torch.Generator().manual_seed(i) for i in range(len(prompts))],
        guidance_scale=MODELS[MODEL].guidance_scale,
        num_inference_steps=steps,
        output_type="latent",
    )
