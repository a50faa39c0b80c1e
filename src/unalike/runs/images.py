"""Find image files in a folder, and refuse together those that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unalike.errors import Message, OptionError, named
from unalike.options import fault_of_text

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_SHOWN = 10


def find_images(folder: Path) -> list[str]:
    """The images below a folder by their names, hidden files and folders left out, in order.

    Raises:
        OptionError: where there is no such folder, or no image in it, or the name of one cannot be
            written into results.
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
            f"{str(folder)!r} has no image; allowed are {', '.join(SUFFIXES)}, also in folders "
            "below it"
        )
    for file in files:
        fault = fault_of_text(file)
        if fault:
            raise OptionError(f"{str(folder)!r} has the file {file!r}, which {fault}; rename it")
    return files


def reason(error: Exception, path: Path | None = None) -> str:
    """The reason why an image could not be read, in one line that does not name its path."""
    text = str(error)
    for name in () if path is None else (path.absolute(), path):
        text = text.replace(str(name), "the file")
    return " ".join(text.split()) or type(error).__name__


def refusal(where: str, total: int, bad: Sequence[tuple[str, str]]) -> Message:
    """The message for images that cannot be read.

    Args:
        where: the place, as it stands after "images in".
        total: how many images there are.
        bad: those that cannot be read, each with the reason.

    Example:
        >>> print(refusal("'photos'", 3, [("a.png", "the file is empty")]))
        1 of 3 images in 'photos' cannot be read: a.png (the file is empty). Mend or remove them,
        or leave them out: skip_bad=True
    """
    shown = "; ".join(f"{file} ({why})" for file, why in bad[:_SHOWN]) + (
        "; …" if len(bad) > _SHOWN else ""
    )
    left = "" if len(bad) == total else ", or leave them out: {skip_bad=True}"
    return named(
        "{} of {} images in {} cannot be read: {}. Mend or remove them" + left,
        len(bad),
        total,
        where,
        shown,
    )
