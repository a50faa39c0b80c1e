"""Build a protected set on disk, or add to one; an interrupted build goes on."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from unalike.errors import OptionError, StoreError
from unalike.shields import disk
from unalike.shields.bounds import Index
from unalike.shields.claim import other_settings, require_free, tidy
from unalike.shields.indexing import build
from unalike.shields.journal import Journal
from unalike.shields.manifest import (
    KIND,
    VERSION,
    File,
    Manifest,
    Shard,
    require_radius,
    require_settings,
)
from unalike.shields.names import Names
from unalike.shields.rows import require_new, stored_rows
from unalike.shields.shardfile import SHARD_BYTES, ShardFile
from unalike.shields.store import base_of, read_index
from unalike.shields.vectors import Mapped

_SETTINGS = ("space", "shape", "dtype", "size", "embedding")


class Writer:
    """A build or an addition in progress; made by `begin` and `append`.

    What `add` was given is on the disk when it returns.

    Nothing that a finished set consists of is changed before `finish` puts a new manifest in place
    of the old one. As a context manager it lets go of the folder at the end, finished or not; after
    an error it is of no more use, and begun again it goes on.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path, names = Path(folder) / "protected", ["a.png", "copy of a.png", "b.png"]
        ...     with Writer.begin(path, space="model/2", shape=(2,)) as writer:
        ...         writer.add(torch.tensor([[0.0, 1.0], [0.0, 1.0], [3.0, 0.0]]), names)
        ...         manifest = writer.finish(radius=1.0)
        >>> manifest.count, manifest.radius
        (2, 1.0)
    """

    def __init__(
        self,
        folder: Path,
        journal: Journal,
        head: dict[str, Any],
        base: Manifest | None,
        shard_bytes: int,
    ) -> None:
        self.folder = folder
        self.expected: int | None = None
        self._journal = journal
        self._settings = head["settings"]
        self._base = base
        self._shard_bytes = shard_bytes
        self._names = Names.read(folder / base.names.file) if base else Names()
        self._names_before = len(self._names.done)
        self._shards = list(base.shards) if base else []
        self._rounding = base.rounding if base else 0.0
        self._growing: ShardFile | None = None
        self._usable = True
        self._made = False

    @classmethod
    def begin(
        cls,
        folder: Path,
        *,
        space: str,
        shape: tuple[int, ...],
        dtype: str = "float32",
        size: tuple[int, int] | None = None,
        embedding: str | None = None,
        shard_bytes: int = SHARD_BYTES,
    ) -> Self:
        """Begin a new set in a folder, or go on with an interrupted build of the same settings.

        Args:
            folder: empty or not there yet, unless a build was interrupted in it.
            space, shape, dtype, size, embedding: as in `Manifest`.
            shard_bytes: the length that no file of vectors exceeds.

        Raises:
            OptionError: for settings that are not allowed.
            StoreError: for a folder that holds something else, a set that is finished, or a build
                of other settings.
        """
        require_settings(space, shape, dtype)
        settings = {
            "space": space,
            "shape": list(shape),
            "dtype": dtype,
            "size": list(size) if size else None,
            "embedding": embedding,
        }
        require_free(folder)
        made = not folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # a path with a NUL is none
            raise StoreError(
                f"cannot write to {str(folder)!r} ({getattr(error, 'strerror', None) or error}); "
                "give a folder that you may write to"
            ) from error
        writer = cls._begun(folder, settings, None, shard_bytes)
        writer._made = made
        return writer

    @classmethod
    def append(cls, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> Self:
        """Begin an addition to a finished set, or go on with an interrupted one.

        Until it is finished the set on disk is the old one.

        Raises:
            StoreError: when there is no set, its build was not finished, or it is damaged.
        """
        tidy(folder)
        base = base_of(folder)
        for file in (*base.shards, base.names, base.index):
            file.check(folder, contents=not isinstance(file, Shard))
        entries = base.to_dict()
        return cls._begun(folder, {name: entries[name] for name in _SETTINGS}, base, shard_bytes)

    @classmethod
    def _begun(
        cls, folder: Path, settings: dict[str, Any], base: Manifest | None, shard_bytes: int
    ) -> Self:
        head = {
            "kind": f"{KIND}.building",
            "version": VERSION,
            "settings": settings,
            "base": base.checksum if base else None,
        }
        journal, entries = Journal.open(folder)
        try:
            if entries and entries[0] != head:
                raise StoreError(other_settings(folder, entries[0], head))
            if not entries:
                journal.append(head, 0)
            writer = cls(folder, journal, head, base, shard_bytes)
        except BaseException:
            if not entries:
                journal.remove()  # nothing was begun
            journal.close()
            raise
        try:
            writer._replay(entries[1:])
        except (KeyError, TypeError, ValueError) as error:
            writer._usable = False
            writer.close()
            raise disk.damaged_build(
                folder / disk.JOURNAL, f"an entry is wrong ({error})"
            ) from error
        except BaseException:
            writer.close()
            raise
        return writer

    @property
    def done(self) -> Set[str]:
        """Names of all inputs in the set, also of the one that is added to."""
        return self._names.done

    @property
    def count(self) -> int:
        """Number of different vectors."""
        return len(self._names)

    @property
    def dimension(self) -> int:
        """Length d of a vector."""
        return int(np.prod(self._settings["shape"]))

    def add(self, vectors: Tensor, names: Sequence[str]) -> None:
        """Add vectors; equal stored bytes are kept once, under all names.

        Args:
            vectors: (m, …) or (m, d), finite.
            names: of the inputs, one each, none of them in `done`.

        Raises:
            OptionError: for vectors of another shape, or names that are missing, taken or not text.
            NumericsError: for NaN, infinity, and what is beyond the largest number of float16; the
                message names the input.
            StoreError: when they cannot be written, with the room that is needed; those of earlier
                calls are kept.
        """
        self._require_usable()
        require_new(names, self.done)
        rows, rounding = stored_rows(
            vectors, names, tuple(self._settings["shape"]), self._settings["dtype"]
        )
        self._usable = (
            False  # what is in memory and what is on disk differ until both have all of it
        )
        first = 0
        while first < len(rows):
            growing = self._with_room()
            last = min(len(rows), first + growing.room)
            self._put(growing, rows[first:last], names[first:last], rounding)
            first = last
        self._usable = True

    def vectors(self) -> Mapped:
        """Map all vectors from the disk.

        The file that was growing is closed; the next vectors go into a new one.
        """
        self._require_usable()
        self._seal()
        shards = [(self.folder / shard.file, shard.count) for shard in self._shards]
        return Mapped(shards, self.dimension, self._settings["dtype"])

    def finish(
        self,
        *,
        radius: float | None = None,
        radius_source: dict[str, Any] | None = None,
        rounding: float = 0.0,
        model: str | None = None,
    ) -> Manifest:
        """Finish the set: write names, search index and manifest, and remove other files.

        Args:
            radius: of the balls; None to keep that of the set that was added to.
            radius_source: how it was found, where it was measured.
            model: the name or hub id of the model whose latents they are; None to keep what the set
                says.
            rounding: how far the vectors were from what they stand for before they were given.

        Raises:
            OptionError: for a radius that is not above 0, and for a set of no vectors.
            StoreError: when it cannot be written; what is complete is kept.
        """
        self._require_usable()
        if not self.count:
            raise OptionError("the protected set is empty; give at least one image or latent")
        if radius is None and self._base is not None:
            radius, radius_source = self._base.radius, self._base.radius_source
        radius = require_radius(radius)
        manifest = self._base
        if manifest is None or len(self.done) > self._names_before or radius != manifest.radius:
            self._rounding += rounding
            known = self._base.model if self._base is not None else None
            manifest = replace(self._manifest(radius, radius_source), model=model or known)
            manifest.write(self.folder)
        self._usable = False
        disk.remove(self.folder, disk.own_files(self.folder) - manifest.files)
        self._journal.remove()
        return manifest

    def close(self) -> None:
        """Close the folder; unfinished work can go on later.

        What was begun and holds nothing new leaves nothing.
        """
        if self._growing is not None:
            self._growing.close()
        if self._usable and len(self.done) == self._names_before:
            disk.remove(
                self.folder,
                disk.own_files(self.folder) - (self._base.files if self._base else set()),
            )
            self._journal.remove()
            if self._made:
                self.folder.rmdir()
        self._usable = False
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _require_usable(self) -> None:
        if not self._usable:
            raise StoreError(
                f"the work on {str(self.folder)!r} has ended; open it again with Writer.begin or "
                "Writer.append"
            )

    def _with_room(self) -> ShardFile:
        if self._growing is not None and self._growing.room < 1:
            self._seal()
        if self._growing is None:
            self._growing = self._shard_file(0)
        return self._growing

    def _shard_file(self, count: int) -> ShardFile:
        path = self.folder / disk.shard_name(len(self._shards))
        return ShardFile(
            path, self.dimension, self._settings["dtype"], count=count, limit=self._shard_bytes
        )

    def _put(
        self, shard: ShardFile, rows: np.ndarray, names: Sequence[str], rounding: float
    ) -> None:
        """Write the vectors first, so that the journal never lists what is not there."""
        before = self.count
        digests = [hashlib.sha256(row.tobytes()).digest() for row in rows]
        placed = [
            self._names.place(name, digest) for name, digest in zip(names, digests, strict=True)
        ]
        first = {row: i for i, row in reversed(list(enumerate(placed)))}
        new = [first[row] for row in range(before, self.count)]
        self._rounding = max(self._rounding, rounding)
        needed = (
            max((self.expected or 0) - len(self.done), 0) * rows.shape[1] * rows.itemsize
            + rows.nbytes
        )
        if new:
            shard.append(rows[new], needed)
        entry = {
            "names": list(names),
            "rows": placed,
            "digests": [digest.hex() for digest in digests],
        }
        self._journal.append({**entry, "count": shard.count, "rounding": self._rounding}, needed)

    def _seal(self) -> None:
        """Complete the file that is growing, if it holds anything."""
        if self._growing is None or not self._growing.count:
            return
        shard = self._growing.seal()
        self._journal.append(
            {
                "sealed": {
                    "file": shard.file,
                    "bytes": shard.bytes,
                    "sha256": shard.sha256,
                    "count": shard.count,
                }
            },
            0,
        )
        self._shards.append(shard)
        self._growing = None

    def _replay(self, entries: Sequence[dict[str, Any]]) -> None:
        """Restore what the journal lists, and check that it is on the disk."""
        count = 0
        for entry in entries:
            if "sealed" in entry:
                self._shards.append(Shard(**entry["sealed"]))
                self._shards[-1].check(self.folder, contents=False)
                count = 0
                continue
            for name, digest in zip(entry["names"], entry["digests"], strict=True):
                self._names.place(name, bytes.fromhex(digest))
            count, self._rounding = entry["count"], entry["rounding"]
        if count:
            self._growing = self._shard_file(count)
            if [
                hashlib.sha256(row.tobytes()).digest() for row in self._growing.rows()
            ] != self._names.digests[-count:]:
                raise disk.damaged_build(
                    self._growing.path, "its vectors are not those that were written"
                )

    def _manifest(self, radius: float, radius_source: dict[str, Any] | None) -> Manifest:
        """Write the other files of the new set, and return its manifest."""
        generation = self._base.generation + 1 if self._base else 0
        vectors = self.vectors()
        names = self.folder / f"names-{generation}.parquet"
        disk.place(names, self._names.write, 100 * len(self.done))
        index = (
            self._base.index
            if self._base and self._base.count == self.count
            else self._index(vectors, radius, generation)
        )
        settings = {**self._settings, "shape": tuple(self._settings["shape"])}
        return Manifest(
            **{**settings, "size": tuple(settings["size"]) if settings["size"] else None},
            count=self.count,
            radius=radius,
            radius_source=radius_source,
            rounding=self._rounding,
            generation=generation,
            shards=tuple(self._shards),
            names=File.of(names),
            index=index,
        )

    def _index(self, vectors: Mapped, radius: float, generation: int) -> File:
        if self._base is None:
            index = build(vectors, radius)
        else:
            index = Index.from_tensors(read_index(self.folder, self._base)).extended(vectors)
            if not index.sound:  # what came is of another size than what was there
                index = build(vectors, radius)
        tensors = index.tensors()

        def write(path: Path) -> None:
            save_file(tensors, path)
            shutil.copymode(
                self.folder / self._shards[0].file, path
            )  # safetensors lets nobody else read what it writes

        path = self.folder / f"index-{generation}.safetensors"
        disk.place(path, write, sum(t.nbytes for t in tensors.values()))
        return File.of(path)
