"""What a run asks of the call of its pipeline, checked against the arguments that it takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from PIL import Image

from unalike.attach.diffusers.host import Host
from unalike.errors import Option, OptionError, UnsupportedError, named
from unalike.pipelines.image_to_image import image_to_image_class
from unalike.pipelines.sources import Source, pipeline_class

if TYPE_CHECKING:
    from unalike.runs.seeds_settings import SeedsSettings
    from unalike.runs.settings import DrawSettings


@dataclass(frozen=True)
class CallSettings:
    """The settings of a run as arguments of its pipeline.

    Args:
        host: the class of the pipeline.
        parameters: of its call.
        by_class: whether it is called with class labels.
        steps: of the scheduler.
        guidance_scale: None where the pipeline has none.
        height, width: of the images as asked for.
        strength: of the start image; None where there is none, or the pipeline has no such
            argument.
    """

    host: Any
    parameters: Mapping[str, inspect.Parameter]
    by_class: bool
    steps: int
    guidance_scale: float | None
    height: int | None
    width: int | None
    strength: float | None

    @classmethod
    def of(cls, settings: DrawSettings | SeedsSettings, source: Source) -> Self:
        """Check the settings against the class of the pipeline; no weights are read.

        Raises:
            OptionError: for a setting that the pipeline has not, or that would do nothing.
            UnsupportedError: for a pipeline that draws something else than images from prompts or
                class labels.
        """
        host, row = pipeline_class(source), source.row
        drawn = host if settings.image is None else image_to_image_class(host)
        parameters = inspect.signature(drawn.__call__).parameters
        by_class = _require_prompts(drawn, parameters, needs_more=bool(row and row.controlnet))
        if settings.image is None and "strength" in parameters and "image" in parameters:
            raise OptionError(
                named(
                    "{} draws from an image, and there is none; give one, as in {image=FILE}",
                    drawn.__name__,
                )
            )
        scale = row.guidance if row else "guidance_scale"
        values = {"steps": row.steps if row else None, "guidance_scale": None}
        values["guidance_scale"] = row.guidance_scale if row else None
        names = {"steps": "num_inference_steps", "guidance_scale": scale}
        for name, argument in names.items():
            given = getattr(settings, name)
            values[name] = _value(drawn, parameters, name, argument, given, values[name])
        _require_taken(drawn, parameters, settings)
        strength = settings.image_strength
        if strength is None and settings.image is not None and "strength" in parameters:
            strength = parameters["strength"].default
        call = cls(
            drawn,
            parameters,
            by_class,
            values["steps"],
            values["guidance_scale"],
            settings.height,
            settings.width,
            strength,
        )
        call._require_steps()
        if settings.negative_prompt is not None:
            call._require_guidance(settings.negative_prompt, scale)
        return call

    def sized(self, pipe: Any, image: Image.Image | None) -> dict[str, Any]:
        """The start image in its size, as `image`, and the further arguments, as `options`.

        Args:
            pipe: the loaded pipeline.
            image: as it was read.

        Raises:
            OptionError: for a size that the pipeline cannot draw.
        """
        options = {} if self.strength is None else {"strength": self.strength}
        height, width = self.height, self.width
        if image is not None:
            height, width = height or image.height, width or image.width
        self._require_multiples(pipe, {"height": height, "width": width})
        if image is not None and image.size != (width, height):
            assert height
            assert width
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        sizes = {"height": height, "width": width}
        options |= {n: v for n, v in sizes.items() if v is not None and n in self.parameters}
        return {"image": image, "options": options}

    def _require_multiples(self, pipe: Any, sizes: Mapping[str, int | None]) -> None:
        """Refuse sides that the pipeline cannot draw."""
        multiple = Host(pipe).size_multiple
        for name, value in sizes.items():
            if value is None or value % multiple == 0:
                continue
            whose = "{}" if getattr(self, name) else "that of {image}, {}"
            near = max(multiple, round(value / multiple) * multiple)
            raise OptionError(
                named(
                    "{} is " + whose + "; allowed with {}: multiples of {}, as in {}",
                    Option(name),
                    value,
                    type(pipe).__name__,
                    multiple,
                    Option(name, near),
                )
            )

    def _require_steps(self) -> None:
        """Refuse a strength of which no step is left."""
        if self.strength is not None and int(self.steps * self.strength) < 1:
            raise OptionError(
                named(
                    "{image_strength} is {:g} and {steps} is {}, of which no step is left; give at "
                    "least {}",
                    self.strength,
                    self.steps,
                    Option("steps", -int(-1 // self.strength)),
                )
            )

    def _require_guidance(self, negative_prompt: str, scale: str) -> None:
        """Refuse a negative prompt that the call would ignore."""
        true_scale = "true_cfg_scale"
        if true_scale in self.parameters and scale != true_scale:
            value, name = self.parameters[true_scale].default, Option(true_scale)
        else:
            value, name = self.guidance_scale, Option("guidance_scale")
        if isinstance(value, int | float) and value <= 1:
            raise OptionError(
                named(
                    "{negative_prompt} is {!r}, which does nothing with {} {:g}; leave it out, or "
                    "guide by more than 1",
                    negative_prompt,
                    name,
                    value,
                )
            )


def _require_prompts(
    host: Any, parameters: Mapping[str, inspect.Parameter], *, needs_more: bool
) -> bool:
    """Whether a class is called with class labels; refuses one that needs more than prompts."""
    by_class = "prompt" not in parameters and "class_labels" in parameters
    if (
        not (by_class or "prompt" in parameters)
        or "generator" not in parameters
        or needs_more
        or "num_frames" in parameters
    ):
        raise UnsupportedError(
            f"{host.__name__} does not draw images from prompts or class labels alone, as "
            "`unalike generate` needs it; in Python, unalike.guide(pipe, …) takes whatever the "
            "pipeline itself does"
        )
    return by_class


def _value(
    host: Any,
    parameters: Mapping[str, inspect.Parameter],
    name: str,
    argument: str,
    given: Any,
    usual: Any,
) -> Any:
    """The value of a setting: as given, of the model's row, or the default of the class."""
    if argument not in parameters:
        if given is not None or name == "steps":
            raise _not_taken(host, name, argument)
        return None
    if given is not None:
        return given
    return parameters[argument].default if usual is None else usual


def _require_taken(
    host: Any,
    parameters: Mapping[str, inspect.Parameter],
    settings: DrawSettings | SeedsSettings,
) -> None:
    """Refuse settings that the pipeline has no argument or method for."""
    names = {"negative_prompt": "negative_prompt", "image_strength": "strength"}
    if settings.image is None:  # a start image is resized
        names |= {"height": "height", "width": "width"}
    for name, argument in names.items():
        if getattr(settings, name) is not None and argument not in parameters:
            raise _not_taken(host, name, argument)
    if settings.lora and not hasattr(host, "load_lora_weights"):
        raise _not_taken(host, "lora", "load_lora_weights")


def _not_taken(host: Any, name: str, argument: str) -> OptionError:
    return OptionError(
        named(
            "{} is given, and {} has no {}; leave it out, or choose another {model}",
            Option(name),
            host.__name__,
            argument,
        )
    )
