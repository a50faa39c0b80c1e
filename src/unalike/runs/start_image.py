"""The image that every image of a run starts from."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from unalike.errors import OptionError, named
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
