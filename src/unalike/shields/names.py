"""Record which inputs each vector of a protected set stands for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self, overload

import pyarrow as pa
import pyarrow.parquet as pq

from unalike.errors import StoreError

_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("sources", pa.list_(pa.string())),
        ("digest", pa.binary(32)),
    ]
)
_ROWS = 65_536


class Names:
    """Rows by the digest of their stored bytes, and the names of all inputs stored there."""

    def __init__(self) -> None:
        self.sources: list[list[str]] = []
        self.digests: list[bytes] = []
        self.done: set[str] = set()
        self._row: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self.sources)

    def place(self, name: str, digest: bytes) -> int:
        """The row of an input: that of equal bytes, or else a new one at the end."""
        row = self._row.setdefault(digest, len(self.sources))
        if row == len(self.sources):
            self.sources.append([])
            self.digests.append(digest)
        self.sources[row].append(name)
        self.done.add(name)
        return row

    def write(self, path: Path) -> None:
        """Write `row`, `id` (the first name), `sources` (all names) and `digest` as Parquet."""
        with pq.ParquetWriter(path.absolute(), _SCHEMA) as writer:
            for first in range(0, len(self), _ROWS):
                sources, digests = (
                    self.sources[first : first + _ROWS],
                    self.digests[first : first + _ROWS],
                )
                rows = range(first, first + len(sources))
                writer.write_table(
                    pa.table([rows, [own[0] for own in sources], sources, digests], schema=_SCHEMA)
                )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the names that `write` wrote, to add more."""
        names, table = cls(), read_table(path)
        for sources, digest in zip(
            table["sources"].to_pylist(), table["digest"].to_pylist(), strict=True
        ):
            for name in sources:
                names.place(name, digest)
        return names


def read_table(path: Path) -> pa.Table:
    """Read the table that `Names.write` wrote.

    Raises:
        StoreError: for another or a damaged file.
    """
    try:
        table = pq.read_table(path.absolute())
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"{str(path)!r} is damaged ({' '.join(str(error).split())}); use a backup or build the "
            "set again"
        ) from error
    if not table.schema.equals(_SCHEMA) or table["row"].to_pylist() != list(range(len(table))):
        raise StoreError(
            f"{str(path)!r} is damaged: it does not list the rows in order; use a backup or build "
            "the set again"
        )
    return table


class Column(Sequence[Any]):
    """A column of a table as a sequence of plain values, unpacked on demand.

    Example:
        >>> ids = Column(pa.chunked_array([["a", "b"], ["c"]]))
        >>> len(ids), ids[-1], ids[:2]
        (3, 'c', ['a', 'b'])
    """

    def __init__(self, values: pa.ChunkedArray) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self._values[i].as_py() for i in range(*index.indices(len(self)))]
        return self._values[range(len(self))[index]].as_py()

    def __iter__(self) -> Iterator[Any]:
        for chunk in self._values.chunks:
            yield from chunk.to_pylist()
