"""The image that every image of a run starts from, and the pipeline that takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from unalike.errors import OptionError, UnsupportedError, named
from unalike.images import UNREADABLE, read_image
from unalike.runs.images import reason


def read_start_image(path: Path) -> Image.Image:
    """The image of a file, in RGB.

    Raises:
        OptionError: for a file that is not there or is no image.
    """
    try:
        if not path.is_file():
            raise OptionError("there is no such file")
        image = read_image(path)
    except UNREADABLE as error:
        raise OptionError(
            named(
                "{image} is {!r}, which cannot be read: {}; give an image file, as in {image=FILE}",
                str(path),
                reason(error, path),
            )
        ) from error
    return image


def image_to_image_class(host: Any) -> Any:
    """The class that draws from an image with the components of a text-to-image class.

    A class that takes an image already is its own.

    Raises:
        UnsupportedError: where diffusers has none.
    """
    from diffusers.pipelines import auto_pipeline

    tables: Any = auto_pipeline
    text_to_image = tables.AUTO_TEXT2IMAGE_PIPELINES_MAPPING
    from_image = tables.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING
    if host in from_image.values():
        return host
    families = [family for family, kind in text_to_image.items() if kind is host]
    found = next((from_image[family] for family in families if family in from_image), None)
    if found is None:
        raise UnsupportedError(
            named(
                "{image} is given, and diffusers has no image-to-image pipeline for {}; leave it "
                "out, or choose another {model}",
                host.__name__,
            )
        )
    return found


def image_to_image(pipe: Any) -> Any:
    """The image-to-image pipeline of the same components."""
    from diffusers import AutoPipelineForImage2Image

    from unalike.attach.diffusers.arguments import MODEL

    found = AutoPipelineForImage2Image.from_pipe(pipe)
    if hasattr(pipe, MODEL):
        setattr(found, MODEL, getattr(pipe, MODEL))
    return found
