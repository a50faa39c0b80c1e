"""What is claimed of a family of pipelines: the tests hold it, and the table in the documentation
says it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from tests import tiny
from torch import Tensor

MIXED = (
    "Several prompts with several images each are mixed up by the pipeline itself, which gives an "
    "image the attention mask of another "
    "prompt: repeat each prompt instead, one image a prompt."
)
"""The limit of pipelines that lay embeddings out prompt by prompt and attention masks image by
image.
"""
ONE_EACH = "One image a prompt; repeat the prompt for more."
"""The limit of pipelines that take no number of images for a prompt, or ignore it."""
POOLED = (
    "Several prompts with several images each are mixed up by the pipeline itself, which gives an "
    "image the pooled embedding of another "
    "prompt: repeat each prompt instead, one image a prompt."
)
"""The limit of modular Stable Diffusion XL."""
LISTED = (
    "No methods that act on prompts (CADS, interval guidance): the model takes prompts and latents "
    "as lists and not as batches."
)
"""The limit of pipelines whose denoiser cannot be hooked, for the shape of its arguments."""

WARNINGS = (
    "ignore:__array_:DeprecationWarning",  # schedulers hand tensors to numpy as to numpy 1
    "ignore:In CPU autocast:UserWarning",  # Mochi asks for float32 on any device
    "ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning",  # Stable Audio
)
"""What diffusers says that is nothing to do with guidance."""


def several_prompts(prompts: list[str], each: int) -> dict[str, Any]:
    """The arguments that ask most pipelines for `each` images of each prompt."""
    return {"prompt": list(prompts), "num_images_per_prompt": each}


def repeated_prompts(prompts: list[str], each: int) -> dict[str, Any]:
    """The same for pipelines that make one image of a prompt, or mix them up when they make
    several.
    """
    return {"prompt": [prompt for prompt in prompts for _ in range(each)]}


def class_labels(prompts: list[str], each: int) -> dict[str, Any]:
    """The same for pipelines that draw classes."""
    return {"class_labels": [int(prompt != "cat") for prompt in prompts for _ in range(each)]}


def with_negative_prompts(prompts: list[str], each: int) -> dict[str, Any]:
    """As `several_prompts`, for pipelines that guide only where there is a negative prompt, and
    take one for each prompt.
    """
    return {**several_prompts(prompts, each), "negative_prompt": [" "] * len(prompts)}


def batch_size(prompts: list[str], each: int) -> dict[str, Any]:
    """As many images, for pipelines that draw whatever they like."""
    return {"batch_size": len(prompts) * each}


@dataclass(frozen=True, kw_only=True)
class Family:
    """Pipelines of one architecture, as a tiny pipeline with random weights stands for them.

    Attributes:
        name: as people call them, such as "Stable Diffusion XL".
        pipeline: the name of the class.
        build: from a scratch folder to the tiny pipeline, from seed 0 and not yet saved.
        sample: what the scheduler sees, such as "(B, C, H, W)".
        arguments: of every call, besides prompts, steps and generators.
        ask: how prompts are asked for; `repeated_prompts` where several images of each prompt
            cannot be had at once.
        steps: of every call.
        load: from the folder to the pipeline; `from_pretrained` unless something else is needed.
        limits: what does not work or only in part, and why, in sentences for the documentation;
            each is held by a test.
        exact_batches: whether an image is the same in a batch as alone, as far as the unguided
            pipeline keeps that.
        generators: whether the call takes one generator an image.
        prompted: whether there are prompts or classes at all.
        prompt_methods: whether methods that act on prompts (CADS) work; interval guidance too where
            there is `guidance`.
        guidance: whether there is classifier-free guidance.
        without_guidance: the arguments that leave it out.
        decodes: whether `Decoder` makes its images from final latents, and `encode_images` the way
            back, for shields of what images show.
        output: of the call, from its result to a tensor (B, …); the first field unless given.
    """

    name: str
    build: Callable[[Path], Any]
    sample: str
    pipeline: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    ask: Callable[[list[str], int], dict[str, Any]] = several_prompts
    steps: int = 4
    load: Callable[[Path], Any] = tiny.load
    limits: tuple[str, ...] = ()
    exact_batches: bool = True
    generators: bool = True
    prompted: bool = True
    prompt_methods: bool = True
    guidance: bool = True
    without_guidance: dict[str, Any] = field(default_factory=lambda: {"guidance_scale": 1.0})
    decodes: bool = False
    output: Callable[[Any], Tensor] = lambda result: torch.as_tensor(result[0])

    @property
    def id(self) -> str:
        """For the names of tests."""
        return self.name.lower().replace(" ", "-")

    def read(self, folder: Path) -> DiffusionPipeline:
        """The pipeline, written to a folder of its own in diffusers' layout and read back."""
        own = folder / self.id
        own.mkdir()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.build(own).save_pretrained(own / "model")
        return self.load(own / "model")

    def call(
        self, pipe: Any, prompts: list[str], each: int, *, seed: int = 0, **arguments: Any
    ) -> Tensor:
        """The images (B, …) of a call with the seeds `seed`, `seed + 1`, …; `arguments` come before
        the family's own.
        """
        seeds = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts) * each)]
        generator: Any = seeds if self.generators else seeds[0]
        asked = {**self.arguments, **self.ask(prompts, each), **arguments}
        return self.output(pipe(**asked, num_inference_steps=self.steps, generator=generator))
