"""Search vectors that do not fit into memory: by bounds first, and in full where needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from unalike.shields.bounds import Index, Query
from unalike.shields.search import Candidates, Probe, Search
from unalike.shields.vectors import Vectors

_ROWS = 1 << 13


class Layered(Search):
    """Search by an index of bounds in memory; the vectors may be on disk.

    Args:
        vectors: (n, d).
        index: of the same vectors.

    Cost: for B vectors n · B products of about 70 numbers, and reading in full what both bounds
    leave open. `counts` has "first" and "second", the rows that either bound was computed of,
    beside "full".

    Example:
        >>> from unalike.shields.indexing import build
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

    def candidates(self, probes: Sequence[Probe], reach: np.ndarray) -> list[Candidates]:
        """For each probe (B) all rows that the first bound does not exclude from `reach` (B,)."""
        queries = self._prepared(probes)
        limits = np.array(
            [self.index.first_limit(q, r) for q, r in zip(queries, reach, strict=True)]
        )
        with np.errstate(over="ignore"):  # compared in float32, and never below what it was
            limits = np.nextafter(limits.astype(np.float32), np.float32(np.inf))
        found: list[list[tuple[np.ndarray, np.ndarray]]] = [
            [(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))] for _ in queries
        ]
        for rows in self._slices():
            values = self.index.first(queries, rows)
            at = np.flatnonzero(~(values >= limits))
            if not len(at):
                continue
            row, image = np.divmod(at, len(queries))
            near = values.ravel()[at]
            for i in np.flatnonzero(np.bincount(image)):
                own = image == i
                found[i].append((row[own] + rows.start, near[own]))
        self.counts["first"] += len(queries) * len(self.index)
        joined = [tuple(map(np.concatenate, zip(*parts, strict=True))) for parts in found]
        return [
            Candidates(rows, self.index.first_lower(q, values))
            for q, (rows, values) in zip(queries, joined, strict=True)
        ]

    def tighter(self, probe: Probe, rows: np.ndarray, reach: float) -> np.ndarray:
        """Lower bounds (k,) of the distances of a probe to these rows (k,), by both bounds.

        They are computed as far as it takes to place a row at `reach`.
        """
        self.counts["second"] += len(rows)
        (query,) = self._prepared([probe])
        return np.concatenate(
            [
                self.index.lower(query, part, reach)
                for part in np.split(rows, range(_ROWS, len(rows), _ROWS))
            ]
        )

    def cheap_order(self, probes: Sequence[Probe]) -> Iterator[np.ndarray]:
        """For each probe the values (n,) of the first bound."""
        queries = self._prepared(probes)
        yield from np.concatenate([self.index.first(queries, rows) for rows in self._slices()]).T

    def _prepared(self, probes: Sequence[Probe]) -> list[Query]:
        new = [probe for probe in probes if probe.prepared is None]
        if new:
            for probe, query in zip(
                new, self.index.queries(np.stack([probe.x for probe in new])), strict=True
            ):
                probe.prepared = query
        return [probe.prepared for probe in probes]

    def _slices(self) -> list[slice]:
        return [slice(first, first + _ROWS) for first in range(0, len(self.index), _ROWS)]
