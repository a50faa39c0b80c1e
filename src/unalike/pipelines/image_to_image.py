"""The image-to-image form of a text-to-image pipeline."""

from __future__ import annotations

from typing import Any

from unalike.attach.diffusers.arguments import MODEL
from unalike.errors import UnsupportedError, named


def image_to_image_class(host: Any) -> Any:
    """The class that draws from an image with the components of a text-to-image class.

    A class that takes an image already is its own.

    Raises:
        UnsupportedError: where diffusers has none.
    """
    from diffusers.pipelines import auto_pipeline

    text_to_image: Any = auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING
    from_image: Any = auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING
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

    found = AutoPipelineForImage2Image.from_pipe(pipe)
    if hasattr(pipe, MODEL):
        setattr(found, MODEL, getattr(pipe, MODEL))
    return found
