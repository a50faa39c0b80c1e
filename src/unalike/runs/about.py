"""Build the metadata that image files of a run carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from unalike.guidance.method import Method
from unalike.guidance.methods import described
from unalike.runs.parameters import ImageInfo
from unalike.runs.record import model_name
from unalike.runs.samples import Planned
from unalike.runs.settings import AUTO, DrawSettings

if TYPE_CHECKING:
    from unalike.runs.pipeline import RunPipeline


@dataclass(frozen=True)
class About:
    """The metadata that all images of a run share.

    Args:
        shared: of a guided image whose row has no arguments of its own.
    """

    shared: ImageInfo

    @classmethod
    def of(cls, settings: DrawSettings, pipeline: RunPipeline, methods: Sequence[Method]) -> Self:
        """Collect the metadata that images of these settings share."""
        return cls(
            ImageInfo(
                prompt="",
                negative_prompt=settings.negative_prompt or "",
                seed=0,
                steps=pipeline.steps,
                guidance_scale=pipeline.guidance_scale,
                scheduler=pipeline.describe()["scheduler"],
                width=0,
                height=0,
                model=model_name(settings.model, pipeline.source),
                model_hash=pipeline.fingerprint(),
                methods=tuple(described(method) for method in methods),
                settings=_further(settings),
            )
        )

    def info(self, planned: Planned, size: tuple[int, int], *, guided: bool = True) -> ImageInfo:
        """The metadata of one image.

        Args:
            planned: with the seed that draws it again.
            size: width and height.
            guided: whether it was guided.
        """
        own: Mapping[str, Any] = planned.arguments
        negative = planned.negative_prompt
        return replace(
            self.shared,
            prompt=planned.prompt,
            negative_prompt=self.shared.negative_prompt if negative is None else negative,
            seed=planned.seed,
            steps=int(own.get("num_inference_steps", self.shared.steps)),
            guidance_scale=own.get("guidance_scale", self.shared.guidance_scale),
            width=size[0],
            height=size[1],
            methods=self.shared.methods if guided else (),
            item=planned.item,
            id=planned.id or "",
        )


def _further(settings: DrawSettings) -> dict[str, Any]:
    """Settings that an image depends on and that have no place of their own."""
    found: dict[str, Any] = {}
    for name in ("scheduler", "height", "width", "model_config", "image_strength"):
        value = getattr(settings, name)
        if value is not None:
            found[name] = str(value) if isinstance(value, Path) else value
    if settings.lora:
        found["lora"] = list(settings.lora)
    if settings.image is not None:
        found["image"] = str(settings.image)
    if settings.dtype != AUTO:
        found["dtype"] = settings.dtype
    return found
