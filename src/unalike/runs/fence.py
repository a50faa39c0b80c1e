"""A lock that the processes which write to the memory of a run hold while they live.

When the process of a run is killed, its workers end a moment later. A process that goes on with the
run waits for them, so that none adds a batch after the run has taken stock.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from unalike.errors import StoreError, named

try:
    import fcntl
except ImportError:  # Windows, where a run has one worker
    fcntl = None

WRITERS = ".writers.lock"
"""The file of the lock, in the output folder."""
_PATIENCE = 120.0


def hold_lock(folder: Path) -> int | None:
    """Hold the lock of a run until this process ends.

    Args:
        folder: the output folder.

    Returns:
        The open file; None where the system has no such locks.
    """
    if fcntl is None:
        return None
    handle = _opened(folder)
    fcntl.flock(handle, fcntl.LOCK_SH)
    return handle


def require_no_writers(folder: Path, patience: float = _PATIENCE) -> None:
    """Wait until no process holds the lock.

    Args:
        folder: the output folder.
        patience: seconds.

    Raises:
        StoreError: where one still does after that.
    """
    if fcntl is None or not (folder / WRITERS).exists():
        return
    handle, end = _opened(folder), time.monotonic() + patience
    try:
        while not _free(handle):
            if time.monotonic() > end:
                raise StoreError(
                    named(
                        "workers of an earlier process still draw into {!r}; end them, or choose "
                        "another folder, as in {out=DIR}",
                        str(folder),
                    )
                )
            time.sleep(0.1)
    finally:
        os.close(handle)


def remove_lock(folder: Path) -> None:
    """Remove the file of the lock at the end of a run."""
    (folder / WRITERS).unlink(missing_ok=True)


def _opened(folder: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    return os.open(folder / WRITERS, flags, 0o600)


def _free(handle: int) -> bool:
    assert fcntl is not None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
