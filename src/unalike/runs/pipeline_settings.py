"""The settings of the pipeline that `unalike generate` and `unalike seeds` share; neither torch nor
diffusers is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unalike.errors import Literal, OptionError, named
from unalike.options import option
from unalike.pipelines.loras import split_scale
from unalike.pipelines.schedulers import SCHEDULERS, find_scheduler

LARGEST_SIDE = 1 << 14


@dataclass(frozen=True, kw_only=True)
class PipelineSettings:
    """How the pipeline is put together and called, one field an option of the same name.

    Args:
        model_config: of a model in one .safetensors file, the model whose configuration and
            tokenizers it has: a name of the catalogue, a folder or a hub id; None for the one that
            diffusers chooses by the tensors, from the hub.
        scheduler: a name of `unalike.pipelines.schedulers.SCHEDULERS`, or of a class in it; None
            for the model's own.
        lora: safetensors files, or folders with one, as "FILE" or "FILE:SCALE"; several combine.
        negative_prompt: what no image is to show; None for nothing.
        height, width: of the images in pixels; None for the model's own, or those of `image`.
        image: every image starts from this one, in place of noise alone; it is resized to `height`
            and `width` where they are given.
        image_strength: how much noise it is given, and which share of the steps is taken: with 1
            nothing of it is left; None for the pipeline's own.

    Raises:
        OptionError: for a value outside what is allowed.
    """

    model_config: str | None = option(
        None,
        "Configuration of a model in one file: a name, a folder, or a hub id. [default: by its "
        "weights, from the hub]",
        kind=str,
        choices=(None,),
        example=Literal("FOLDER"),
    )
    scheduler: str | None = option(
        None,
        f"Scheduler: {', '.join(SCHEDULERS)}. [default: the model's]",
        kind=str,
        choices=(None,),
        example="euler",
    )
    lora: tuple[str, ...] = option(
        (),
        "LoRA, with its scale if not 1; repeat it to combine several.",
        kind=tuple,
        example=("style.safetensors:0.8",),
        paths=True,
    )
    negative_prompt: str | None = option(
        None, "What no image is to show.", kind=str, choices=(None,), paths=False, example="blurry"
    )
    height: int | None = option(
        None,
        "Height of the images in pixels. [default: the model's]",
        kind=int,
        low=1,
        high=LARGEST_SIDE,
        choices=(None,),
        example=512,
    )
    width: int | None = option(
        None,
        "Width of the images in pixels. [default: the model's]",
        kind=int,
        low=1,
        high=LARGEST_SIDE,
        choices=(None,),
        example=512,
    )

    image: Path | None = option(
        None, "Start every image from this one (image to image).", kind=Path, choices=(None,)
    )
    image_strength: float | None = option(
        None,
        "How far from it: the share of noise and of steps. [default: the pipeline's]",
        kind=float,
        above=0,
        high=1,
        choices=(None,),
        example=0.6,
    )

    def require_consistent(self) -> None:
        """Refuse an unknown scheduler, the scale of a LoRA that is no number, and the strength of
        an image that is not there.

        Raises:
            OptionError: naming it and what is allowed.
        """
        if self.scheduler is not None:
            find_scheduler(self.scheduler)
        for text in self.lora:
            split_scale(text)
        if self.image_strength is not None and self.image is None:
            raise OptionError(
                named(
                    "{image_strength} is {:g}, and there is no image; give one, as in {image=FILE}",
                    self.image_strength,
                )
            )
