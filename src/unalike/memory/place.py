"""Look at the place of a memory's file, and refuse what is no place for one."""

from __future__ import annotations

import os
import stat
import threading
from collections import Counter
from enum import Enum
from pathlib import Path
from typing import Any

from unalike.errors import StoreError
from unalike.memory.mounts import network_type
from unalike.memory.schema import APPLICATION, VERSION

_MAGIC = b"SQLite format 3\0"
_HEADER = 100
_BESIDE = ("-wal", "-shm", "-journal")  # files that SQLite opens with a database

HELD: Counter[tuple[int, int] | None] = Counter()
"""How many connections this process has to a file. Such a file is not opened beside them: the
system would drop the locks that they hold when it is closed, and other processes damage it."""
LOCK = threading.RLock()
"""Held while connections are opened and closed, and while a file is opened otherwise."""


class Found(Enum):
    """What is at a path."""

    NOTHING = "nothing"
    DATABASE = "database"
    OTHER = "other"


def absolute(path: Any) -> Path:
    """The path from the root, so that changing the folder later changes nothing.

    Raises:
        StoreError: for what is no path.
    """
    try:
        given = os.fspath(path)
        if not given:
            raise ValueError("it is empty")
        found = Path(os.fsdecode(given)).absolute()
        if "\0" in str(found):
            raise ValueError("it has a NUL character")
        os.lstat(found.parent)
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"{path!r} is no path of a memory ({error}); give that of a file"
        ) from error
    except OSError as error:
        raise StoreError(
            f"cannot open {str(path)!r} ({error.strerror}); give a path in a folder that is there"
        ) from error
    return found


def look(path: Path) -> Found:
    """What is at a path; nothing is changed or followed.

    Raises:
        StoreError: for symbolic links, at the path or where SQLite keeps files beside it, for
            folders and devices, for databases of something else, and for those of a later release.
    """
    status = _status(path)
    for suffix in _BESIDE:
        _status(path.with_name(path.name + suffix))
    if status is None:
        return Found.NOTHING
    marks = _marks(path)
    if marks is None:
        return Found.OTHER
    application, version = marks
    if application != APPLICATION:
        raise StoreError(
            f"{str(path)!r} is an SQLite database of something else than a memory; give another "
            "path"
        )
    if version != VERSION:
        raise StoreError(
            f"the memory {str(path)!r} was written by another release (format {version}, and this "
            f"one reads {VERSION}); upgrade unalike"
        )
    return Found.DATABASE


def require_local(path: Path) -> None:
    """Refuse network file systems, where processes of several machines would damage a database.

    Raises:
        StoreError: with what to do in place of it.
    """
    kind = network_type(path)
    if kind is not None:
        raise StoreError(
            f"{str(path)!r} is on a network file system ({kind}), where a memory that several "
            "machines write to would be damaged; keep it on a local disk: one file for each "
            "worker, put together by `unalike memory merge OUT FILE…`, or one that workers share "
            "through Ray (`unalike run --ray`)"
        )


def identity(path: Path) -> tuple[int, int] | None:
    """Tells a file from any other that takes its place; None where there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _status(path: Path) -> os.stat_result | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    kind = status.st_mode
    if stat.S_ISREG(kind):
        return status
    what = (
        "a symbolic link, and what it leads to may not be yours"
        if stat.S_ISLNK(kind)
        else "a folder"
        if stat.S_ISDIR(kind)
        else "a pipe, socket or device"
    )
    raise StoreError(f"{str(path)!r} is {what}; a memory is a regular file: give its own path")


def _marks(path: Path) -> tuple[int, int] | None:
    """The application and the version that a database is marked with; None for another file."""
    with LOCK:
        if HELD[identity(path)]:
            return APPLICATION, VERSION
        try:
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            try:
                header = os.read(handle, _HEADER)
            finally:
                os.close(handle)
        except OSError as error:
            raise _unreadable(path, error) from error
    if not header.startswith(_MAGIC):
        return None
    return int.from_bytes(header[68:72], "big"), int.from_bytes(header[60:64], "big")


def _unreadable(path: Path, error: OSError | ValueError) -> StoreError:
    why = getattr(error, "strerror", None) or error
    return StoreError(
        f"cannot read {str(path)!r} ({why}); give the path of a file that you may read"
    )
