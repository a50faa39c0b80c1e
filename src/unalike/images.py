"""Read an image from whatever holds it, as it is meant to be seen.

Everything in the package that opens an image goes through here, so that a protected image, a
reference and a generated one are the same pixels wherever they are compared:

- transparent parts lie on white (`ground`), in palettes, grey and premultiplied images too;
- 16 bits a channel become 8, so that 65535 is white; whole numbers of 32 bits are read likewise and
  must not be larger;
- floating-point numbers go from 0 to 1;
- EXIF orientation is applied;
- an animation is its first frame; a PIL image that was moved to another frame is that frame;
- CMYK and other colour spaces are converted as Pillow does it; colour profiles are ignored.
"""

from __future__ import annotations

import functools
import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from unalike.errors import OptionError

UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    ArithmeticError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""The errors of `read_image` for damaged files and for images of a kind that is not allowed.

Each of Pillow's decoders has its own: AVIF raises RuntimeError, DDS NotImplementedError.
"""

_DEEP = 65535
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}


def read_image(image: Any, *, ground: str = "white") -> Image.Image:
    """Read an image in RGB with 8 bits a channel.

    Args:
        image: a path, an open binary file, a PIL image; an array (h, w) or (h, w, c), or a tensor
            (h, w) or (c, h, w), with 1, 3 or 4 channels, of bool, uint8, uint16 or floats from 0 to
            1.
        ground: the colour behind transparent parts.

    Raises:
        UNREADABLE: one of these, for a file that cannot be read.
        OptionError: for anything else that is no image; it is a ValueError.

    Example:
        >>> read_image(Image.new("RGBA", (2, 1), (255, 0, 0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        if path.exists() and not path.is_file():
            raise OptionError(f"{str(path)!r} is not a file; give an image file")
        return _of_file(path, ground)
    if isinstance(image, Image.Image):
        return _rgb(image, ground)
    if isinstance(image, Tensor | np.ndarray):
        return _of_numbers(image, ground)
    if hasattr(image, "read"):
        return _of_file(image, ground)
    raise OptionError(
        f"an image is a {type(image).__name__}; allowed: a path, a PIL image, an array or a tensor"
    )


def read_pixels(image: Any) -> Tensor:
    """Read an image as numbers (3, h, w) float32 from 0 to 1; floats keep their precision.

    Args and Raises: as for `read_image`.

    Example:
        >>> read_pixels(torch.full((1, 2, 2), 0.25)).unique()
        tensor([0.2500])
    """
    if isinstance(image, Tensor | np.ndarray) and torch.as_tensor(image).is_floating_point():
        return _three(_channels(image))
    return stacked([read_image(image)])[0]


def stacked(images: Sequence[Image.Image]) -> Tensor:
    """Stack RGB images of one size as numbers (n, 3, h, w) float32 from 0 to 1.

    Example:
        >>> stacked([Image.new("RGB", (4, 2), "white")]).shape
        torch.Size([1, 3, 2, 4])
    """
    rows = torch.stack([torch.from_numpy(np.array(image, dtype=np.uint8)) for image in images])
    return rows.permute(0, 3, 1, 2).float() / 255


def read_all(images: Any) -> list[Image.Image] | Tensor:
    """Read images of any sizes in RGB.

    Where some are given as floats all are numbers (m, 3, h, w), and must be of one size.

    Args:
        images: a sequence of what `read_image` takes, one such image, or a batch: an array (m, h,
            w, c) or a tensor (m, c, h, w).

    Raises:
        OptionError: for no images, and for one that cannot be read; the message names its number.
    """
    numbers = isinstance(images, Tensor | np.ndarray)
    single = images.ndim < 4 if numbers else isinstance(images, str | os.PathLike | Image.Image)
    given = [images] if single else list(images)
    if not given:
        raise OptionError("images is empty; give at least one image")
    floats = [isinstance(i, Tensor | np.ndarray) and "float" in str(i.dtype) for i in given]
    read: list[Any] = []
    for number, image in enumerate(given):
        try:
            read.append(read_pixels(image) if any(floats) else read_image(image))
        except UNREADABLE as error:
            raise OptionError(f"image {number} of {len(given)} cannot be read: {error}") from error
    if not any(floats):
        return read
    if len({image.shape for image in read}) > 1:
        raise OptionError(
            "images have different sizes and some are arrays or tensors of floats; resize them "
            "first"
        )
    return torch.stack(read)


def _of_file(file: Path | IO[bytes], ground: str) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of data beside the pixels, and of large images
        with Image.open(file, formats=_formats()) as opened:
            return _rgb(opened, ground)


@functools.cache
def _formats() -> tuple[str, ...]:
    """Pillow's formats, whatever a file's name says; without EPS, which is a program that Pillow
    gives to Ghostscript to run.
    """
    Image.init()
    return tuple(name for name in Image.OPEN if name != "EPS")


def _rgb(image: Image.Image, ground: str) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":
        image = _eight_bits(image)
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, ground), image)
    image = image.convert("RGB")
    image.info = {}  # nothing is left to be applied a second time
    return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Convert a grey image of more than 8 bits a channel, and its transparent value."""
    values = np.asarray(image).astype(np.float64)
    most = 1.0 if image.mode == "F" else float(_DEEP)
    if values.size and not (values.min() >= 0 and values.max() <= most):
        raise OptionError(
            f"its mode {image.mode!r} has numbers from {values.min():g} to {values.max():g}; "
            f"allowed: 0 to {most:g}; scale them, or save it with 8 bits a channel"
        )
    grey = Image.fromarray(np.rint(values * (255 / most)).astype(np.uint8))
    clear = image.info.get("transparency")
    if clear is None:
        return grey
    return Image.merge(
        "LA", (grey, Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    )


def _of_numbers(image: Any, ground: str) -> Image.Image:
    values = _channels(image)
    flat = np.rint(values.double().numpy() * 255).astype(np.uint8)
    made = Image.merge(
        {1: "L", 3: "RGB", 4: "RGBA"}[len(flat)], [Image.fromarray(plane) for plane in flat]
    )
    return _rgb(made, ground)


def _channels(image: Any) -> Tensor:
    """Convert an array or a tensor to (c, h, w) float32 from 0 to 1."""
    given = f"{str(image.dtype).removeprefix('torch.')} of shape {tuple(image.shape)}"
    deep = str(image.dtype) in ("torch.uint16", "uint16", ">u2")
    try:
        plain = image.astype(np.int32) if deep and isinstance(image, np.ndarray) else image
        values = torch.as_tensor(plain).detach().cpu()
    except TypeError as error:
        raise OptionError(f"an image is {given}; allowed: numbers") from error
    if values.ndim == 3 and not isinstance(image, Tensor):
        values = values.permute(2, 0, 1)
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[0] not in (1, 3, 4) or values.numel() == 0:
        raise OptionError(
            f"an image is {given}; allowed: a tensor (c, h, w) or an array (h, w, c) with 1, 3 or "
            "4 channels, or (h, w)"
        )
    if deep:
        return values.float() / _DEEP
    if values.dtype in (torch.uint8, torch.bool):
        return values.float() / (255 if values.dtype == torch.uint8 else 1)
    if not values.is_floating_point():
        raise OptionError(
            f"an image is {given}; allowed: bool, uint8, uint16 or floats from 0 to 1"
        )
    if not (values.min() >= 0 and values.max() <= 1):
        raise OptionError(
            f"an image has numbers from {values.min():g} to {values.max():g}; allowed: floats from "
            "0 to 1, as in pixels / 255, or uint8"
        )
    return values.float()


def _three(values: Tensor) -> Tensor:
    """Convert one, three or four channels (c, h, w) to colours (3, h, w), on white."""
    if len(values) == 4:
        return values[:3] * values[3] + (1 - values[3])
    return values.expand(3, -1, -1)
