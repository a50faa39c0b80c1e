"""A loaded pipeline and how it is called: which image gets which noise, in how many steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from unalike.attach.diffusers.host import Host
from unalike.errors import Option, OptionError, UnsupportedError, named
from unalike.extractors.base import torch_device
from unalike.pipelines.catalogue import MODELS, Model
from unalike.pipelines.classes import class_ids
from unalike.pipelines.loading import find, load, pipeline_class
from unalike.runs.samples import Planned
from unalike.runs.seeds_settings import SeedsSettings
from unalike.runs.settings import AUTO, GenerateSettings

StepDone = Callable[[], None]


@dataclass(frozen=True)
class RunPipeline:
    """A loaded pipeline with the number of steps and the guidance scale of a run.

    Args:
        pipe: a diffusers pipeline.
        steps: of the scheduler.
        guidance_scale: None where the pipeline has none.
        row: of the catalogue, which may have further arguments of the call; None for a model that
            it has not.
        classes: the class of each prompt, for a pipeline that is called with class labels; None for
            one that is called with prompts.
    """

    pipe: Any
    steps: int
    guidance_scale: float | None
    classes: Mapping[str, int] | None = None
    row: Model | None = None

    @classmethod
    def open(cls, settings: GenerateSettings | SeedsSettings) -> RunPipeline:
        """Load the model of the settings onto its device.

        Raises:
            OptionError: for an unknown model, device or class, or a setting that the pipeline has
                not.
            StoreError: when the model's files are damaged.
            UnsupportedError: for a pipeline that draws something else than images from prompts or
                class labels.
        """
        device = torch_device(settings.device)
        row, host = MODELS.get(settings.model), pipeline_class(find(settings.model))
        parameters = inspect.signature(host.__call__).parameters
        by_class = "prompt" not in parameters and "class_labels" in parameters
        needs_more = "num_frames" in parameters or (row is not None and row.controlnet is not None)
        if not (by_class or "prompt" in parameters) or "generator" not in parameters or needs_more:
            raise UnsupportedError(
                f"{host.__name__} does not draw images from prompts or class labels alone, as "
                "`unalike generate` needs it; in Python, unalike.guide(pipe, …) takes whatever the "
                "pipeline itself does"
            )
        precision = {} if settings.dtype == AUTO else {"dtype": getattr(torch, settings.dtype)}
        if settings.dtype == AUTO and device.type == "cpu":
            precision = {"dtype": torch.float32}
        pipe = load(settings.model, **precision)
        pipe.set_progress_bar_config(disable=True)
        chosen: dict[str, Any] = {
            "classes": class_ids(pipe, settings.prompts) if by_class else None
        }
        guidance = row.guidance if row else "guidance_scale"
        for name, argument in (("steps", "num_inference_steps"), ("guidance_scale", guidance)):
            value = getattr(settings, name)
            if argument not in parameters:
                if value is not None or name == "steps":
                    raise OptionError(
                        named(
                            "{} is given, and {} has no {}; leave it out, or choose another "
                            "{model}",
                            Option(name),
                            type(pipe).__name__,
                            argument,
                        )
                    )
                chosen[name] = None
            elif value is not None:
                chosen[name] = value
            else:
                chosen[name] = getattr(row, name) if row else parameters[argument].default
        return cls(pipe.to(device), row=row, **chosen)

    def arguments(self, prompts: Sequence[str]) -> dict[str, Any]:
        """The arguments of a call that draws an image of each prompt, but the generators."""
        result: dict[str, Any] = {
            **({} if self.row is None else self.row.call(len(prompts))),
            **(
                {"prompt": list(prompts)}
                if self.classes is None
                else {"class_labels": [self.classes[p] for p in prompts]}
            ),
            "num_inference_steps": self.steps,
        }
        if self.guidance_scale is not None:
            result[self.row.guidance if self.row else "guidance_scale"] = self.guidance_scale
        return result

    def draw(
        self, call: Callable[..., Any], batch: Sequence[Planned], step_done: StepDone
    ) -> list[Image.Image]:
        """The images of a batch, drawn by `call`: the pipeline itself or its guided form.

        Each image has a generator of its own, so that its noise does not depend on what it is drawn
        together with.

        Raises:
            UnsupportedError: when what comes back is not one image a prompt.
        """
        arguments = self.arguments([p.prompt for p in batch])
        arguments["generator"] = [torch.Generator().manual_seed(p.seed) for p in batch]
        if "callback_on_step_end" in Host(self.pipe).parameters:

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
