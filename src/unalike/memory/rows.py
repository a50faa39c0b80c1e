"""Read and write the rows of a memory's tables, within a transaction of the caller."""

from __future__ import annotations

import json
import math
import sqlite3
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unalike.errors import StoreError
from unalike.memory.labels import Label
from unalike.memory.samples import DTYPES, Batch

_CHUNK_ROWS = 256
_CHUNK_BYTES = 1 << 20  # stays in a processor's cache
_LARGEST_INTEGER = 2**63 - 1
_LABELS = "s.text, s.seed, s.item, s.run, s.created"


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        capacity, dtype: as of `Memory`.
        name: of this file, unlike that of any other.
        epoch: rises whenever samples are removed or the capacity changes.
    """

    capacity: int
    dtype: str
    name: str
    epoch: int


@dataclass(frozen=True)
class SpaceRow:
    """A space of a file.

    Attributes:
        id: its key in the file.
        name: as of `Memory.spaces`.
        shape: of one latent.
        prompt_size: of the embeddings of prompts; 0 without any.
        samples: how many the file has, those beyond the capacity included.
    """

    id: int
    name: str
    shape: tuple[int, ...]
    prompt_size: int
    samples: int


class Rows:
    """The rows of one open database.

    Args:
        connection: of the caller, who begins and ends its transactions.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._run = connection.execute

    def begin(self, capacity: int, dtype: str) -> None:
        """Write the header of a new file."""
        values = (capacity, dtype, uuid.uuid4().hex)
        self._run("INSERT INTO memory VALUES (?, ?, ?, 0)", values)

    def header(self) -> Header:
        """What the file says of itself.

        Raises:
            StoreError: where that is not one row of allowed values.
        """
        found = self._run("SELECT capacity, dtype, name, epoch FROM memory").fetchall()
        if len(found) == 1:
            header = Header(*found[0])
            sound = type(header.capacity) is int and header.capacity > 0
            if sound and header.dtype in DTYPES and type(header.epoch) is int:
                return header
        raise StoreError(f"the memory is damaged: its header is {found!r}; use a backup")

    def change(self, capacity: int, dtype: str) -> None:
        """Set capacity and precision, and tell other processes to read everything again."""
        self._run("UPDATE memory SET capacity = ?, dtype = ?, epoch = epoch + 1", (capacity, dtype))

    def spaces(self) -> list[SpaceRow]:
        """The spaces that have samples.

        Raises:
            StoreError: for a shape that is none.
        """
        found = self._run("SELECT id, name, shape, prompt_size, samples FROM spaces").fetchall()
        rows = [SpaceRow(key, name, _shape(shape), p, n) for key, name, shape, p, n in found]
        return [row for row in rows if row.samples > 0]

    def count(self) -> int:
        """The number of samples in the file, those beyond the capacity included."""
        return self._run("SELECT coalesce(sum(samples), 0) FROM spaces").fetchone()[0]

    def pushed_out(self) -> int:
        """The highest id of the samples beyond the capacity; 0 where there are none."""
        excess = self.count() - self.header().capacity
        query = "SELECT id FROM samples ORDER BY id LIMIT 1 OFFSET ?"
        return self._run(query, (excess - 1,)).fetchone()[0] if excess > 0 else 0

    def last(self) -> int:
        """The highest id that a sample ever had."""
        found = self._run("SELECT seq FROM sqlite_sequence WHERE name = 'samples'").fetchone()
        return 0 if found is None else found[0]

    def insert(self, batch: Batch, ids: Iterable[int] | None = None) -> list[int]:
        """Add samples, and return their ids; one with the item of an older row replaces that.

        Args:
            batch: what is added.
            ids: of the samples, which no row has; None to count on.
        """
        space = self._space_of(batch)
        found = []
        wanted = [None] * len(batch) if ids is None else ids
        for key, (label, latent, prompt) in zip(wanted, batch.rows(), strict=True):
            if ids is None:
                self._run("DELETE FROM samples WHERE item = ?", (label.item,))
            seed = _stored_seed(label.seed)
            check = checksum(batch.space, label, latent, prompt)
            row = (key, space, label.text, seed, *label[2:], check)
            added = self._run("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row).lastrowid
            assert added is not None
            self._run("INSERT INTO vectors VALUES (?, ?, ?)", (added, latent, prompt))
            found.append(added)
        return found

    def batches(
        self, dtype: str, *, after: int = 0, by_time: bool = False
    ) -> Iterator[tuple[Batch, Tensor]]:
        """The samples, oldest first, in batches of one space each; with their ids (n,).

        Args:
            dtype: of the file.
            after: only samples with higher ids.
            by_time: in the order of time in place of that of ids.

        Raises:
            StoreError: for a sample that does not fit its checksum or its space.
        """
        spaces = {row.id: row for row in self.spaces()}
        order = "s.created, s.id" if by_time else "s.id"
        cursor = self._run(
            f"SELECT s.id, s.space, {_LABELS}, s.checksum, v.latent, v.prompt FROM samples s "
            f"LEFT JOIN vectors v ON v.id = s.id WHERE s.id > ? ORDER BY {order}",
            (after,),
        )
        chunk: list[Any] = []
        most = _CHUNK_ROWS
        for row in cursor:
            if chunk and (len(chunk) >= most or row[1] != chunk[0][1]):
                yield _batch(chunk, spaces, dtype)
                chunk = []
            chunk.append(row)
            most = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // max(1, len(row[8] or b""))))
        if chunk:
            yield _batch(chunk, spaces, dtype)

    def labels(
        self, *, after: int = 0, newest_first: bool = False
    ) -> Iterator[tuple[int, str, Label]]:
        """The id, the space and the label of each sample with a higher id, without its numbers."""
        spaces = {row.id: row.name for row in self.spaces()}
        order = "DESC" if newest_first else "ASC"
        query = (
            f"SELECT s.id, s.space, {_LABELS} FROM samples s WHERE s.id > ? ORDER BY s.id {order}"
        )
        for key, space, *label in self._run(query, (after,)):
            yield key, spaces[space], _label(label)

    def remove(self, ids: Iterable[int]) -> int:
        """Delete samples, and tell other processes to read everything again."""
        count = 0
        for key in ids:
            count += self._run("DELETE FROM samples WHERE id = ?", (key,)).rowcount
        if count:
            self._run("UPDATE memory SET epoch = epoch + 1")
        return count

    def drop_oldest(self, count: int) -> None:
        """Delete the oldest samples, which other processes no longer hold."""
        self._run(
            "DELETE FROM samples WHERE id IN (SELECT id FROM samples ORDER BY id LIMIT ?)", (count,)
        )

    def clear(self) -> None:
        """Delete all samples."""
        self._run("DELETE FROM samples")

    def add_thumbnail(self, item: str, image: bytes) -> int:
        """Keep the thumbnail of a sample; 0 where there is no such sample, else 1."""
        query = "INSERT OR REPLACE INTO thumbnails SELECT id, ? FROM samples WHERE item = ?"
        return self._run(query, (image, item)).rowcount

    def thumbnail(self, key: int) -> bytes | None:
        """The thumbnail of the sample with this id; None where it has none."""
        found = self._run("SELECT image FROM thumbnails WHERE id = ?", (key,)).fetchone()
        return None if found is None else found[0]

    def thumbnails(self) -> int:
        """The number of samples that have a thumbnail."""
        return self._run("SELECT count(*) FROM thumbnails").fetchone()[0]

    def all_thumbnails(self) -> Iterator[tuple[str, bytes]]:
        """The thumbnails with the items of their samples."""
        yield from self._run(
            "SELECT s.item, t.image FROM thumbnails t JOIN samples s ON s.id = t.id"
        )

    def faults(self) -> list[str]:
        """What SQLite finds wrong with the file; reads all of it."""
        return [text for (text,) in self._run("PRAGMA integrity_check(10)") if text != "ok"]

    def _space_of(self, batch: Batch) -> int:
        known = (batch.space, json.dumps(list(batch.shape)), batch.prompts.shape[1])
        self._run("INSERT OR IGNORE INTO spaces (name, shape, prompt_size) VALUES (?, ?, ?)", known)
        query = "SELECT id FROM spaces WHERE name = ? AND shape = ? AND prompt_size = ?"
        return self._run(query, known).fetchone()[0]


def checksum(space: str, label: Label, latent: bytes, prompt: bytes) -> int:
    """A checksum of everything that a file has of a sample but its id."""
    text, seed, item, run, created = label
    absent = f"{text is None} {run is None}"
    known = "\0".join((space, item, text or "", run or "", f"{seed} {created!r} {absent}"))
    return zlib.crc32(known.encode(), zlib.crc32(prompt, zlib.crc32(latent)))


def _stored_seed(seed: int | None) -> int | str | None:
    """A seed as SQLite can hold it: in digits where it is too long for its integers."""
    return seed if seed is None or abs(seed) <= _LARGEST_INTEGER else str(seed)


def _label(values: Sequence[Any]) -> Label:
    text, seed, item, run, created = values
    return Label(text, None if seed is None else int(seed), item, run, created)


def _shape(text: Any) -> tuple[int, ...]:
    try:
        found = json.loads(text)
        if isinstance(found, list) and all(type(n) is int and n > 0 for n in found):
            return tuple(found)
    except (TypeError, ValueError, RecursionError):
        pass
    raise StoreError(f"the memory is damaged: it has a space of shape {text!r}; use a backup")


def _batch(chunk: Sequence[Any], spaces: dict[int, SpaceRow], dtype: str) -> tuple[Batch, Tensor]:
    """A batch of rows of one space, each compared with its checksum."""
    keys = [row[0] for row in chunk]
    try:
        space = spaces[chunk[0][1]]
        labels = [_label(row[2:7]) for row in chunk]
        for key, label, row in zip(keys, labels, chunk, strict=True):
            if checksum(space.name, label, row[8], row[9]) != row[7]:
                raise ValueError(f"sample {key} does not fit its checksum")
        latents = _tensor([row[8] for row in chunk], math.prod(space.shape), dtype)
        prompts = _tensor([row[9] for row in chunk], space.prompt_size, dtype)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"the memory is damaged: samples {keys[0]} to {keys[-1]} cannot be read ({error}); "
            "use a backup"
        ) from error
    return Batch(space.name, space.shape, latents, prompts, labels), torch.tensor(keys)


def _tensor(rows: Sequence[bytes], size: int, dtype: str) -> Tensor:
    kind = DTYPES[dtype]
    width = size * kind.itemsize
    if any(len(row) != width for row in rows):
        raise ValueError(f"its numbers are not {size} in {dtype}")
    if not width:
        return torch.zeros(len(rows), 0, dtype=kind)
    data = bytearray(len(rows) * width)
    for i, row in enumerate(rows):
        data[i * width : (i + 1) * width] = row
    found = torch.frombuffer(data, dtype=kind).view(len(rows), size)
    least, most = found.aminmax()
    if not (least.isfinite() and most.isfinite()):
        raise ValueError("NaN or infinity")
    return found
