"""Record the progress of a build or an addition, one line of JSON a step."""

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
    """The journal file, open and locked for further lines.

    No other process on the same machine can open it meanwhile (Windows does not hold this).

    Args:
        file: appended to, locked.
        path: where it is.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path

    @classmethod
    def open(cls, folder: Path) -> tuple[Self, list[dict[str, Any]]]:
        """Open or create the journal of a folder, and read its entries.

        A last line that was cut off is removed.

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
        """Lock the journal of a folder without reading it."""
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
        """Write one more entry to the disk.

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
        """Close the file and leave it there."""
        self._file.close()

    def remove(self) -> None:
        """Remove the file, when the work is finished."""
        if sys.platform == "win32":
            # An open file cannot be removed there; elsewhere the lock is held to the end.
            self._file.close()
        self._path.unlink(missing_ok=True)
        self._file.close()


def read(folder: Path) -> list[dict[str, Any]] | None:
    """Read a folder's journal; None where nothing is going on or was interrupted."""
    path = folder / disk.JOURNAL
    return _entries(path)[0] if path.exists() else None


def _entries(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Read all complete lines, and the position where they end."""
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
