"""Make the file of a memory, whole or not at all, and turn an old one into a database."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from torch import Tensor

from unalike.errors import StoreError
from unalike.files import sync_folder
from unalike.memory import legacy, schema
from unalike.memory.database import failure
from unalike.memory.place import HELD, LOCK, Found, identity, look, require_local
from unalike.memory.rows import Rows
from unalike.memory.samples import Batch

try:
    import fcntl
except ImportError:  # Windows, where one process at a time may turn an old file into a database
    fcntl = None

BACKUP = ".safetensors-backup"
Contents = Iterable[tuple[Batch, Tensor]]
Thumbnails = Iterable[tuple[str, bytes]]


def create(path: Path, capacity: int, dtype: str) -> bool:
    """Make an empty memory, readable and writable for its owner alone.

    Returns:
        Whether it was made; False where another process made one first.

    Raises:
        StoreError: when it cannot be written.
    """
    with _building(path) as (temporary, rows):
        rows.begin(capacity, dtype)
    with _cleaned(path, temporary):
        return _placed_new(temporary, path)


def write_copy(
    path: Path,
    capacity: int,
    dtype: str,
    contents: Contents,
    thumbnails: Thumbnails = (),
    *,
    replace: bool = True,
) -> None:
    """Write a new database of these samples, in place of the file that is there or not at all.

    Args:
        path: the file; one that is there keeps its mode, and must not be an open database.
        capacity, dtype: of the memory.
        contents: samples with their ids.
        thumbnails: images of some of them, by their items.
        replace: whether to replace a file that is there; else it is an error.

    Raises:
        StoreError: when it cannot be written.
    """
    with _building(path) as (temporary, rows):
        rows.begin(capacity, dtype)
        for batch, ids in contents:
            rows.insert(batch, ids.tolist())
        for item, image in thumbnails:
            rows.add_thumbnail(item, image)
    with _cleaned(path, temporary):
        if not replace:
            if not _placed_new(temporary, path):
                raise StoreError(f"{str(path)!r} is there already; give another path")
            return
        with suppress(FileNotFoundError):
            temporary.chmod(path.stat().st_mode & 0o777)
        temporary.replace(path)
        sync_folder(path.parent)


def migrate(path: Path) -> None:
    """Turn a memory of an earlier release into a database, and keep the old file beside it.

    Nothing happens where another process did it meanwhile.

    Raises:
        StoreError: when that cannot be done; the old file is as it was then.
    """
    require_local(path)
    with _locked(path):
        if look(path) is Found.DATABASE:
            return
        old = legacy.read(path)
        backup = path.with_name(path.name + BACKUP)
        if look(backup) is Found.NOTHING:
            with _cleaned(path, None):
                os.link(path, backup)
        elif identity(backup) != identity(path):
            raise StoreError(
                f"{str(backup)!r} is there already, where the memory of the earlier release would "
                "be kept; move it away"
            )
        write_copy(path, old.capacity, old.dtype, old.contents())


@contextmanager
def _building(path: Path) -> Iterator[tuple[Path, Rows]]:
    """A temporary file beside a path, and the rows of the new database in it, which is on the disk
    at the end.
    """
    temporary = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        with closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
            # nobody else sees it, and after any error it is thrown away
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute(f"PRAGMA page_size = {schema.PAGE_BYTES}")
            connection.execute("BEGIN")
            schema.begin(connection)
            yield temporary, Rows(connection)
            connection.execute("COMMIT")
            connection.execute("PRAGMA journal_mode = WAL")
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
    except BaseException as error:
        if temporary is not None:
            _discard(temporary)
        if isinstance(error, sqlite3.Error):
            raise failure(path, error) from error
        if isinstance(error, OSError):
            raise _unwritten(path, error) from error
        raise


@contextmanager
def _cleaned(path: Path, temporary: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unwritten(path, error) from error
    finally:
        if temporary is not None:
            _discard(temporary)


def _placed_new(temporary: Path, path: Path) -> bool:
    """Give the temporary file its name, unless something has that."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        if identity(path) is not None:
            return False
        temporary.replace(path)
    sync_folder(path.parent)
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold off other processes that would turn the same file into a database."""
    if fcntl is None:
        yield
        return
    with _cleaned(path, None), LOCK:
        if HELD[identity(path)]:  # a database by now, which must not be opened and closed here
            yield
            return
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _discard(temporary: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        with suppress(OSError):
            temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)


def _unwritten(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot write {str(path)!r} ({error.strerror}); what was there is unchanged. Give a path "
        "in a folder that you may write to, with room for the memory"
    )
