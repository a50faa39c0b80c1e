"""`unalike memory inspect`: describe a memory and make sure that it is whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unalike.errors import StoreError
from unalike.memory.place import Found, look
from unalike.memory.reading import opened_rows
from unalike.memory.rows import Rows
from unalike.runs.numbers import counted
from unalike.runs.shield.inspection import size


@dataclass(frozen=True)
class Contents:
    """What a memory holds.

    Attributes:
        file: the memory.
        format: "sqlite", or "safetensors" for that of earlier releases.
        bytes: of the file.
        samples, capacity: how many it holds, and the most it may.
        dtype: the precision of its samples.
        spaces: for each its samples, the shape of a latent, and the size of prompt embeddings.
        runs: for each run the samples it added.
        first, last: when the oldest and the newest were added; None where there are none.
        thumbnails: how many samples have one.
        spare: samples beyond the capacity, which come back when newer ones are removed.
    """

    file: Path
    format: str
    bytes: int
    samples: int
    capacity: int
    dtype: str
    spaces: dict[str, dict[str, Any]]
    runs: dict[str, int]
    first: str | None
    last: str | None
    thumbnails: int
    spare: int

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {**asdict(self), "file": str(self.file)}

    def lines(self) -> list[str]:
        """Headings and sentences for people."""
        found = [
            f"samples    {self.samples:,} of at most {self.capacity:,}, in {self.dtype}",
            f"file       {size(self.bytes)}, {self.format}; all checksums fit",
        ]
        if self.first is not None:
            found.append(f"added      {self.first} to {self.last}")
        for name, own in self.spaces.items():
            shape = " × ".join(map(str, own["shape"]))
            prompts = own["prompt_size"]
            about = f"prompts as {prompts:,} numbers" if prompts else "no prompt embeddings"
            found.append(
                f"space      {name}: {counted(own['samples'], 'sample')} of {shape}, {about}"
            )
        for name, count in self.runs.items():
            found.append(f"run        {name}: {counted(count, 'sample')}")
        if self.thumbnails:
            found.append(f"thumbnails {self.thumbnails:,}")
        if self.spare:
            found.append(f"spare      {counted(self.spare, 'sample')} beyond the capacity")
        return found


def inspect(file: Path) -> Contents:
    """Read all of a memory.

    Raises:
        StoreError: where there is none, or anything of it is damaged.

    Cost: two passes over the file.
    """
    with opened_rows(file) as rows:
        old = look(file.absolute()) is Found.OTHER
        faults = rows.faults()
        if faults:
            raise StoreError(
                f"the memory {str(file)!r} is damaged: {'; '.join(faults)}; use a backup"
            )
        header, after = rows.header(), rows.pushed_out()
        for _ in rows.batches(header.dtype):  # compares the checksums
            pass
        return _contents(file, rows, after, "safetensors" if old else "sqlite")


def _contents(file: Path, rows: Rows, after: int, kind: str) -> Contents:
    header, shapes = rows.header(), {space.name: space for space in rows.spaces()}
    in_spaces: Counter[str] = Counter()
    in_runs: Counter[str] = Counter()
    times: list[float] = []
    for _, space, label in rows.labels(after=after):
        in_spaces[space] += 1
        if label.run is not None:
            in_runs[label.run] += 1
        times.append(label.created)
    spaces = {
        name: {
            "samples": count,
            "shape": list(shapes[name].shape),
            "prompt_size": shapes[name].prompt_size,
        }
        for name, count in in_spaces.items()
    }
    return Contents(
        file=file,
        format=kind,
        bytes=file.stat().st_size,
        samples=len(times),
        capacity=header.capacity,
        dtype=header.dtype,
        spaces=spaces,
        runs=dict(in_runs),
        first=time_text(min(times)) if times else None,
        last=time_text(max(times)) if times else None,
        thumbnails=rows.thumbnails(),
        spare=rows.count() - len(times),
    )


def time_text(created: float) -> str:
    """A time as text, to the second, in UTC.

    Example:
        >>> time_text(0)
        '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
