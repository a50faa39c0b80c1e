"""The tables of a memory's file: an SQLite database, version 1.

- `memory`: one row: capacity, precision, the name of this file, and a number that rises whenever
  samples are removed or the capacity changes.
- `spaces`: a row a space: its name, the shape of its latents, the size of its prompt embeddings,
  and how many samples there are.
- `samples`: a row a sample: space, text, seed, item, run, time, checksum. Ids rise and are never
  used again.
- `vectors`: latent and prompt embedding of a sample, little-endian; apart, so that search and lists
  need not read them.
- `thumbnails`: WebP images of some samples.
"""

from __future__ import annotations

import sqlite3
from functools import cache

APPLICATION = 0x756E616C  # "unal", as `file` shows it
VERSION = 1
PAGE_BYTES = 8192

STATEMENTS = (
    "CREATE TABLE memory (capacity INTEGER NOT NULL, dtype TEXT NOT NULL, name TEXT NOT NULL, "
    "epoch INTEGER NOT NULL)",
    "CREATE TABLE spaces (id INTEGER PRIMARY KEY, name TEXT NOT NULL, shape TEXT NOT NULL, "
    "prompt_size INTEGER NOT NULL, samples INTEGER NOT NULL DEFAULT 0, "
    "UNIQUE (name, shape, prompt_size))",
    "CREATE TABLE samples (id INTEGER PRIMARY KEY AUTOINCREMENT, space INTEGER NOT NULL, "
    "text TEXT, seed, item TEXT NOT NULL UNIQUE, run TEXT, created REAL NOT NULL, "
    "checksum INTEGER NOT NULL)",
    "CREATE TABLE vectors (id INTEGER PRIMARY KEY, latent BLOB NOT NULL, prompt BLOB NOT NULL)",
    "CREATE TABLE thumbnails (id INTEGER PRIMARY KEY, image BLOB NOT NULL)",
    "CREATE TRIGGER sample_added AFTER INSERT ON samples BEGIN "
    "UPDATE spaces SET samples = samples + 1 WHERE id = NEW.space; END",
    "CREATE TRIGGER sample_removed AFTER DELETE ON samples BEGIN "
    "UPDATE spaces SET samples = samples - 1 WHERE id = OLD.space; "
    "DELETE FROM vectors WHERE id = OLD.id; DELETE FROM thumbnails WHERE id = OLD.id; END",
)


def begin(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty database, and mark it as a memory."""
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    for statement in STATEMENTS:
        connection.execute(statement)


def fits(connection: sqlite3.Connection) -> bool:
    """Whether a database has these tables and triggers and no others."""
    return _described(connection) == _expected()


@cache
def _expected() -> frozenset[tuple[str, str, str | None]]:
    connection = sqlite3.connect(":memory:")
    try:
        begin(connection)
        return _described(connection)
    finally:
        connection.close()


def _described(connection: sqlite3.Connection) -> frozenset[tuple[str, str, str | None]]:
    return frozenset(connection.execute("SELECT type, name, sql FROM sqlite_master"))
