"""The ledger of a run: an SQLite file in the output folder that knows which images are done.

The order of a batch makes every kill repeatable:

1. the files of its images are written, synchronised and renamed;
2. its rows are in the memory, marked with the run and the items;
3. its rows are in the ledger, all or none.

What a kill leaves of 1 is overwritten, and what it leaves of 2 is removed before the batch is drawn
again.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from unalike.errors import StoreError, named
from unalike.files import replacing
from unalike.runs.folder import LEDGER
from unalike.runs.plain import from_plain
from unalike.runs.samples import Planned, Sample

ITEMS = "prompts and seeds"
"""The setting that stands for the items of a run."""
FINISHED, REFUSED, FAILED = "finished", "refused", "failed"
_APPLICATION = 0x756E6C6C  # "unll", told from other SQLite files by it
_VERSION = 1
_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE items (
    item TEXT PRIMARY KEY,
    number INTEGER NOT NULL UNIQUE,
    state TEXT NOT NULL,
    prompt_index INTEGER NOT NULL,
    sample TEXT,
    features BLOB,
    unguided_features BLOB,
    latent BLOB,
    error TEXT,
    tries INTEGER NOT NULL,
    time REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX by_prompt ON items (prompt_index, number);
"""
_COLUMNS = (
    "item",
    "number",
    "state",
    "prompt_index",
    "sample",
    "features",
    "unguided_features",
    "latent",
    "error",
    "tries",
    "time",
)


@dataclass(frozen=True)
class Entry:
    """A finished image as the ledger keeps it.

    Attributes:
        sample: its place, its file, and how it was made.
        features: its `pixel_features`; None where it was refused.
        unguided_features: those of the unguided image, if it was drawn.
        latent: its final latent, with a protected set.
    """

    sample: Sample
    features: Tensor | None = None
    unguided_features: Tensor | None = None
    latent: Tensor | None = None


@dataclass(frozen=True)
class Failure:
    """An image that could not be drawn: its place, the error, and how often it was tried."""

    item: str
    number: int
    error: str
    tries: int


class Ledger:
    """The items of a run that are done; made by `create` or `open`.

    One process at a time writes it. Reading is possible meanwhile.

    Attributes:
        path: of the file.
        run: identifies the run, also in the memory.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, run: str) -> None:
        self.path = path
        self.run = run
        self._db = connection

    @classmethod
    def create(
        cls, path: Path, settings: Mapping[str, Any], record: Mapping[str, Any], about: Any = None
    ) -> Self:
        """Make the ledger of a new run, whole or not at all.

        Args:
            path: of the file.
            settings: what the run depends on, which `require_same` compares.
            record: of the run as it begins, for later processes.
            about: what the files of all images say, in plain values.

        Raises:
            StoreError: where it cannot be written.
        """
        values = {
            "run": secrets.token_hex(8),
            "settings": dict(settings),
            "record": dict(record),
            "about": about,
            "seconds": 0.0,
        }
        if os.path.lexists(path):
            raise StoreError(
                named(
                    "there is a run in {!r}; go on with it, or choose another folder, as in "
                    "{out=DIR}",
                    str(path.parent),
                )
            )
        with _telling(path, "written"), replacing(path) as (partial,):
            db = _connect(partial)
            db.executescript(_TABLES)
            with _transaction(db):
                for name, value in values.items():
                    _put(db, name, value)
                db.execute(f"PRAGMA application_id = {_APPLICATION}")
                db.execute(f"PRAGMA user_version = {_VERSION}")
            db.close()
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the ledger of an earlier run.

        Raises:
            StoreError: where there is none, it is damaged, or it is something else.
        """
        if path.is_symlink() or not path.is_file():
            raise StoreError(
                named(
                    "there is no run to go on with in {!r}: it has no {}; leave {resume} out",
                    str(path.parent),
                    LEDGER,
                )
            )
        with _telling(path, "read"):
            db = _connect(path)
            if db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
                raise StoreError(f"{str(path)!r} is no ledger of a run; choose another folder")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version != _VERSION:
                raise StoreError(
                    f"the ledger {str(path)!r} has version {version}, and this unalike reads "
                    f"version {_VERSION}; go on with the version that began the run"
                )
            return cls(path, db, _get(db, "run"))

    def require_same(self, settings: Mapping[str, Any]) -> None:
        """Make sure that the run was begun with these settings.

        Raises:
            StoreError: where it was not; the message has both values of each.
        """
        earlier = _get(self._db, "settings")
        now = json.loads(json.dumps(dict(settings)))
        names = [n for n in dict.fromkeys([*earlier, *now]) if earlier.get(n) != now.get(n)]
        if len(names) > 1:  # items differ by any setting
            names = [name for name in names if name != ITEMS]
        different = [
            f"{name} was {_short(earlier.get(name))} and is {_short(now.get(name))}"
            for name in names
        ]
        if different:
            raise StoreError(
                named(
                    "the run in {!r} was begun with other settings: {}; give the same to go on "
                    "with it, or choose another folder, as in {out=DIR}",
                    str(self.path.parent),
                    "; ".join(different),
                )
            )

    def commit(self, entries: Sequence[Entry], carried: bytes | None = None, **values: Any) -> None:
        """Add the images of a batch, all or none.

        Args:
            entries: the images.
            carried: what the guidance stored for the next batch, see `GuidedPipeline.carried`.
            **values: plain values of the run, as `put` keeps them.

        Raises:
            StoreError: where they cannot be written; nothing is then.
        """
        with _telling(self.path, "written"), _transaction(self._db):
            for entry in entries:
                self._db.execute(
                    "INSERT OR REPLACE INTO items VALUES (?,?,?,?,?,?,?,?,?,?,?)", _row(entry)
                )
            if carried:
                _put_bytes(self._db, "carried", carried)
            for name, value in values.items():
                _put(self._db, name, value)

    def fail(self, batch: Sequence[Planned], error: str) -> None:
        """Note that images could not be drawn, and once more how often they were tried."""
        with _telling(self.path, "written"), _transaction(self._db):
            for planned in batch:
                self._db.execute(
                    "INSERT INTO items (item, number, state, prompt_index, error, tries, time) "
                    "VALUES (?,?,?,?,?,1,?) ON CONFLICT (item) DO UPDATE SET "
                    "error = excluded.error, tries = tries + 1, time = excluded.time "
                    "WHERE state = 'failed'",
                    (planned.item, planned.index, FAILED, planned.prompt_index, error, time.time()),
                )

    def take(self, other: Ledger, items: set[str], shards: Mapping[str, str]) -> None:
        """Add finished and refused images of another ledger, all or none.

        Args:
            other: the ledger of a part of this run.
            items: of the images.
            shards: the names of that part's WebDataset shards → those in this run.
        """
        query = f"SELECT {', '.join(_COLUMNS)} FROM items WHERE state != ?"
        with _telling(self.path, "written"), _transaction(self._db):
            for row in other._db.execute(query, (FAILED,)):
                values = dict(zip(_COLUMNS, row, strict=True))
                if values["item"] not in items:
                    continue
                values["sample"] = _moved(values["sample"], shards)
                self._db.execute(
                    f"INSERT OR REPLACE INTO items ({', '.join(_COLUMNS)}) "
                    f"VALUES ({', '.join('?' * len(_COLUMNS))})",
                    tuple(values.values()),
                )
            if shards:
                first = (_get(self._db, "output") or (0, 0))[0]
                _put(self._db, "output", (first + len(shards), 0))

    def done(self) -> set[str]:
        """The items that are finished or refused."""
        rows = self._db.execute("SELECT item FROM items WHERE state != ?", (FAILED,))
        return {item for (item,) in rows}

    def failures(self) -> list[Failure]:
        """The images that could not be drawn, in the order of the run."""
        rows = self._db.execute(
            "SELECT item, number, error, tries FROM items WHERE state = ? ORDER BY number",
            (FAILED,),
        )
        return [Failure(*row) for row in rows]

    def samples(self) -> Iterator[Sample]:
        """The finished and refused images, in the order of the run."""
        rows = self._db.execute(
            "SELECT sample FROM items WHERE state != ? ORDER BY number", (FAILED,)
        )
        return (from_plain(Sample, json.loads(text)) for (text,) in rows)

    def features(self, *, unguided: bool = False) -> Iterator[tuple[str, list[Tensor]]]:
        """The prompt and the features of the returned images of each prompt, prompt by prompt."""
        column = "unguided_features" if unguided else "features"
        rows = self._db.execute(
            f"SELECT prompt_index, json_extract(sample, '$.planned.prompt'), {column} FROM items "
            f"WHERE state = ? AND {column} IS NOT NULL ORDER BY prompt_index, number",
            (FINISHED,),
        )
        last, prompt, found = None, "", []
        for index, text, blob in rows:
            if found and index != last:
                yield prompt, found
                found = []
            last, prompt = index, text
            found.append(_floats(blob))
        if found:
            yield prompt, found

    def latents(self) -> tuple[list[int], Tensor | None]:
        """The numbers of the returned images and their final latents (n, …); None without any."""
        rows = self._db.execute(
            "SELECT number, latent FROM items WHERE state = ? AND latent IS NOT NULL "
            "ORDER BY number",
            (FINISHED,),
        ).fetchall()
        if not rows:
            return [], None
        return [number for number, _ in rows], torch.stack([_tensor(blob) for _, blob in rows])

    @property
    def carried(self) -> bytes | None:
        """What the guidance stored at the end of the last batch."""
        row = self._db.execute("SELECT value FROM meta WHERE name = 'carried'").fetchone()
        return None if row is None else row[0]

    def get(self, name: str) -> Any:
        """A value of the run that was `put`; None for none."""
        return _get(self._db, name)

    def put(self, **values: Any) -> None:
        """Keep plain values of the run."""
        with _telling(self.path, "written"), _transaction(self._db):
            for name, value in values.items():
                _put(self._db, name, value)

    def close(self) -> None:
        """Close the file; SQLite then removes the two beside it."""
        self._db.close()


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextmanager
def _telling(path: Path, done: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(
            f"the ledger {str(path)!r} cannot be {done}: {error}; the images that are finished "
            "are kept, and the same command goes on with them"
        ) from error


def _row(entry: Entry) -> tuple[Any, ...]:
    sample = entry.sample
    return (
        sample.planned.item,
        sample.planned.index,
        FINISHED if sample.image else REFUSED,
        sample.planned.prompt_index,
        json.dumps(asdict(sample), ensure_ascii=False),
        _bytes(entry.features),
        _bytes(entry.unguided_features),
        None if entry.latent is None else _with_shape(entry.latent),
        None,
        1,
        time.time(),
    )


def _moved(sample: str, shards: Mapping[str, str]) -> str:
    """A sample as text, with the new name of the shard that its image is in."""
    plain = json.loads(sample)
    image = plain.get("image")
    if shards and image:
        place = Path(image["path"])
        name, mark, member = place.name.partition("#")
        image["path"] = f"{place.parent}/{shards[name]}{mark}{member}"
    return json.dumps(plain, ensure_ascii=False)


def _bytes(values: Tensor | None) -> bytes | None:
    return None if values is None else values.float().contiguous().numpy().tobytes()


def _floats(blob: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(blob, np.float32).copy())


def _with_shape(latent: Tensor) -> bytes:
    from safetensors.torch import save

    return save({"latent": latent.contiguous()})


def _tensor(blob: bytes) -> Tensor:
    from safetensors.torch import load

    return load(blob)["latent"]


def _put(db: sqlite3.Connection, name: str, value: Any) -> None:
    _put_bytes(db, name, json.dumps(value, ensure_ascii=False).encode())


def _put_bytes(db: sqlite3.Connection, name: str, value: bytes) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def _get(db: sqlite3.Connection, name: str) -> Any:
    row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else json.loads(row[0])


def _short(value: Any, most: int = 100) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else f"{text[: most - 1]}…"
