"""Edits that people make of images, to measure what holds of an image afterwards.

Each keeps the size, depends on the image alone, and needs only Pillow. Images are read in RGB
first, as `unalike.images` says.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from unalike.errors import OptionError
from unalike.images import read_image

JPEG_QUALITY = 80
_LARGEST_SIDE = 65_500
"""Of a JPEG file, in libjpeg."""


@dataclass(frozen=True)
class Edit:
    """An edit of an image.

    Attributes:
        words: what it does, as a participle.
        apply: does it to an RGB image.
    """

    words: str
    apply: Callable[[Image.Image], Image.Image]

    def __call__(self, image: Any) -> Image.Image:
        """The edited image, RGB and of the same size.

        Args:
            image: as `read_image` takes it; it is not changed.

        Raises:
            UNREADABLE: as `read_image`.
            OptionError: for an image that the edit cannot be made of.
        """
        return self.apply(read_image(image))


def jpeg80(image: Image.Image) -> Image.Image:
    """Save as JPEG of quality 80 and read again.

    Pillow's quality 80, colours at half the resolution in both directions (4:2:0), baseline. The
    last bits depend on the libjpeg that Pillow was built with.

    Args:
        image: RGB.

    Raises:
        OptionError: for a side longer than JPEG allows.

    Example:
        >>> jpeg80(Image.new("RGB", (5, 4), (90, 90, 90))).getpixel((0, 0))
        (90, 90, 90)
    """
    if max(image.size) > _LARGEST_SIDE:
        raise OptionError(
            f"an image has {image.width}×{image.height} pixels, and JPEG allows sides of at most "
            f"{_LARGEST_SIDE:,}; resize it first"
        )
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
    return read_image(file)


def half(image: Image.Image) -> Image.Image:
    """Resize to half of each side, rounded up, and back, both bicubic and the first antialiased.

    Args:
        image: RGB.

    Example:
        >>> half(Image.new("RGB", (5, 1), "white")).size
        (5, 1)
    """
    small = ((image.width + 1) // 2, (image.height + 1) // 2)
    bicubic = Image.Resampling.BICUBIC
    return image.resize(small, bicubic).resize(image.size, bicubic)


def crop10(image: Image.Image) -> Image.Image:
    """Cut 10% of the width off at the left and the right, 10% of the height at the top and the
    bottom, and enlarge what is left to the old size, bicubic.

    What is cut off is rounded to whole pixels, halves up, so 80% of each side are left, but for
    rounding.

    Args:
        image: RGB.

    Example:
        >>> image = Image.new("RGB", (10, 10), "red")
        >>> image.paste("blue", (1, 1, 9, 9))
        >>> crop10(image).getcolors()
        [(100, (0, 0, 255))]
    """
    x, y = ((side + 5) // 10 for side in image.size)
    left = image.crop((x, y, image.width - x, image.height - y))
    return left.resize(image.size, Image.Resampling.BICUBIC)


EDITS: Mapping[str, Edit] = {
    "jpeg80": Edit(f"saved as JPEG of quality {JPEG_QUALITY}", jpeg80),
    "half": Edit("resized to half and back", half),
    "crop10": Edit("cropped by 10% at each side and enlarged", crop10),
}
"""The edits by their names."""
