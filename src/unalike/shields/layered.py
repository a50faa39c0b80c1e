"""Search among more vectors than fit into memory: by bounds first, and in full where those leave it open."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from unalike.shields.bounds import Index, Query
from unalike.shields.search import Candidates, Search
from unalike.shields.vectors import Vectors

_ROWS = 1 << 15


class Layered(Search):
    """Search by an index of bounds in memory, the vectors being wherever they are.

    Args:
        vectors: (n, d).
        index: of the same vectors.

    Cost: for B vectors n · B products of about 40 numbers, and reading in full what both bounds leave open. `counts` has "first" and
    "second", the rows that either bound was computed of, beside "full".

    Example:
        >>> from unalike.shields.bounds import build
        >>> from unalike.shields.vectors import Resident
        >>> vectors = Resident(np.eye(4, dtype=np.float32))
        >>> search = Layered(vectors, build(vectors, radius=1.0))
        >>> search.within(np.array([[0.9, 0.0, 0.0, 0.0]]), 1.0)
        [array([0])]
    """

    def __init__(self, vectors: Vectors, index: Index) -> None:
        super().__init__(vectors)
        self.index = index

    @property
    def resident_bytes(self) -> int:
        """Bytes of the index."""
        return self.index.resident_bytes

    def candidates(self, x: np.ndarray, reach: np.ndarray) -> list[Candidates]:
        """For each of the vectors x (B, d) all rows that the bounds do not place at `reach` (B,) or beyond."""
        queries = self.index.queries(x)
        limits = np.array([self.index.first_limit(q, r) for q, r in zip(queries, reach, strict=True)])
        left: list[list[np.ndarray]] = [[np.empty(0, dtype=np.int64)] for _ in queries]
        for rows in self._slices():
            open_still = self.index.first(queries, rows) < limits[:, None]
            for i in np.flatnonzero(open_still.any(axis=1)):
                left[i].append(np.flatnonzero(open_still[i]) + rows.start)
        self.counts["first"] += len(queries) * len(self.index)
        return [self._second(q, np.concatenate(rows), r) for q, rows, r in zip(queries, left, reach.tolist(), strict=True)]

    def cheap_order(self, x: np.ndarray) -> Iterator[np.ndarray]:
        """For each of the vectors x (B, d) the values (n,) of the first bound."""
        for query in self.index.queries(x):
            yield np.concatenate([self.index.first([query], rows)[0] for rows in self._slices()])

    def _second(self, query: Query, rows: np.ndarray, reach: float) -> Candidates:
        self.counts["second"] += len(rows)
        lower = np.concatenate([self.index.lower(query, part) for part in np.split(rows, range(_ROWS, len(rows), _ROWS))])
        return Candidates(rows[lower < reach], lower[lower < reach])

    def _slices(self) -> list[slice]:
        return [slice(first, first + _ROWS) for first in range(0, len(self.index), _ROWS)]
