"""The papers' interface: diffusers pipelines whose own call takes the guidance's arguments, and
that remember what they drew.

    from unalike.pipelines import get_diffusion_pipeline

    pipe = get_diffusion_pipeline(name="sdxl")
    image = pipe(prompt="a portrait", algorithm="cond-rke", criteria_guidance_scale=0.4,
    guidance_freq=10).images[0]

`guided_class` makes such a class of any pipeline class of diffusers; no code of a pipeline is
copied. The names of the published ones are here too: `SPARKEGuidedStableDiffusionXLPipeline` and
the like, and the same with the earlier name SPALE.
"""

from __future__ import annotations

import inspect
import os
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch

from unalike.attach import GuidedPipeline, Report, guide
from unalike.attach.diffusers.arguments import MODEL, completed, documented
from unalike.attach.diffusers.host import Host
from unalike.attach.run.encoders import ExtractorPrompts, prompt_encoder
from unalike.errors import OptionError
from unalike.extractors.base import Extractor, torch_device
from unalike.extractors.table import extractor
from unalike.memory import Memory
from unalike.pipelines import loading
from unalike.pipelines.catalogue import SPARKE_PUBLISHED, Model
from unalike.pipelines.classes import class_ids
from unalike.pipelines.published import CLIP, Settings, settings
from unalike.pipelines.sources import find, pipeline_class

BANK = 4000
"""Earlier images that a pipeline remembers unless told otherwise, as in the published script."""

_ARGUMENTS = {
    "strength": "criteria_guidance_scale",
    "every": "guidance_freq",
    "bandwidth": "sigma_image",
    "prompt_bandwidth": "sigma_text",
}


class SPARKEGuided:
    """Mixin before a diffusers pipeline class: its call takes the arguments of
    `unalike.pipelines.published.Settings` besides its own.

    Everything else is the pipeline's: `from_pretrained`, LoRA, offloading, `save_pretrained`, which
    writes a folder that the plain class opens too. The call guides as published (a step on the
    noisy latent before the scheduler's, at every `guidance_freq`-th step, against all images that
    this object drew before, and against the others of the batch) and remembers its images.
    `criteria=None` is the plain pipeline. Class-conditional pipelines take names or numbers of
    classes as `prompt`.

    Attributes:
        memory: what was drawn before; `reset_memory` empties it, `memory.save(file)` and
            `open_memory(file)` carry it over.
        report: what the last call did; None before the first, and after one without guidance.
    """

    _guided: GuidedPipeline | None = None
    _memory: Memory | None = None
    _clip: tuple[Any, Extractor] | None = None
    report: Report | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Draw with guidance; the result is that of the pipeline.

        Raises:
            OptionError: for an argument outside of what is allowed, before anything runs.
            StoreError: for a memory of another model.
            UnalikeError: what else is wrong with the guidance; the pipeline's own errors come
                through as they are.
        """
        chosen = settings(kwargs, self._defaults())
        kwargs = self._complete(args, kwargs)
        if chosen.criteria is None:
            self.report = None
            return Host(self).call(self, *args, **kwargs)
        guided = self._attached(chosen)
        output = guided(*args, **kwargs)
        self.report = guided.report
        return output

    @property
    def memory(self) -> Memory:
        """Earlier images with their prompts."""
        if self._memory is None:
            self._memory = Memory(capacity=BANK)
        return self._memory

    @memory.setter
    def memory(self, memory: Memory) -> None:
        if not isinstance(memory, Memory):
            raise OptionError(
                f"memory is a {type(memory).__name__}; allowed: a Memory, as in pipe.memory = "
                "unalike.Memory()"
            )
        self._memory = memory

    def reset_memory(self) -> None:
        """Forget all earlier images."""
        self._memory = Memory(capacity=self.memory.capacity)

    def open_memory(self, path: str | os.PathLike[str]) -> None:
        """Go on with the memory that `pipe.memory.save(path)` wrote.

        Raises:
            StoreError: when there is no such file, or it is damaged.
        """
        self._memory = Memory.open(path)

    def enable_sequential_cpu_offload(self, *args: Any, **kwargs: Any) -> None:
        """As of the pipeline; the models' names are read before, for offloaded weights cannot
        be.
        """
        self._guided = self._guided or guide(self)
        super().enable_sequential_cpu_offload(*args, **kwargs)  # type: ignore[misc]

    def to_json_string(self) -> str:
        """The configuration under the name of diffusers' class, so that every program can open the
        saved folder.
        """
        own = super().to_json_string()  # type: ignore[misc]
        return own.replace(
            f'"_class_name": "{type(self).__name__}"',
            f'"_class_name": "{_host(type(self)).__name__}"',
        )

    def _defaults(self) -> dict[str, Any]:
        """The guidance arguments of the model's row, or the published ones."""
        row: Model | None = getattr(self, MODEL, None)
        options = (row.published.get("sparke") if row else None) or SPARKE_PUBLISHED
        return {argument: options[name] for name, argument in _ARGUMENTS.items() if name in options}

    def _complete(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The pipeline's arguments: classes for prompts where it is called with those, and what the
        model's row has for the others.
        """
        accepted = Host(self).parameters
        if "prompt" in kwargs and "prompt" not in accepted and "class_labels" in accepted:
            kwargs = dict(kwargs)
            prompts = kwargs.pop("prompt")
            prompts = [prompts] if isinstance(prompts, str) else list(prompts)
            classes = class_ids(self, prompts)
            kwargs["class_labels"] = [classes[prompt] for prompt in prompts]
        return completed(self, args, kwargs, Settings.__dataclass_fields__)

    def _attached(self, chosen: Settings) -> GuidedPipeline:
        """This pipeline with the method of the settings."""
        clip = (
            None
            if chosen.use_latents_for_guidance and not chosen.prompts_by_clip
            else self._clip_of(chosen.clip_for_guidance or CLIP)
        )
        guided = self._guided = self._guided or guide(self)
        guided.methods = (
            chosen.method(None if clip is None or chosen.use_latents_for_guidance else clip.embed),
        )
        if not chosen.prompts_by_clip:
            guided.prompt_encoder = prompt_encoder(chosen.prompt_encoder)
        elif (
            not isinstance(guided.prompt_encoder, ExtractorPrompts)
            or guided.prompt_encoder.extractor is not clip
        ):
            guided.prompt_encoder = prompt_encoder(clip)
        guided.memory = self.memory
        if chosen.max_bank_size is not None:
            self.memory.resize(chosen.max_bank_size)
        return guided

    def _clip_of(self, source: Any) -> Extractor:
        if isinstance(source, Extractor):
            return source
        if not isinstance(source, str | Path):
            raise OptionError(
                f"clip_for_guidance is a {type(source).__name__}; allowed: a folder, a hub id, or "
                "an extractor, as in "
                "clip_for_guidance='openai/clip-vit-base-patch32'"
            )
        if self._clip is None or self._clip[0] != source:
            self._clip = source, extractor(f"clip:{source}")
        return self._clip[1]


@cache
def guided_class(host: type) -> Any:
    """Make the class `SPARKEGuided…` of a pipeline class of diffusers.

    Raises:
        OptionError: for something else than a pipeline class, or one that is guided already.

    Example:
        >>> guided_class(diffusers.StableDiffusion3Pipeline).__name__
        'SPARKEGuidedStableDiffusion3Pipeline'
    """
    if not (isinstance(host, type) and issubclass(host, diffusers.DiffusionPipeline)) or issubclass(
        host, SPARKEGuided
    ):
        raise OptionError(
            f"host is {host!r}; allowed: a pipeline class of diffusers, as in "
            "guided_class(diffusers.FluxPipeline)"
        )
    ours = {field.name: field.default for field in fields(Settings)}
    if "class_labels" in inspect.signature(host.__call__).parameters:
        ours = {"prompt": None, **ours}
    own = {
        "__doc__": f"`{host.__name__}` with the arguments of `SPARKEGuided`.",
        "__module__": __name__,
        "unguided": host.__call__,
        "__call__": documented(SPARKEGuided.__call__, host.__call__, host.__name__, ours),
    }
    return type(f"SPARKEGuided{host.__name__}", (SPARKEGuided, host), own)


def get_diffusion_pipeline(name: str | Path, *, device: str | None = None, **options: Any) -> Any:
    """Load a model with the papers' interface, on the GPU where there is one.

    Args:
        name: a name of `MODELS`, a folder in diffusers' layout, or the id of a model on the Hugging
            Face hub.
        device: of torch; None for the first GPU, or the CPU where there is none.
        **options: what `from_pretrained` takes; `dtype` is the model's own on a GPU and float32 on
            the CPU unless given.

    Returns:
        An object of `guided_class` of the model's pipeline class. Steps, guidance scale and
        guidance arguments that a call leaves out are those of the model's row.

    Raises:
        OptionError: for any other name; the message lists the names.
        StoreError: when the files are there and cannot be loaded, or the hub does not give them.

    Example:
        >>> pipe = get_diffusion_pipeline("emoji", device="cpu")
        >>> isinstance(pipe, diffusers.StableDiffusionPipeline), len(pipe.memory)
        (True, 0)
        >>> get_diffusion_pipeline("sdx")
        Traceback (most recent call last):
            ...
        unalike.errors.OptionError: model is 'sdx'; did you mean 'sdxl'? allowed: emoji, ...
    """
    source = find(name)
    host = pipeline_class(source)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cpu":
        options.setdefault("dtype", torch.float32)
    return loading.read(source, guided_class(host), options).to(torch_device(device))


def _host(kind: type) -> type:
    """The class of diffusers that a guided one is made of."""
    return next(
        parent
        for parent in kind.__mro__
        if issubclass(parent, diffusers.DiffusionPipeline) and not issubclass(parent, SPARKEGuided)
    )


SPARKEGuidedStableDiffusionPipeline = guided_class(diffusers.StableDiffusionPipeline)
SPARKEGuidedStableDiffusionXLPipeline = guided_class(diffusers.StableDiffusionXLPipeline)
SPARKEGuidedStableDiffusionControlNetPipeline = guided_class(
    diffusers.StableDiffusionControlNetPipeline
)
SPARKEGuidedStableDiffusionXLControlNetPipeline = guided_class(
    diffusers.StableDiffusionXLControlNetPipeline
)
SPARKEGuidedPixArtSigmaPipeline = guided_class(diffusers.PixArtSigmaPipeline)
SPARKEGuidedKandinsky3Pipeline = guided_class(diffusers.Kandinsky3Pipeline)
SPARKEGuidedDiTPipeline = guided_class(diffusers.DiTPipeline)

SPALEGuidedStableDiffusionPipeline = SPARKEGuidedStableDiffusionPipeline
SPALEGuidedStableDiffusionXLPipeline = SPARKEGuidedStableDiffusionXLPipeline
SPALEGuidedStableDiffusionControlNetPipeline = SPARKEGuidedStableDiffusionControlNetPipeline
SPALEGuidedStableDiffusionXLControlNetPipeline = SPARKEGuidedStableDiffusionXLControlNetPipeline
SPALEGuidedPixArtSigmaPipeline = SPARKEGuidedPixArtSigmaPipeline
SPALEGuidedKandinsky3Pipeline = SPARKEGuidedKandinsky3Pipeline
SPALEGuidedDiTPipeline = SPARKEGuidedDiTPipeline
