"""Make memories safe in processes that fork.

SQLite keeps locks of the system in a connection, which must not be carried over to a child. So
before a fork every connection is closed, with no other thread in a transaction; parent and child
each open one of their own when they next need it.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, Protocol

from unalike.memory.place import LOCK as FILES


class Forking(Protocol):
    """What has a lock and a connection."""

    @property
    def lock(self) -> Any:
        """Held while the connection is used."""
        ...

    def disconnect(self) -> None:
        """Close the connection until it is next used."""
        ...


_KNOWN: weakref.WeakSet[Forking] = weakref.WeakSet()
_LOCK = threading.RLock()
_HELD: list[Forking] = []


def guard(memory: Forking) -> None:
    """Close the connection of a memory before each fork, for as long as the memory lives."""
    with _LOCK:
        _KNOWN.add(memory)


def _before() -> None:
    _LOCK.acquire()
    for memory in list(_KNOWN):
        memory.lock.acquire()
        _HELD.append(memory)
        memory.disconnect()
    FILES.acquire()


def _after() -> None:
    FILES.release()
    while _HELD:
        _HELD.pop().lock.release()
    _LOCK.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
