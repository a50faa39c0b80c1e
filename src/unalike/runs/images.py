"""Image files: found in a folder, read one by one, and refused together where some cannot be
read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO

from PIL import Image, ImageOps

from unalike.errors import OptionError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for damaged files."""
_SHOWN = 10


def find_images(folder: Path) -> list[str]:
    """The images below a folder by their names, hidden files and folders left out, in order.

    Raises:
        OptionError: where there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise OptionError(
            f"{str(folder)!r} is no folder; give one that holds images ({', '.join(SUFFIXES)})"
        )
    paths = (
        p.relative_to(folder)
        for p in folder.rglob("*")
        if p.suffix.lower() in SUFFIXES and p.is_file()
    )
    files = sorted(p.as_posix() for p in paths if not any(part.startswith(".") for part in p.parts))
    if not files:
        raise OptionError(
            f"{str(folder)!r} has no image; allowed are {', '.join(SUFFIXES)}, also in folders below it"
        )
    return files


def read_image(path: Path | IO[bytes]) -> Image.Image:
    """The image in RGB as it is meant to be seen: turned as its EXIF data says, transparent parts
    on white; of several frames the first.

    Raises:
        OSError, SyntaxError, ValueError, Image.DecompressionBombError: for damaged files, and more
        than 8 bits a channel.
    """
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
    if image.mode[0] in "IF":
        raise ValueError(f"its mode {image.mode!r} has more than 8 bits a channel; save it with 8")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def reason(error: Exception, path: Path | None = None) -> str:
    """Why an image could not be read, in one line that does not name its path."""
    text = str(error) if path is None else str(error).replace(str(path), "the file")
    return " ".join(text.split()) or type(error).__name__


def refusal(where: str, total: int, bad: Sequence[tuple[str, str]]) -> str:
    """What to say of images that cannot be read.

    Args:
        where: the place, as it stands after "images in".
        total: how many images there are.
        bad: those that cannot be read, each with the reason.

    Example:
        >>> refusal("'photos'", 3, [("a.png", "the file is empty")])
        "1 of 3 images in 'photos' cannot be read: a.png (the file is empty). Mend or remove them, or leave them out with --skip-bad"
    """
    shown = "; ".join(f"{file} ({why})" for file, why in bad[:_SHOWN]) + (
        "; …" if len(bad) > _SHOWN else ""
    )
    left = "" if len(bad) == total else ", or leave them out with --skip-bad"
    return f"{len(bad)} of {total} images in {where} cannot be read: {shown}. Mend or remove them{left}"
