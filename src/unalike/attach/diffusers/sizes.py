"""The size of the images that a pipeline is made for, and of those that a call asks for."""

from __future__ import annotations

import inspect
from typing import Any

from unalike.attach.diffusers.calls import own_call
from unalike.attach.spaces import latent_model
from unalike.errors import OptionError, UnsupportedError


def image_size(pipe: Any, asked: tuple[int, int] | None = None) -> tuple[int, int]:
    """Height and width in pixels that images are to have for this pipeline: those asked for, or the
    ones it draws unless told otherwise.

    Raises:
        OptionError: for a size that its autoencoder cannot encode as it is.
        UnsupportedError: where none is asked for and the pipeline does not tell.
    """
    if asked is not None:
        multiple = _multiple(pipe)
        if any(n < 1 or n % multiple for n in asked):
            raise OptionError(
                f"size is {asked[0]} {asked[1]}; height and width must be multiples of {multiple}, as in --size 512 512"
            )
        return asked
    denoiser = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    sample = getattr(pipe, "default_sample_size", None) or getattr(
        getattr(denoiser, "config", None), "sample_size", None
    )
    if sample is None or _scale_factor(pipe) is None:
        raise UnsupportedError(
            f"{type(pipe).__name__} does not say which size its images have; give height and width, as in --size 512 512"
        )
    height, width = (sample, sample) if isinstance(sample, int) else sample
    return height * _scale_factor(pipe), width * _scale_factor(pipe)


def call_size(pipe: Any, arguments: dict[str, Any]) -> tuple[int, int]:
    """Height and width in pixels of the images of a call: as it asks for, of the image that it
    starts from, or the pipeline's own.

    Args:
        pipe: a diffusers pipeline.
        arguments: of the call, by name.

    Raises:
        UnsupportedError: where neither the call nor the pipeline tells.
    """
    parameters = inspect.signature(own_call(pipe)).parameters
    usual = [
        parameters[name].default if name in parameters else None for name in ("height", "width")
    ]
    height, width = (
        arguments.get(n) or (own if isinstance(own, int) else None)
        for n, own in zip(("height", "width"), usual, strict=True)
    )
    if height is not None and width is not None:
        return height, width
    given = None if "height" in parameters else _given_size(arguments.get("image"))
    own_height, own_width = image_size(pipe) if given is None else given
    return height or own_height, width or own_width


def latent_size(pipe: Any, size: tuple[int, int]) -> tuple[int, int] | None:
    """Height and width of the latents of images of this size in pixels; None where the pipeline
    does not tell.
    """
    factor = _scale_factor(pipe)
    return None if factor is None else (size[0] // factor, size[1] // factor)


def _given_size(image: Any) -> tuple[int, int] | None:
    first: Any = image[0] if isinstance(image, list | tuple) and image else image
    if hasattr(first, "convert"):
        return first.height, first.width
    shape = tuple(getattr(first, "shape", ()))
    return (shape[-2], shape[-1]) if len(shape) >= 2 else None


_FACTORS = (
    "vae_scale_factor",
    "vae_scale_factor_spatial",
    "vae_spatial_scale_factor",
    "vae_spatial_compression_ratio",
    "movq_scale_factor",
)


def _scale_factor(pipe: Any) -> Any:
    known = next((value for name in _FACTORS if (value := getattr(pipe, name, None))), None)
    blocks = getattr(
        getattr(getattr(pipe, "vae", None), "config", None), "block_out_channels", None
    )
    return known or (
        2 ** (len(blocks) - 1) if blocks else 1 if latent_model(pipe) == "pixels" else None
    )


def _multiple(pipe: Any) -> int:
    processor = getattr(getattr(pipe, "image_processor", None), "config", None)
    return int(getattr(processor, "vae_scale_factor", None) or _scale_factor(pipe) or 1)
