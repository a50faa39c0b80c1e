"""Open a protected set on disk, or refuse it.

```
DIR/
  manifest.json                 what the set is, and the digest of each file; written last
  vectors-00000.safetensors …   the tensor "vectors" (m, d), at most 256 MiB each
  names-0.parquet               a row a vector: its id, the names of all inputs it stands for, the
                                digest of its bytes
  index-0.safetensors           what the search keeps in memory
  building.jsonl                only while a build or an addition is going on, or was interrupted
```
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unalike.errors import StoreError
from unalike.shields import disk, journal
from unalike.shields.manifest import Manifest
from unalike.shields.names import Column, read_table
from unalike.shields.vectors import Mapped


@dataclass(frozen=True)
class Opened:
    """A protected set on disk.

    Attributes:
        manifest: what it is.
        vectors: (n, d), mapped from the files.
        ids: the name of each; of duplicates the first.
        sources: the names of all inputs that each stands for.
        index: what the search keeps in memory, as `Index.tensors` gave it.
    """

    manifest: Manifest
    vectors: Mapped
    ids: Sequence[str]
    sources: Sequence[Sequence[str]]
    index: dict[str, Tensor]


def open_folder(folder: Path, *, check: bool = True) -> Opened:
    """Open the protected set in a folder.

    Args:
        folder: written by `Writer`.
        check: read all vectors once and compare their checksums; those of the other files are
            always compared.

    Raises:
        StoreError: when there is none, it is unfinished, or anything of it is missing or damaged.

    Cost: one pass over all files, without `check` over all but the vectors.
    """
    manifest = finished(folder)
    for shard in manifest.shards:
        shard.check(folder, contents=check)
    manifest.names.check(folder)
    manifest.index.check(folder)
    vectors = Mapped(
        [(folder / shard.file, shard.count) for shard in manifest.shards],
        manifest.dimension,
        manifest.dtype,
    )
    names = read_table(folder / manifest.names.file)
    if len(names) != manifest.count:
        raise StoreError(
            f"the protected set {str(folder)!r} cannot be used: {manifest.names.file!r} has "
            f"{len(names)} rows for {manifest.count} vectors; use a backup or build it again"
        )
    return Opened(
        manifest,
        vectors,
        Column(names["id"]),
        Column(names["sources"]),
        read_index(folder, manifest),
    )


def read_index(folder: Path, manifest: Manifest) -> dict[str, Tensor]:
    """Read the search index of a set as tensors.

    Raises:
        StoreError: when it cannot be read.
    """
    try:
        return load_file(folder / manifest.index.file)
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"{manifest.index.file!r} is damaged ({error}); use a backup or build the set again"
        ) from error


def finished(folder: Path) -> Manifest:
    """Read the manifest of a set with no work in progress; its files are not looked at.

    Raises:
        StoreError: when there is no set, or a build or an addition was interrupted.
    """
    entries = journal.read(folder)
    if entries is None:
        return Manifest.read(folder)
    if not (folder / disk.MANIFEST).is_file():
        raise StoreError(
            f"the protected set {str(folder)!r} was not finished: run the same command again, it "
            "goes on where it was"
        )
    manifest = Manifest.read(folder)
    if unfinished(entries, manifest):
        raise StoreError(
            f"an addition to the protected set {str(folder)!r} is not finished: run it again, it "
            "goes on where it was, or discard it with `unalike shield add "
            f"{shlex.quote(str(folder))} --discard`"
        )
    return manifest


def base_of(folder: Path) -> Manifest:
    """Read the manifest of a set to add to, whether or not an addition was interrupted.

    Raises:
        StoreError: when there is no set, or its build was not finished.
    """
    if (folder / disk.JOURNAL).exists() and not (folder / disk.MANIFEST).is_file():
        raise StoreError(
            f"the protected set {str(folder)!r} was not finished: run the command that built it "
            "again, it goes on"
        )
    return Manifest.read(folder)


def unfinished(entries: Sequence[dict], manifest: Manifest | None) -> bool:
    """Whether the work of a journal is still to be done.

    It is done where the manifest came of it.
    """
    base = entries[0].get("base") if entries else None
    return not entries or manifest is None or base == manifest.checksum


def discard(folder: Path) -> int:
    """Remove the files of an interrupted addition or build, and return their size in bytes.

    The set is as it was before.

    Raises:
        StoreError: when nothing was interrupted, or another process is at it.
    """
    if not (folder / disk.JOURNAL).exists():
        raise StoreError(
            f"there is nothing to discard in {str(folder)!r}: no addition to it was interrupted"
        )
    kept = Manifest.read(folder).files if (folder / disk.MANIFEST).is_file() else set()
    held = journal.Journal.hold(folder)
    surplus = disk.own_files(folder) - kept
    size = sum((folder / name).stat().st_size for name in surplus)
    disk.remove(folder, surplus)
    held.remove()
    return size
