"""Search by reading every vector: what the others are compared with, and written without any of
their bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unalike.shields.vectors import Vectors

_ROUNDING = (
    5e-4  # of ||x||² + ||z||²: twice the most that a float32 sum of 4,096 products can be off by
)


@dataclass(frozen=True)
class Found:
    """What there is for each of B queries.

    Attributes:
        within: the sorted numbers of the vectors nearer than the radius.
        nearest: the number (B,) of the nearest vector.
        distance: how far it is (B,), in float64.
    """

    within: list[np.ndarray]
    nearest: np.ndarray
    distance: np.ndarray


class Brute:
    """A search that compares with every vector: float32 products choose what is measured in
    float64.

    Args:
        vectors: the set.
    """

    exact = True

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def within(self, x: np.ndarray, radius: float) -> list[np.ndarray]:
        """For each row of `x` (B, d) the sorted numbers of the vectors nearer than the radius."""
        return self.scan(x, radius).within

    def scan(self, x: np.ndarray, radius: float) -> Found:
        """All that there is to know of the queries `x` (B, d), in one pass over the vectors.

        Args:
            x: (B, d) float64.
            radius: of the balls.
        """
        queries, x32 = torch.from_numpy(x), torch.from_numpy(x).float()
        squares = x32.square().sum(1, keepdim=True)
        within: list[list[np.ndarray]] = [[] for _ in x]
        nearest, distance = (
            torch.zeros(len(x), dtype=torch.int64),
            torch.full((len(x),), torch.inf, dtype=torch.float64),
        )
        for first, block in self._vectors.blocks():
            rows = torch.from_numpy(np.asarray(block, dtype=np.float32))
            total = squares + rows.square().sum(1)
            lower = total - 2 * (x32 @ rows.T) - _ROUNDING * total
            # What can be inside; and what can be nearer than all before, for which it must be below
            # the smallest that is certain here.
            limit = torch.minimum(
                distance.square().float() * (1 + 1e-6), (lower + 2 * _ROUNDING * total).amin(1)
            ).clamp_min(radius**2)
            for query in (lower < limit[:, None]).any(1).nonzero().flatten().tolist():
                chosen = (lower[query] <= limit[query]).nonzero().flatten()
                apart = (rows[chosen].double() - queries[query]).norm(dim=1)
                within[query].append((first + chosen[apart < radius]).numpy())
                best = int(apart.argmin())
                if apart[best] < distance[query]:
                    nearest[query], distance[query] = first + chosen[best], apart[best]
        found = [
            np.concatenate(parts) if parts else np.empty(0, dtype=np.int64) for parts in within
        ]
        return Found(found, nearest.numpy(), distance.numpy())


def sample(count: int, size: int, seed: int) -> np.ndarray:
    """`size` numbers below `count`, or all of them, sorted."""
    chosen: Tensor = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:size]
    return chosen.sort().values.numpy()
