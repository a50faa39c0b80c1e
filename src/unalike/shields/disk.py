"""Name, check, write and remove the files of a protected set."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path

from safetensors import SafetensorError

from unalike.errors import StoreError
from unalike.files import replacing

MANIFEST = "manifest.json"
JOURNAL = "building.jsonl"
_OWN = re.compile(
    r"vectors-\d{5,}\.safetensors|names-\d+\.parquet|index-\d+\.safetensors"
    r"|\..+\.tmp|\.tmp\w{6}"  # what a killed build leaves; the last is safetensors' own
)
_CHUNK = 1 << 20


def shard_name(number: int) -> str:
    """The file name of a shard.

    Example:
        >>> shard_name(3)
        'vectors-00003.safetensors'
    """
    return f"vectors-{number:05}.safetensors"


def own_files(folder: Path) -> set[str]:
    """Names of the files in a folder that belong to a set, except manifest and journal."""
    return {path.name for path in folder.iterdir() if _OWN.fullmatch(path.name)}


def foreign_files(folder: Path) -> list[str]:
    """Names of all other files in a folder, in order."""
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in (MANIFEST, JOURNAL) and not _OWN.fullmatch(path.name)
    )


def remove(folder: Path, names: Iterable[str]) -> None:
    """Remove files; missing ones are fine."""
    for name in names:
        (folder / name).unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits.

    Raises:
        StoreError: when it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise StoreError(
            f"{str(path)!r} is missing or cannot be read ({error.strerror}); use a backup"
        ) from error
    return digest.hexdigest()


def place(path: Path, write: Callable[[Path], object], needed: int) -> None:
    """Write a file completely, then put it in its place.

    Args:
        path: where it is to be.
        write: writes to the path that it is given.
        needed: about how many bytes it takes.

    Raises:
        StoreError: when it cannot be written; what was there is unchanged.
    """
    try:
        with replacing(path) as (temporary,):
            write(temporary)
    except (OSError, SafetensorError) as error:
        raise unwritten(path, error, needed) from error


def unwritten(path: Path, error: Exception, needed: int) -> StoreError:
    """The error for a file that cannot be written."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return StoreError(
        f"cannot write {str(path)!r} ({reason}): about {needed:,} more bytes are needed there. "
        "What is complete is kept: make room, or mend what is in the way, and run the same "
        "command again, it goes on"
    )


def damaged_build(path: Path, reason: str) -> StoreError:
    """The error for an interrupted build that cannot go on."""
    return StoreError(
        f"{str(path)!r} is damaged: {reason}; what was begun there cannot go on. Discard it with "
        f"`unalike shield add {shlex.quote(str(path.parent))} --discard`, and begin again"
    )
