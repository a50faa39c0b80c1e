"""Exact Euclidean search: the interface of every search, and nearest neighbours of a few rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unalike.errors import NumericsError, OptionError, StoreError
from unalike.kernels import squared_distances
from unalike.shields.vectors import Vectors, require_queries

_BLOCK = 2048
_VALUES_READ = 1 << 22
_SEEDS = 32
_TINY = 1e-140  # the squares of smaller norms lose digits


@dataclass
class Probe:
    """A query vector (d,) float64, and what a search prepared for it."""

    x: np.ndarray
    prepared: Any = None


@dataclass(frozen=True)
class Candidates:
    """All rows (k,) that may lie within some distance of a vector, with lower bounds (k,)."""

    rows: np.ndarray
    lower: np.ndarray


class Search(ABC):
    """Exact range and nearest-neighbour search among n vectors of d numbers.

    Distances are Euclidean, in float64, by direct differences.

    A search says which rows cannot be excluded cheaply (`candidates`, `tighter`); those are then
    measured in full, here.

    Attributes:
        vectors: what is searched.
        counts: how many vectors each layer saw since the search was made; "full" are those that
            were read and measured.
    """

    exact = True

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors
        self.counts: Counter[str] = Counter()

    @property
    @abstractmethod
    def resident_bytes(self) -> int:
        """Bytes in memory beside the vectors, which may be elsewhere."""

    @abstractmethod
    def candidates(self, probes: Sequence[Probe], reach: np.ndarray) -> list[Candidates]:
        """For each probe (B) all rows that are not known to be at `reach` (B,) or beyond."""

    @abstractmethod
    def tighter(self, probe: Probe, rows: np.ndarray, reach: float) -> np.ndarray:
        """Lower bounds (k,) float64 of the distances of a probe to these rows (k,).

        The best that there is without reading the rows, but no better than it takes to place one at
        `reach` or beyond.
        """

    @abstractmethod
    def cheap_order(self, probes: Sequence[Probe]) -> Iterator[np.ndarray]:
        """For each probe values (n,) that tend to be small where rows are near; not bounds."""

    def within(self, x: np.ndarray, radius: float) -> list[np.ndarray]:
        """For each vector of x (B, d) the numbers of all rows nearer than `radius`, ascending.

        Raises:
            OptionError: for vectors of another length, or a radius that is not a number.
            NumericsError: for NaN, infinity and numbers beyond 1e100.
        """
        require_queries(x, self.vectors.dimension)
        if not 0 <= radius < np.inf:
            raise OptionError(f"radius is {radius}; allowed: a finite number of at least 0")
        if not len(x):
            return []
        probes = [Probe(row) for row in x]
        found = self.candidates(probes, np.full(len(x), radius))
        return [self.nearer(probe, c.rows, radius) for probe, c in zip(probes, found, strict=True)]

    def nearer(self, probe: Probe, rows: np.ndarray, radius: float) -> np.ndarray:
        """The rows of (k,) that are nearer to a probe than the radius.

        Only rows that no bound excludes are read in full.
        """
        if len(rows):
            rows = rows[self.tighter(probe, rows, radius) < radius]
        return rows[self.distances(probe.x, rows) < radius]

    def nearest(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the nearest row (B,) of each query, and its distance (B,) float64.

        Ties go to the lower index.

        Raises:
            OptionError: for vectors of another length.
            NumericsError: for NaN, infinity and numbers beyond 1e100.
        """
        require_queries(x, self.vectors.dimension)
        probes = [Probe(row) for row in x]
        orders = self.cheap_order(probes) if probes else []
        found = [self._nearest(probe, order) for probe, order in zip(probes, orders, strict=True)]
        return np.array([k for k, _ in found], dtype=np.int64), np.array(
            [d for _, d in found], dtype=np.float64
        )

    def distances(self, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Distances (k,) float64 of a vector (d,) to these rows (k,)."""
        self.counts["full"] += len(rows)
        size = max(1, _VALUES_READ // self.vectors.dimension)
        parts = np.split(rows, range(size, len(rows), size))
        found = np.concatenate(
            [_norms(self.vectors.rows(part).astype(np.float64) - x) for part in parts]
        )
        if np.isnan(found).any():
            raise StoreError("a protected vector has NaN: its file is damaged; use a backup")
        return found

    def _nearest(self, probe: Probe, order: np.ndarray) -> tuple[int, float]:
        seeds = (
            np.argpartition(order, _SEEDS)[:_SEEDS]
            if len(order) > _SEEDS
            else np.arange(len(order))
        )
        found = float(self.distances(probe.x, seeds).min())
        # Rows exactly as far as the best so far stay open, so that the lowest of equals is found.
        reach = found * (1 + 1e-9) + np.finfo(np.float64).tiny
        near = self.candidates([probe], np.array([reach]))[0].rows
        lower = self.tighter(probe, near, reach)
        at, rising = -1, np.argsort(lower, kind="stable")
        rising = rising[lower[rising] < reach]
        for part in np.split(rising, range(_SEEDS, len(rising), _SEEDS)):
            if lower[part[0]] > found:
                break
            rows = near[part]
            distances = self.distances(probe.x, rows)
            d = float(distances.min())
            k = int(rows[distances == d].min())
            if d < found or (d == found and (at < 0 or k < at)):
                found, at = d, k
        return at, found


def _norms(rows: np.ndarray) -> np.ndarray:
    """Euclidean norms (k,) of rows (k, d) float64, those whose squares vanish included."""
    norms = np.linalg.norm(rows, axis=1)
    tiny = np.flatnonzero(norms < _TINY)
    largest = np.abs(rows[tiny]).max(axis=1, initial=0.0)
    tiny, largest = tiny[largest > 0], largest[largest > 0]
    norms[tiny] = largest * np.linalg.norm(rows[tiny] / largest[:, None], axis=1)
    return norms


def nearest(queries: Tensor, rows: Tensor, *, skip_own: bool = False) -> tuple[Tensor, Tensor]:
    """Find the nearest row (B,) of each query, and its distance (B,) float64.

    Ties go to the lower index.

    One matrix product finds the rows that could be nearest, given its rounding error; those are
    measured by direct differences, so that the distance of a near duplicate keeps all its digits.
    Ties go to the lower index. O(B n d) time, O(B n + block · d) space.

    Args:
        queries: (B, d), any precision.
        rows: (n, d), on the same device.
        skip_own: leave out row i for query i, for the nearest other sample of one set; then n must
            be at least 2.

    Raises:
        OptionError: where there are no such rows.
        NumericsError: for NaN and infinity.

    Example:
        >>> nearest(torch.tensor([[0.0, 0.0]]), torch.tensor([[5.0, 0.0], [0.0, 2.0]]))
        (tensor([1]), tensor([2.], dtype=torch.float64))
    """
    if len(rows) < 1 + skip_own:
        raise OptionError(
            f"there are {len(rows)} rows to search; at least {1 + skip_own} are needed to find the "
            "nearest"
        )
    if not (queries.isfinite().all() and rows.isfinite().all()):
        raise NumericsError("queries or rows have NaN or infinity, which is at no distance")
    q = queries.double()
    squared = torch.cat(
        [squared_distances(q, block.double()) for block in rows.split(_BLOCK)], dim=1
    )
    if skip_own:
        squared.fill_diagonal_(torch.inf)
    largest = torch.stack(
        [block.double().square().sum(1).max() for block in rows.split(_BLOCK)]
    ).max()
    slack = 32 * torch.finfo(torch.float64).eps * q.shape[1] * (q.square().sum(1) + largest)
    index, distance = [], []
    for i, bound in enumerate(squared.min(dim=1).values + slack):
        candidates = (squared[i] <= bound).nonzero().flatten()
        exact = torch.cat([(rows[c].double() - q[i]).norm(dim=1) for c in candidates.split(_BLOCK)])
        best = int(exact.argmin())
        index.append(candidates[best])
        distance.append(exact[best])
    if not index:
        return torch.empty(0, dtype=torch.int64, device=rows.device), torch.empty(
            0, dtype=torch.float64, device=rows.device
        )
    return torch.stack(index), torch.stack(distance)
