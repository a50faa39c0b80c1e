"""The file of a memory: an SQLite database that several processes may use at once."""

from __future__ import annotations

import errno
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote_from_bytes

from unalike.errors import StoreError
from unalike.memory import schema
from unalike.memory.mounts import network_type
from unalike.memory.place import HELD, LOCK, Found, absolute, identity, look, require_local
from unalike.memory.rows import Rows

BUSY_SECONDS = 60
Held = tuple[sqlite3.Connection, tuple[int, int] | None]
_FULL, _FAILED = 13, 10  # SQLite's primary result codes
_LOG = "-wal"
_BUSY, _READ_ONLY, _UNOPENED = (5, 6), (3, 8), (14,)


class Database:
    """An open database; `Database.open` makes it.

    Attributes:
        path: of the file, from the root.
        writable: whether it may be written.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = path
        self.writable = writable
        self._held: list[Held] = []
        self._identity = identity(path)
        self._name: str | None = None
        self._seen = -1
        self._closed = False
        weakref.finalize(self, _close, self._held)

    @classmethod
    def open(cls, path: str | Path, *, read_only: bool = False) -> Self:
        """Open the database at a path.

        Args:
            path: of a file that `look` finds to be a database.
            read_only: whether it is only read. Then it may be on a network file system, where
                nothing may write to it meanwhile.

        Raises:
            StoreError: where there is none, it is damaged, or it is no place for one.
        """
        place = absolute(path)
        if look(place) is not Found.DATABASE:
            raise StoreError(f"there is no memory at {str(place)!r}; check the path")
        if not read_only:
            require_local(place)
        database = cls(place, writable=not read_only)
        with database.reading():
            pass
        return database

    def close(self) -> None:
        """Close it for good."""
        self._closed = True
        self.disconnect()

    def disconnect(self) -> None:
        """Close it until it is next used, as before the process forks."""
        _close(self._held)

    def changed(self) -> bool:
        """Whether another process committed something since the last call, or may have."""
        with _mapped(self.path):
            seen = self._connection().execute("PRAGMA data_version").fetchone()[0]
        self._seen, before = seen, self._seen
        return seen != before

    @contextmanager
    def reading(self) -> Iterator[Rows]:
        """The rows as they are at one moment.

        Raises:
            StoreError: when the file cannot be read, is damaged, or is not where it was.
        """
        with self._transaction("BEGIN") as rows:
            yield rows

    @contextmanager
    def writing(self) -> Iterator[Rows]:
        """The rows, to be changed; on the disk at the end of the block, or as before.

        Raises:
            StoreError: when the file cannot be written, is damaged, is not where it was, or
                another process writes for longer than a minute.
        """
        if not self.writable:
            raise _unwritable(self.path)
        with self._transaction("BEGIN IMMEDIATE") as rows:
            yield rows

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Rows]:
        with _mapped(self.path):
            connection = self._connection()
            connection.execute(begin)
            try:
                yield Rows(connection)
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                raise

    def _connection(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreError(
                f"the memory {str(self.path)!r} is closed; open it again with Memory.open"
            )
        if identity(self.path) != self._identity:
            raise StoreError(
                f"the file {str(self.path)!r} was moved, deleted or replaced after this memory was "
                "opened; open it again"
            )
        if not self._held:
            self._connect()
        return self._held[0][0]

    def _connect(self) -> None:
        unfinished = self._has_unfinished_log()
        if not unfinished and self.path.stat().st_size % schema.PAGE_BYTES:
            raise StoreError(
                f"the memory {str(self.path)!r} is damaged: its end is missing; use a backup"
            )
        if self.writable or network_type(self.path) is None:
            try:
                self._use("rw")
                return
            except sqlite3.OperationalError as error:
                if _code(error) not in (*_READ_ONLY, *_UNOPENED):
                    raise
        # a folder where nothing can be written: SQLite cannot make the files beside the database
        if unfinished:
            raise StoreError(
                f"{str(self.path)!r} cannot be opened for writing, and its newest samples are "
                f"still in {self.path.name + _LOG!r}; copy both files to a local folder that you "
                "may write to"
            )
        self.writable = False
        self._use("ro&immutable=1")

    def _has_unfinished_log(self) -> bool:
        """Whether some of what the file has is still in SQLite's log beside it."""
        beside = self.path.with_name(self.path.name + _LOG)
        with suppress(FileNotFoundError):
            return beside.stat().st_size > 0
        return False

    def _use(self, mode: str) -> None:
        with LOCK:
            connection = _connected(self.path, mode)
            HELD[self._identity] += 1
            self._held.append((connection, self._identity))
        try:
            if not schema.fits(connection):
                raise StoreError(
                    f"{str(self.path)!r} is damaged or not a memory (it has other tables); use a "
                    "backup"
                )
            name = Rows(connection).header().name
            if identity(self.path) != self._identity or self._name not in (None, name):
                raise StoreError(f"the file {str(self.path)!r} was replaced; open it again")
        except BaseException:
            self.disconnect()
            raise
        self._name, self._seen = name, -1


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    """A new connection with the settings of every memory."""
    connection = sqlite3.connect(
        f"file:{quote_from_bytes(bytes(path))}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA synchronous = FULL")
        (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
        if mode == "rw" and journal != "wal":
            connection.execute("PRAGMA journal_mode = WAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _close(held: list[Held]) -> None:
    with LOCK:
        while held:
            connection, file = held.pop()
            with suppress(sqlite3.Error):
                connection.close()
            HELD[file] -= 1


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into sentences, and add the path to those of its rows."""
    try:
        yield
    except sqlite3.Error as error:
        raise failure(path, error) from _system_error(error)
    except StoreError as error:
        text = str(error)
        if not text.startswith("the memory is damaged"):
            raise
        raise StoreError(text.replace("memory", f"memory {str(path)!r}", 1)) from error


def failure(path: Path, error: sqlite3.Error) -> StoreError:
    """The sentence for an error of SQLite at a path."""
    code, name = _code(error), str(path)
    if code in (_FULL, _FAILED):
        return StoreError(
            f"cannot write the memory {name!r} ({error}); nothing of the batch was added. Make "
            "room on its disk, and go on"
        )
    if code in _BUSY:
        return StoreError(
            f"the memory {name!r} was in use by another process for {BUSY_SECONDS} seconds; wait "
            "until that one is done, or give this one a memory of its own"
        )
    if code in (*_READ_ONLY, *_UNOPENED):
        return _unwritable(path)
    return StoreError(f"the memory {name!r} is damaged ({error}); use a backup")


def _unwritable(path: Path) -> StoreError:
    return StoreError(
        f"the memory {str(path)!r} may only be read; give yourself the right to write to the file "
        "and its folder, or copy it to another place"
    )


def _system_error(error: sqlite3.Error) -> Exception:
    """The error of the system behind one of SQLite, where it is one of the disk."""
    number = {_FULL: errno.ENOSPC, _FAILED: errno.EIO}.get(_code(error))
    if number is None:
        return error
    found = OSError(number, str(error))
    found.__cause__ = error
    return found
