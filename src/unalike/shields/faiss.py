"""Search with faiss, approximately or exhaustively, for comparison; without a guarantee."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from unalike.errors import OptionError
from unalike.shields.vectors import Vectors

_SAMPLED = 256  # training vectors for each cell, the most that faiss itself uses


class _Faiss:
    """Interface of the search classes over faiss' float32 distances.

    Attributes:
        exact: False, always: a search that asks for a guarantee refuses it.
    """

    exact = False

    def __init__(self, index: Any, dimension: int) -> None:
        self._index = index
        self.dimension = dimension

    @property
    def count(self) -> int:
        """The number n of protected vectors."""
        return self._index.ntotal

    def within(self, x: np.ndarray, radius: float) -> list[np.ndarray]:
        """For each row of `x` (B, d) the sorted numbers (k,) of vectors found within `radius`."""
        limits, _, found = self._index.range_search(self._queries(x), float(radius) ** 2)
        return [
            np.sort(found[a:b])
            for a, b in zip(limits[:-1].astype(int), limits[1:].astype(int), strict=True)
        ]

    def nearest(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each row of `x` (B, d) the number (B,) and distance (B,) of the nearest vector found.

        Where all that it looks at is empty that is -1, and infinitely far.
        """
        squared, found = self._index.search(self._queries(x), 1)
        distance = np.sqrt(np.maximum(squared[:, 0].astype(np.float64), 0))
        return found[:, 0].astype(np.int64), np.where(found[:, 0] >= 0, distance, np.inf)

    def recall(self, queries: np.ndarray, radius: float, exact: Any) -> float:
        """Share of what the exact search `exact` finds that `within` finds; larger is better.

        1 where there is nothing to find.

        Args:
            queries: (B, d).
            radius: of the search.
            exact: a search over the same vectors whose `exact` is True.

        Raises:
            OptionError: for a search that may miss something itself.
        """
        if not getattr(exact, "exact", False):
            raise OptionError(
                f"exact is a {type(exact).__name__}, which may miss vectors; give an exact search "
                "of the same vectors"
            )
        return share_found(self.within(queries, radius), exact.within(queries, radius))

    def _queries(self, x: np.ndarray) -> np.ndarray:
        if x.ndim != 2 or x.shape[1] != self.dimension:
            raise OptionError(
                f"x has shape {x.shape}; allowed: (B, {self.dimension}), rows of the length of the "
                "protected vectors"
            )
        return np.ascontiguousarray(x, dtype=np.float32)


class FaissIVF(_Faiss):
    """Approximate search in the nearest cells of a clustering; it misses vectors in other cells.

    The set is clustered into √n cells, and of these `nprobe` are searched exhaustively, with faiss'
    `IndexIVFFlat`. All vectors are held in float32.

    Source: Kirchhof et al. 2025, appendix on image protection (arXiv:2410.06025): √n cells, 1 to 10
    of them probed. Douze et al. 2024, "The Faiss library" (arXiv:2401.08281).

    Cost: building reads all vectors, O(256 √n · √n d) for each of ten rounds of clustering and O(n
    √n d) after it; a search takes O(B (√n + nprobe √n) d) in cells of equal size. 4 d + 8 bytes a
    vector.

    Args:
        vectors: the protected set.
        cells: of the clustering; √n, rounded, unless given.
        nprobe: how many cells are searched.
        seed: of the clustering and of the sample that it is made of.

    Raises:
        OptionError: where faiss is not installed, for no vectors, cells that are not between 1 and
            n, nprobe not between 1 and the cells.

    Example:
        >>> from unalike.shields.vectors import Resident
        >>> rows = np.repeat(np.array([[0.0, 0.0], [9.0, 0.0]], dtype=np.float32), 50, axis=0)
        >>> search = FaissIVF(Resident(rows), cells=2, nprobe=1)
        >>> found = search.within(np.array([[1.0, 0.0]]), 20.0)  # 100 are nearer than that
        >>> [len(own) for own in found]
        [50]
    """

    def __init__(
        self, vectors: Vectors, cells: int | None = None, nprobe: int = 2, seed: int = 0
    ) -> None:
        faiss = _faiss()
        count, dimension = _size(vectors)
        cells = round(count**0.5) if cells is None else cells
        if isinstance(cells, bool) or not isinstance(cells, int) or not 1 <= cells <= count:
            raise OptionError(
                f"cells is {cells!r}; allowed: 1 to the number of vectors, {count}, or None for "
                "its root"
            )
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dimension), dimension, cells, faiss.METRIC_L2)
        index.cp.seed = seed
        index.cp.min_points_per_centroid = 1  # else faiss warns on the terminal for small sets
        chosen = (
            torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: _SAMPLED * cells]
            .sort()
            .values
        )
        index.train(np.ascontiguousarray(vectors.rows(chosen.numpy()), dtype=np.float32))
        for _, block in vectors.blocks():
            index.add(np.ascontiguousarray(block, dtype=np.float32))
        super().__init__(index, dimension)
        self.cells = cells
        self._nprobe = 0
        self.nprobe = nprobe

    @property
    def nprobe(self) -> int:
        """Number of cells searched; it can be set without building anything anew."""
        return self._nprobe

    @nprobe.setter
    def nprobe(self, nprobe: int) -> None:
        if isinstance(nprobe, bool) or not isinstance(nprobe, int) or not 1 <= nprobe <= self.cells:
            raise OptionError(
                f"nprobe is {nprobe!r}; allowed: 1 to the number of cells, {self.cells}, as in "
                "FaissIVF(vectors, nprobe=1)"
            )
        self._nprobe = self._index.nprobe = nprobe

    @property
    def resident_bytes(self) -> int:
        """Bytes in memory."""
        return self.count * (4 * self.dimension + 8) + 4 * self.cells * self.dimension


class FaissFlat(_Faiss):
    """Exhaustive search with faiss' `IndexFlatL2`, in float32.

    Its rounding may still decide on either side of the boundary.

    Args:
        vectors: the protected set, which is copied into memory in float32.

    Raises:
        OptionError: where faiss is not installed, or for no vectors.

    Cost: O(B n d) a search; 4 d bytes a vector.

    Example:
        >>> from unalike.shields.vectors import Resident
        >>> rows = np.array([[0.0, 0.0], [9.0, 0.0]], dtype=np.float32)
        >>> FaissFlat(Resident(rows)).within(np.array([[1.0, 0.0]]), 2.0)
        [array([0])]
    """

    def __init__(self, vectors: Vectors) -> None:
        faiss = _faiss()
        _, dimension = _size(vectors)
        index = faiss.IndexFlatL2(dimension)
        for _, block in vectors.blocks():
            index.add(np.ascontiguousarray(block, dtype=np.float32))
        super().__init__(index, dimension)

    @property
    def resident_bytes(self) -> int:
        """Bytes in memory."""
        return 4 * self.count * self.dimension


def share_found(found: Sequence[np.ndarray], there: Sequence[np.ndarray]) -> float:
    """Share of all true results that were found, over all queries; 1 where there are none.

    Example:
        >>> share_found([np.array([1, 5]), np.array([])], [np.array([1, 2]), np.array([7, 8])])
        0.25
    """
    total = sum(len(true) for true in there)
    return (
        sum(len(np.intersect1d(own, true)) for own, true in zip(found, there, strict=True)) / total
        if total
        else 1.0
    )


def set_threads(count: int) -> None:
    """Set how many threads faiss uses in the whole process."""
    _faiss().omp_set_num_threads(count)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise OptionError(
            "the faiss backend needs faiss, which is not installed; pip install 'unalike[faiss]', "
            "or search exactly"
        ) from error
    return faiss


def _size(vectors: Vectors) -> tuple[int, int]:
    if vectors.count == 0:
        raise OptionError("vectors is empty; give at least one protected vector")
    return vectors.count, vectors.dimension
