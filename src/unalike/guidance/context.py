"""`Context`: what a method sees at one step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.guidance.level import Level
from unalike.guidance.protocols import Images, Protected, ProtectedFeatures, References


@dataclass(frozen=True)
class Layer:
    """A layer of the denoiser, as `Method.features` sees its output.

    Attributes:
        name: of the module inside the denoiser, such as "up_blocks.1".
        index: its number among the layers that are shown, from 0, in the order that they are run.
        count: how many those are.
        stream: "image" for features of places of the image, "text" for those of the prompt's
            tokens, where the layer changes them too.
        places: the dimensions of its output that run over places or tokens.
        block: the number of the block of the batch: 0 without classifier-free guidance; with it,
            most pipelines have the empty prompts in 0 and the prompts in 1.
        joint: whether the layer changes features of the text and of the image.
    """

    name: str
    index: int
    count: int
    stream: str
    places: tuple[int, ...]
    block: int = 0
    joint: bool = False

    def is_among(self, layers: str) -> bool:
        """Whether it is one of "all" layers, or the "middle" one: the mid block of a U-Net, else
        the one halfway.
        """
        if layers == "all":
            return True
        if self.name == "mid_block":
            return True
        return not self.name.startswith("up_blocks") and self.index == self.count // 2


@dataclass
class Context:
    """Everything that a method may read at one step.

    For `B` images and prompt embeddings of size `p`.

    Attributes:
        step: index of this step in the schedule, from 0.
        steps: how many steps the schedule has.
        again: how many times this step was taken before: 0 but in further passes (see
            `Method.passes_for`).
        level: the noise level of this evaluation, and the one that the step ends at.
        x_t: the noisy latents (B, …).
        groups: (B,) int64, equal for images of the same prompt.
        prompts: embeddings of the prompts (B, p), float32; None where the host has none.
        memory: earlier samples, or None.
        shield: the protected set, or None.
        images: decodes predictions and computes their features; None where the host cannot.
        masks: turns a region into a (B or 1, …) bool mask that broadcasts to x0; None where the
            host cannot locate regions.
        generators: one for each image; methods draw all their random numbers from them, with
            `noise`.
        deterministic_first_order: whether the step is `next_alpha · x0 + next_sigma · noise` with
            the noise that `x_t` and x0 imply, so that part of it can be renewed; False for solvers
            that remember earlier predictions or add noise of their own.
        predict: for `initial_noise`, from starting noises (B, …) to the first predictions x0 that
            the pipeline makes of them, differentiable; `predict(noise, through_model)` says whether
            through the model, or with its output held. None where the host cannot.
        padding: (B, L) bool, which of the `L` tokens of the prompts are padding; None where that is
            not known.
        state: this method's own storage, empty at the start of a run.
        stream: this method's own storage from call to call of one guided pipeline, in this process
            alone. What a call that fails puts here is dropped, so values must be replaced and never
            changed in place.
    """

    step: int
    steps: int
    level: Level
    x_t: Tensor
    groups: Tensor
    prompts: Tensor | None = None
    memory: References | None = None
    shield: Protected | ProtectedFeatures | None = None
    images: Images | None = None
    masks: Callable[[Any], Tensor] | None = None
    generators: Sequence[torch.Generator] = ()
    deterministic_first_order: bool = False
    predict: Callable[[Tensor, bool], Tensor] | None = None
    padding: Tensor | None = None
    state: dict[str, Any] = field(default_factory=dict)
    stream: dict[str, Any] = field(default_factory=dict)
    again: int = 0

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal noise of the shape, dtype and device of `like` (B, …), each image's from
        its own generator.

        So an image's noise does not depend on the others of its batch.

        Raises:
            OptionError: where there is not one generator for each image.
        """
        if len(self.generators) != len(like):
            raise OptionError(
                f"there are {len(self.generators)} generators for {len(like)} images; "
                "pass generators=, one for each image"
            )
        return torch.stack([torch.randn(like.shape[1:], generator=g) for g in self.generators]).to(
            like
        )
