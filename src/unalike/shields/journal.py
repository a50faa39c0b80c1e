"""What is done of a build or an addition that is going on: one line of JSON for each step, in the
order in which they reached the disk.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import IO, Any, Self

from unalike.errors import StoreError
from unalike.files import parse_json, require_regular, sync_folder
from unalike.shields import disk

if sys.platform != "win32":
    import fcntl


class Journal:
    """The file, open for further lines. While it is open no other process on the same machine can
    open it (Windows does not hold this).

    Args:
        file: appended to, locked.
        path: where it is.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path

    @classmethod
    def open(cls, folder: Path) -> tuple[Self, list[dict[str, Any]]]:
        """The journal of a folder, made if it is not there, and its entries; a last line that was
        cut off is removed.

        Raises:
            StoreError: when another process has it open, it is damaged, or it cannot be written.
        """
        journal = cls.hold(folder)
        try:
            entries, length = _entries(journal._path)
            journal._file.truncate(length)
        except BaseException:
            journal.close()
            raise
        return journal, entries

    @classmethod
    def hold(cls, folder: Path) -> Self:
        """The journal of a folder, whatever is in it."""
        path = folder / disk.JOURNAL
        try:
            file = path.open("ab", buffering=0)
            sync_folder(folder)
        except OSError as error:
            raise disk.unwritten(path, error, 0) from error
        try:
            _lock(file, folder)
        except StoreError:
            file.close()
            raise
        return cls(file, path)

    def append(self, entry: dict[str, Any], needed: int) -> None:
        """Have one more entry on the disk.

        Args:
            entry: ready for JSON.
            needed: bytes that the rest of the work takes, for the message where there is no room.

        Raises:
            StoreError: when it cannot be written.
        """
        line = memoryview(json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        try:
            while line:
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise disk.unwritten(self._path, error, needed + len(line)) from error

    def close(self) -> None:
        """Let go of the file, which stays."""
        self._file.close()

    def remove(self) -> None:
        """Say that the work is finished."""
        if sys.platform == "win32":
            self._file.close()  # an open file cannot be removed there; elsewhere the lock is held to the end
        self._path.unlink(missing_ok=True)
        self._file.close()


def read(folder: Path) -> list[dict[str, Any]] | None:
    """The entries of a folder's journal; None where nothing is going on or was interrupted."""
    path = folder / disk.JOURNAL
    return _entries(path)[0] if path.exists() else None


def _entries(path: Path) -> tuple[list[dict[str, Any]], int]:
    """All complete lines, and where they end."""
    try:
        require_regular(path)
        data = path.read_bytes()
        length = data.rfind(b"\n") + 1
        entries = [parse_json(line.decode()) for line in data[:length].splitlines()]
    except (OSError, ValueError) as error:
        raise disk.damaged_build(path, str(error)) from error
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise disk.damaged_build(path, f"line {number} is no JSON object")
    if entries and not {"settings", "base"} <= entries[0].keys():
        raise disk.damaged_build(path, "line 1 does not say what was begun")
    return entries, length


def _lock(file: IO[bytes], folder: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise StoreError(
            f"another process is writing to {str(folder)!r}; wait until it is done, or end it"
        ) from error
