"""Put the samples of several memories into one."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from unalike.errors import StoreError
from unalike.memory import creation
from unalike.memory.place import Found, absolute, identity, look, require_local
from unalike.memory.reading import opened_rows
from unalike.memory.rows import Rows
from unalike.memory.samples import DTYPES, Batch

_Entry = tuple[float, int, int, Batch]


def merge(out: Path, files: Sequence[Path]) -> int:
    """Write a new memory of the samples of several, in the order of time, and return their number.

    A sample that is in several files is there once. The capacity is the largest of the files, or
    the number of samples where that is more; the precision is float32 where that of any file is.

    Args:
        out: the new file.
        files: memories; they stay as they are, and may be on a network file system when nothing
            writes to them.

    Raises:
        StoreError: where something is at `out`, a file is no memory or damaged, or a space has
            samples of different shapes in two of them.

    Cost: one pass over the labels and one over the files.
    """
    place = absolute(out)
    require_local(place)
    for path in files:
        if identity(absolute(path)) is not None and identity(absolute(path)) == identity(place):
            raise StoreError(
                f"{str(out)!r} is one of the files to merge; give a new file to write to"
            )
    if look(place) is not Found.NOTHING:
        raise StoreError(f"{str(out)!r} is there already; give a new file to write to")
    with ExitStack() as stack:
        sources = [stack.enter_context(opened_rows(path)) for path in files]
        _require_same_shapes(sources, files)
        headers = [rows.header() for rows in sources]
        items = {
            label.item for rows in sources for _, _, label in rows.labels(after=rows.pushed_out())
        }
        capacity = max(len(items), *(header.capacity for header in headers))
        dtype = "float32" if any(h.dtype == "float32" for h in headers) else "float16"
        images = (pair for rows in sources for pair in rows.all_thumbnails())
        creation.write_copy(
            place, capacity, dtype, _in_order(sources, dtype), images, replace=False
        )
    return len(items)


def _in_order(sources: Sequence[Rows], dtype: str) -> Iterator[tuple[Batch, Tensor]]:
    """The samples one by one, each with the id it gets."""
    seen: set[str] = set()
    for _, _, _, sample in heapq.merge(*map(_samples, range(len(sources)), sources)):
        (label,) = sample.labels
        if label.item not in seen:
            seen.add(label.item)
            kind = DTYPES[dtype]
            own = replace(sample, latents=sample.latents.to(kind), prompts=sample.prompts.to(kind))
            yield own, torch.tensor([len(seen)])


def _samples(number: int, rows: Rows) -> Iterator[_Entry]:
    """The samples of a file in the order of time; no two of all files compare equal before the
    batch.
    """
    count = 0
    for batch, _ in rows.batches(rows.header().dtype, after=rows.pushed_out(), by_time=True):
        for i, label in enumerate(batch.labels):
            count += 1
            yield label.created, number, count, batch.taken([i])


def _require_same_shapes(sources: Sequence[Rows], files: Sequence[Path]) -> None:
    known: dict[str, tuple[tuple[int, ...], int, Path]] = {}
    for rows, path in zip(sources, files, strict=True):
        for space in rows.spaces():
            own = (space.shape, space.prompt_size)
            shape, size, other = known.setdefault(space.name, (*own, path))
            if own != (shape, size):
                raise StoreError(
                    f"the samples of {space.name!r} have shape {shape} and embeddings of size "
                    f"{size} in {str(other)!r}, and shape {own[0]} and size {own[1]} in "
                    f"{str(path)!r}; merge only memories of the same models"
                )
