"""A loaded pipeline and how it is called: which image gets which noise, in how many steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from unalike.attach.diffusers.host import Host
from unalike.errors import OptionError, UnsupportedError
from unalike.extractors.base import torch_device
from unalike.pipelines.catalogue import Model
from unalike.pipelines.classes import class_ids
from unalike.pipelines.identity import digest_of, place_digest
from unalike.pipelines.image_to_image import image_to_image
from unalike.pipelines.loading import open_source
from unalike.pipelines.loras import Lora, add_loras
from unalike.pipelines.schedulers import exchange_scheduler
from unalike.pipelines.sources import Source, find
from unalike.runs.call_settings import CallSettings
from unalike.runs.pipeline_settings import PipelineSettings
from unalike.runs.samples import Planned
from unalike.runs.seeds_settings import SeedsSettings
from unalike.runs.settings import AUTO, DrawSettings
from unalike.runs.start_image import read_start_image

StepDone = Callable[[], None]


@dataclass(frozen=True)
class RunPipeline:
    """A loaded pipeline with the number of steps and the guidance scale of a run.

    Args:
        pipe: a diffusers pipeline.
        steps: of the scheduler.
        guidance_scale: None where the pipeline has none.
        classes: the class of each prompt, for a pipeline that is called with class labels; None for
            one that is called with prompts.
        row: of the catalogue, which may have further arguments of the call; None for a model that
            it has not.
        negative_prompt: what no image is to show.
        options: further arguments of every call, such as its height, its width, and the strength of
            the start image.
        image: what every image starts from.
        source: where the model's files are.
        loras: what was loaded into it.
    """

    pipe: Any
    steps: int
    guidance_scale: float | None
    classes: Mapping[str, int] | None = None
    row: Model | None = None
    negative_prompt: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    image: Image.Image | None = None
    source: Source | None = None
    loras: tuple[Lora, ...] = ()

    @classmethod
    def open(
        cls, settings: DrawSettings | SeedsSettings, prompts: Sequence[str] = ()
    ) -> RunPipeline:
        """Load the model of the settings onto its device.

        Args:
            settings: of the run.
            prompts: that will be drawn, for a model that knows classes.

        Whatever can be checked by the names of files and the class of the pipeline is checked
        before any weights are read.

        Raises:
            OptionError: for an unknown model, device or class, or a setting that the pipeline has
                not.
            StoreError: when the model's files are damaged, or a LoRA is of another model.
            UnsupportedError: for a pipeline that draws something else than images from prompts or
                class labels.
        """
        device = torch_device(settings.device)
        source = find(settings.model, settings.model_config)
        loras = tuple(map(Lora.find, settings.lora))
        image = None if settings.image is None else read_start_image(settings.image)
        call = CallSettings.of(settings, source)
        precision = {} if settings.dtype == AUTO else {"dtype": getattr(torch, settings.dtype)}
        if settings.dtype == AUTO and device.type == "cpu":
            precision = {"dtype": torch.float32}
        pipe = _assembled(source, loras, settings, precision)
        return cls(
            pipe.to(device),
            steps=call.steps,
            guidance_scale=call.guidance_scale,
            classes=class_ids(pipe, prompts) if call.by_class else None,
            row=source.row,
            negative_prompt=settings.negative_prompt,
            source=source,
            loras=loras,
            **call.sized(pipe, image),
        )

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The arguments of the pipeline's call by name, without the pipeline itself."""
        return dict(list(inspect.signature(Host(self.pipe).call).parameters.items())[1:])

    def fingerprint(self) -> str:
        """The identity of the model: a SHA-256 that is the same wherever its files lie.

        It covers the weights and configurations, by `unalike.pipelines.identity.file_digest`, or
        the commit of a model of the hub; the LoRAs with their scales; and the scheduler with its
        configuration. The device, the precision and the arguments of the call do not count.

        Cost: 2 MiB of each file of weights are read.

        Raises:
            StoreError: where the files are not there any more.
            UnsupportedError: for a pipeline that `open` did not load.
        """
        if self.source is None:
            raise UnsupportedError(
                "only a pipeline that was loaded from files has a fingerprint; load it by the name "
                "or the folder of its model"
            )
        scheduler = self.pipe.scheduler
        own = {k: v for k, v in dict(scheduler.config).items() if not k.startswith("_")}
        return digest_of(
            {
                "pipeline": type(self.pipe).__name__,
                "model": place_digest(self.source.places),
                "loras": [[place_digest([lora.file]), lora.scale] for lora in self.loras],
                "scheduler": [type(scheduler).__name__, own],
            }
        )

    def arguments(
        self,
        prompts: Sequence[str],
        *,
        negative_prompts: Sequence[str | None] = (),
        changes: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The arguments of a call that draws an image of each prompt, but the generators.

        Args:
            prompts: one an image.
            negative_prompts: one an image; None for that of the run.
            changes: arguments in place of those of the run; `guidance_scale` is that of
                classifier-free guidance, whatever the pipeline calls it.

        Raises:
            OptionError: where some images have a negative prompt and others have none: a pipeline
                takes an empty one for something else than none.
        """
        scale = self.row.guidance if self.row else "guidance_scale"
        result: dict[str, Any] = {
            **({} if self.row is None else self.row.call(len(prompts))),
            **(
                {"prompt": list(prompts)}
                if self.classes is None
                else {"class_labels": [self.classes[p] for p in prompts]}
            ),
            "num_inference_steps": self.steps,
            **self.options,
        }
        if self.guidance_scale is not None:
            result[scale] = self.guidance_scale
        negative = [
            self.negative_prompt if given is None else given
            for given in negative_prompts or [None] * len(prompts)
        ]
        if any(n is not None for n in negative):
            if None in negative:
                raise OptionError(
                    "some images of a batch have a negative prompt and others have none; draw them "
                    "in batches of their own"
                )
            result["negative_prompt"] = negative
        if self.image is not None:
            several = "strength" in self.parameters  # else several images are several references
            result["image"] = [self.image] * len(prompts) if several else self.image
        for name, value in (changes or {}).items():
            result[scale if name == "guidance_scale" else name] = value
        return result

    def same_call(self, first: Planned, second: Planned) -> bool:
        """Whether two images can be drawn by one call."""
        ruled = self.negative_prompt is not None
        return first.arguments == second.arguments and (
            ruled or (first.negative_prompt is None) == (second.negative_prompt is None)
        )

    def draw(
        self, call: Callable[..., Any], batch: Sequence[Planned], step_done: StepDone
    ) -> list[Image.Image]:
        """The images of a batch, drawn by `call`: the pipeline itself or its guided form.

        Each image has a generator of its own, so that its noise does not depend on what it is drawn
        together with.

        Args:
            call: takes the arguments of the pipeline.
            batch: any two of them are of the `same_call`.
            step_done: called after each step.

        Raises:
            OptionError: for images that cannot be drawn by one call.
            UnsupportedError: when what comes back is not one image a prompt.
        """
        if any(p.arguments != batch[0].arguments for p in batch):
            raise OptionError(
                "images of a batch have different arguments of the call; draw them in batches of "
                "their own"
            )
        arguments = self.arguments(
            [p.prompt for p in batch],
            negative_prompts=[p.negative_prompt for p in batch],
            changes=batch[0].arguments,
        )
        arguments["generator"] = [torch.Generator().manual_seed(p.seed) for p in batch]
        if "callback_on_step_end" in self.parameters:

            def after_step(
                pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]
            ) -> dict[str, Any]:
                step_done()
                return tensors

            arguments["callback_on_step_end"] = after_step
        images = getattr(call(**arguments), "images", None)
        if (
            not isinstance(images, list)
            or len(images) != len(batch)
            or not all(isinstance(i, Image.Image) for i in images)
        ):
            raise UnsupportedError(
                f"{type(self.pipe).__name__} did not return one image for each prompt; choose a "
                "text-to-image pipeline"
            )
        return images

    def describe(self) -> dict[str, Any]:
        """Class, scheduler, device and precision, for the record."""
        return {
            "pipeline": type(self.pipe).__name__,
            "scheduler": type(self.pipe.scheduler).__name__,
            "device": self.pipe.device.type,
            "dtype": str(self.pipe.dtype).removeprefix("torch."),
        }


def _assembled(
    source: Source,
    loras: Sequence[Lora],
    settings: PipelineSettings,
    precision: Mapping[str, Any],
) -> Any:
    """The pipeline with its LoRAs, its scheduler, and in its image-to-image form if it has to be.

    Raises:
        OptionError, StoreError: as `RunPipeline.open`.
    """
    pipe = open_source(source, **precision)
    if settings.scheduler is not None:
        exchange_scheduler(pipe, settings.scheduler)
    add_loras(pipe, loras)
    if settings.image is not None:
        pipe = image_to_image(pipe)
    pipe.set_progress_bar_config(disable=True)
    return pipe
