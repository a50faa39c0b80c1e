"""Read the rows of a memory's file without loading it whole, whatever release wrote it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from unalike.errors import StoreError
from unalike.memory import legacy, schema
from unalike.memory.database import Database
from unalike.memory.place import Found, absolute, look
from unalike.memory.rows import Rows


@contextmanager
def opened_rows(path: str | os.PathLike[str]) -> Iterator[Rows]:
    """The rows of a file as they are at one moment; the file stays as it is.

    Raises:
        StoreError: where there is no memory, or it is damaged.
    """
    place = absolute(path)
    found = look(place)
    if found is Found.NOTHING:
        raise StoreError(f"there is no memory at {str(place)!r}; check the path")
    if found is Found.DATABASE:
        with closing(Database.open(place, read_only=True)) as database, database.reading() as rows:
            yield rows
        return
    old = legacy.read(place)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema.begin(connection)
        rows = Rows(connection)
        rows.begin(old.capacity, old.dtype)
        for batch, ids in old.contents():
            rows.insert(batch, ids.tolist())
        yield rows
