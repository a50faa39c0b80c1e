"""The size of the images that a pipeline is made for."""

from __future__ import annotations

from typing import Any

from unalike.errors import OptionError, UnsupportedError


def image_size(pipe: Any, asked: tuple[int, int] | None = None) -> tuple[int, int]:
    """Height and width in pixels that images are to have for this pipeline: those asked for, or the ones it draws unless told otherwise.

    Raises:
        OptionError: for a size that its autoencoder cannot encode as it is.
        UnsupportedError: where none is asked for and the pipeline does not tell.
    """
    if asked is not None:
        multiple = _multiple(pipe)
        if any(n < 1 or n % multiple for n in asked):
            raise OptionError(f"size is {asked[0]} {asked[1]}; height and width must be multiples of {multiple}, as in --size 512 512")
        return asked
    denoiser = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    sample = getattr(pipe, "default_sample_size", None) or getattr(getattr(denoiser, "config", None), "sample_size", None)
    if sample is None or _scale_factor(pipe) is None:
        raise UnsupportedError(
            f"{type(pipe).__name__} does not say which size its images have; give height and width, as in --size 512 512"
        )
    height, width = (sample, sample) if isinstance(sample, int) else sample
    return height * _scale_factor(pipe), width * _scale_factor(pipe)


def _scale_factor(pipe: Any) -> Any:
    known = getattr(pipe, "vae_scale_factor", None)
    blocks = getattr(getattr(getattr(pipe, "vae", None), "config", None), "block_out_channels", None)
    return known or (2 ** (len(blocks) - 1) if blocks else None)


def _multiple(pipe: Any) -> int:
    processor = getattr(getattr(pipe, "image_processor", None), "config", None)
    return int(getattr(processor, "vae_scale_factor", None) or _scale_factor(pipe) or 1)
