"""Nearest protected vectors by brute force in float64, without a search index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unalike.shields.vectors import Vectors

_BLOCK = 4096
_ROUNDING = 64


@dataclass(frozen=True)
class Found:
    """Distance to the nearest vector, and the numbers of all that are as near but for rounding."""

    distance: float
    rows: tuple[int, ...]


def nearest(
    points: np.ndarray, vectors: Vectors, *, relative: float, absolute: float = 0.0
) -> list[Found]:
    """The nearest vector of each point, and those that are as near but for `relative · distance +
    absolute`.

    A product of matrices says which vectors of a block could be among those, given its rounding
    error; they are measured by differences.

    Args:
        points: (m, d).
        vectors: n of d numbers, n at least 1.
        relative: share of the distance.
        absolute: distance.

    Cost: O(m n d).

    Example:
        >>> from unalike.shields.vectors import Resident
        >>> vectors = Resident(np.array([[3, 4], [0, 2], [2, 0]], dtype=np.float32))
        >>> nearest(np.zeros((1, 2)), vectors, relative=1e-9)
        [Found(distance=2.0, rows=(1, 2))]
    """
    points = points.astype(np.float64)
    own = np.square(points).sum(axis=1)
    best = np.full(len(points), np.inf)
    near: list[dict[int, float]] = [{} for _ in points]
    for first, stored in vectors.blocks(_BLOCK):
        block = stored.astype(np.float64)
        sizes = np.square(block).sum(axis=1)
        rough = own[:, None] - 2 * points @ block.T + sizes
        slack = _ROUNDING * np.finfo(np.float64).eps * points.shape[1] * (own + sizes.max())
        for i, row in enumerate(rough):
            limit = (
                min(best[i], np.sqrt(max(row.min(), 0.0) + slack[i])) * (1 + relative) + absolute
            )
            candidates = np.flatnonzero(row - slack[i] <= limit**2)
            distances = np.linalg.norm(block[candidates] - points[i], axis=1)
            near[i] |= dict(zip((first + candidates).tolist(), distances.tolist(), strict=True))
            best[i] = min(best[i], distances.min(initial=np.inf))
    limits = best * (1 + relative) + absolute
    return [
        Found(float(d), tuple(sorted(k for k, v in rows.items() if v <= limit)))
        for d, rows, limit in zip(best, near, limits, strict=True)
    ]
