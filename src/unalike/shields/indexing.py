"""Build the search index of a set of vectors: its scale, its basis and its second tier."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from unalike.shields.bounds import Index, index_of, largest_norm
from unalike.shields.contraction import Contraction
from unalike.shields.vectors import Vectors

_LEADING = 64
_MOST_COORDINATES = 512
_BASIS_VALUES = 1 << 22  # 32 MiB to read for each step's predictions
_SAMPLED_VALUES = 1 << 25
_QUERIES, _MEASURED = 48, 2048
_UNSCALED = 1e-3, 1e4  # norms that float16 and float32 hold well as they are


def build(vectors: Vectors, radius: float, *, budget: float = 0.1, seed: int = 0) -> Index:
    """Build the index of a set of vectors, with the second tier that excludes more of them.

    The choice is measured on a sample: for points between the mean and sampled vectors, as
    predictions along a trajectory are, the share of the sampled vectors that the bounds place
    beyond `radius`.

    Args:
        vectors: n of d numbers, at least one.
        radius: what the search will be asked for, about.
        budget: what may stay in memory, as a share of the vectors in float16. Tiny sets may take
            more: the mean, and 12 bytes a vector.
        seed: of the sample that the basis and the choice are made from.

    Source: the basis is found by randomised subspace iteration (Halko, Martinsson & Tropp 2011,
    arXiv:0909.4061).

    Cost: one pass over the vectors, O(n d k) in float64 with k at most 512.

    Example:
        >>> from unalike.shields.vectors import Resident
        >>> z = np.random.default_rng(0).normal(size=(500, 64)).astype(np.float32)
        >>> index = build(Resident(z), radius=4.0)
        >>> lower = index.lower(index.queries(z[:1])[0], np.arange(500), reach=4.0)
        >>> len(index), bool((lower <= np.linalg.norm(z - z[0], axis=1)).all())
        (500, True)
    """
    n, d = vectors.count, vectors.dimension
    rng = np.random.default_rng(seed)
    chosen = np.sort(
        rng.choice(n, size=min(n, max(64, min(8192, _SAMPLED_VALUES // d))), replace=False)
    )
    sample = vectors.rows(chosen).astype(np.float32)
    mean = sample.mean(axis=0)
    centred = sample - mean
    scale = _scale(largest_norm(centred))
    centred = centred if scale == 1 else (centred.astype(np.float64) * scale).astype(np.float32)
    maps = {
        second: Contraction.of(mean, basis, min(_LEADING, len(basis)), scale)
        for second, basis in _bases(centred, n, budget, seed).items()
    }
    measured = {
        second: _excluded(index_of(c, second, sample[:_MEASURED]), sample, radius, rng)
        for second, c in maps.items()
    }
    best = max(measured, key=lambda second: measured[second])
    index = _of_all(maps[best], best, vectors)
    if not index.sound:  # the sample was smaller than the set
        largest = max(largest_norm(rows - mean) for _, rows in vectors.blocks())
        index = _of_all(replace(maps[best], scale=_scale(largest)), best, vectors)
    return replace(index, measured=measured)


def _of_all(contraction: Contraction, second: str, vectors: Vectors) -> Index:
    empty = np.empty((0, vectors.dimension), np.float32)
    return index_of(contraction, second, empty).extended(vectors)


def _scale(largest: float) -> float:
    """The power of two to multiply vectors by, given their largest norm less the mean."""
    low, high = _UNSCALED
    return 1.0 if low <= largest <= high or largest == 0 else 2.0 ** (7 - math.frexp(largest)[1])


def _bases(centred: np.ndarray, n: int, budget: float, seed: int) -> dict[str, np.ndarray]:
    """Principal components (k, d) for each second tier, as many as the budget has room for."""
    d, room = centred.shape[1], budget * 2 * n * centred.shape[1]

    def coordinates(k: int) -> float:
        leading = min(_LEADING, k)
        return 8 * k * d + n * (
            4 * (leading + 2 + math.ceil(math.log2(max(1, k / max(1, leading)))))
            + 2 * (k - leading)
        )

    def signs(k: int) -> float:
        return 8 * k * d + n * (4 * (k + 2) + math.ceil(d / 8) + 8)

    most = min(_MOST_COORDINATES, max(_LEADING, _BASIS_VALUES // d), *centred.shape)
    sizes = {"coordinates": next((k for k in range(most, 0, -1) if coordinates(k) <= room), 0)}
    if signs(0) <= room:
        sizes["signs"] = next(k for k in range(min(_LEADING, most), -1, -1) if signs(k) <= room)
    with torch.random.fork_rng(
        devices=[]
    ):  # torch's randomised SVD draws from the global generator
        torch.manual_seed(seed)
        components = torch.svd_lowrank(
            torch.from_numpy(centred), q=max(1, *sizes.values()), niter=2
        )[2].T.numpy()
    return {second: components[:k] for second, k in sizes.items()}


def _excluded(index: Index, sample: np.ndarray, radius: float, rng: np.random.Generator) -> float:
    """Share of the indexed rows that the bounds place beyond the radius.

    Measured at points between the mean and sampled vectors.
    """
    ends = sample[rng.choice(len(sample), size=min(len(sample), _QUERIES), replace=False)]
    share = np.linspace(0, 1, len(ends))[:, None]
    rows = np.arange(len(index))
    mean = index.contraction.mean
    return float(
        np.mean(
            [
                (index.lower(query, rows, radius) >= radius).mean()
                for query in index.queries(mean + share * (ends - mean))
            ]
        )
    )
