"""The x0 sequences of guided generations, as a search meets them: recorded before they are corrected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from unalike import tensorfile
from unalike.bench.shield_search.latents import MODEL
from unalike.bench.shield_search.pictures import SIDE
from unalike.guidance.base import Balls, Context, Method
from unalike.guidance.spell import SPELL
from unalike.pipelines.catalogue import MODELS, load
from unalike.shields.vectors import Vectors

_KIND = ("unalike.bench.trajectories", 1)


class Search(Protocol):
    """What finds the balls that a prediction is inside of."""

    def within(self, x: np.ndarray, radius: float) -> list[np.ndarray]:
        """For each row of `x` (B, d) the numbers of the vectors nearer than the radius."""
        ...


@dataclass(frozen=True, kw_only=True)
class Repelled(Method):
    """SPELL around protected vectors that a search finds, and a record of what the search was asked for.

    The correction is that of SPELL with the whole set: it depends on the balls alone that a prediction lies in.

    Args:
        search: exact, over the vectors.
        vectors: the protected set.
        radius: of the balls.
        seen: gets x0 before the correction (B, d) at each step.
        touched: gets in how many balls each image is (B,) at each step.
    """

    name: ClassVar[str] = "repelled"
    summary: ClassVar[str] = "SPELL around protected vectors that a search finds, recorded"
    citation: ClassVar[str] = ""

    search: Search
    vectors: Vectors
    radius: float
    seen: list[Tensor] = field(default_factory=list)
    touched: list[Tensor] = field(default_factory=list)

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        """The correction (B, …); None where no ball is touched."""
        x = x0.flatten(1)
        self.seen.append(x.float().clone())
        found = self.search.within(x.double().numpy(), self.radius)
        self.touched.append(torch.tensor([len(own) for own in found]))
        inside = np.unique(np.concatenate(found))
        if not len(inside):
            return None
        centres = torch.from_numpy(self.vectors.rows(inside)).float()
        return SPELL(batch=False, memory=False).x0_delta(x0, replace(context, shield=Balls(centres, self.radius), state={}))


@dataclass(frozen=True)
class Recorded:
    """The trajectories of one radius.

    Attributes:
        radius: that the images were guided with.
        prompts: one for each trajectory, which is a batch of images.
        x0: (trajectories, steps, B, d) float32, before the correction.
        touched: (trajectories, steps, B), in how many balls each image was.
    """

    radius: float
    prompts: list[str]
    x0: Tensor
    touched: Tensor


def record(path: Path, vectors: Vectors, search: Search, radius: float, prompts: Sequence[str], *, images: int, steps: int) -> Recorded:
    """The trajectories in the file; drawn and written first where it is not there.

    All prompts are drawn in one call, which is the same as one call for each: no image repels another.
    """
    if not path.is_file():
        pipe = load(MODEL)
        pipe.set_progress_bar_config(disable=True)
        method = Repelled(search=search, vectors=vectors, radius=radius)
        _draw(pipe, method, [prompt for prompt in prompts for _ in range(images)], steps)
        shape = (steps, len(prompts), images)
        tensors = {"x0": torch.stack(method.seen).view(*shape, -1), "touched": torch.stack(method.touched).view(shape)}
        header = {"radius": radius, "prompts": list(prompts)}
        tensorfile.write(path, *_KIND, header, {name: t.transpose(0, 1).contiguous() for name, t in tensors.items()})
    header, tensors = tensorfile.read(path, *_KIND)
    return Recorded(header["radius"], header["prompts"], tensors["x0"], tensors["touched"])


def _draw(pipe: Any, method: Method, prompts: Sequence[str], steps: int) -> Any:
    from unalike.attach import guide  # with diffusers, for which a list of the benchmarks should not wait

    return guide(pipe, method)(
        prompt=list(prompts),
        height=SIDE,
        width=SIDE,
        generator=[torch.Generator().manual_seed(i) for i in range(len(prompts))],
        guidance_scale=MODELS[MODEL].guidance_scale,
        num_inference_steps=steps,
        output_type="latent",
    )
