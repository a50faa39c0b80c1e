"""Greedy objectives: the gain of each candidate over what is chosen already.

All see candidates through the same kernel matrix `K` with `K[i, i] = 1`. Earlier samples count as
chosen from the start.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

_LEAST = 1e-10  # conditional variance of a candidate that what is chosen explains in full
_EIGENVALUES = 1 << 22  # entries of the matrices that are decomposed at a time


class Earlier:
    """The kernel values of candidates with earlier samples.

    Args:
        nearest: (M,) the largest kernel value of each candidate with any earlier sample; 0 without.
        gram: (m, m) of the earlier samples that are most like the candidates.
        cross: (M, m) of the candidates with those.
    """

    def __init__(self, nearest: Tensor, gram: Tensor, cross: Tensor) -> None:
        self.nearest = nearest
        self.gram = gram
        self.cross = cross

    @classmethod
    def none(cls, candidates: int) -> Earlier:
        """No earlier samples."""
        empty = torch.zeros(0, 0, dtype=torch.float64)
        nothing = torch.zeros(candidates, dtype=torch.float64)
        return cls(nothing, empty, nothing[:, None][:, :0])


class Objective(Protocol):
    """A greedy objective; made of `K` (M, M) and the earlier samples."""

    def gains(self, rows: Tensor) -> Tensor:
        """The gain of adding each of these candidates to what is chosen: (m,) for numbers (m,)."""
        ...

    def add(self, row: int) -> None:
        """Choose a candidate."""
        ...


class Farthest:
    """Farthest point (Gonzalez 1985): the distance to the nearest chosen sample.

    The distance is that of the kernel, `‖φ(a) - φ(b)‖ = √(2 - 2 k(a, b))`, at most √2: outliers are
    farther than others, but not without bounds. It orders candidates as the Euclidean distance
    does. Distances beyond the largest one within a group count as that one, so that samples of
    unlike prompts and unrelated earlier ones make no difference.

    Cost: O(M) a choice.
    """

    def __init__(self, K: Tensor, earlier: Earlier, same: Tensor) -> None:
        self._K = K
        self._near = earlier.nearest.clone()
        self._least = float(torch.where(same, K, 1.0).min())

    def gains(self, rows: Tensor) -> Tensor:
        return (2 - 2 * self._near[rows].clamp_min(self._least)).clamp_min(0).sqrt()

    def add(self, row: int) -> None:
        self._near = torch.maximum(self._near, self._K[:, row])


class LogDeterminant:
    """Greedy MAP of a determinantal point process (Chen, Zhang & Zhou 2018, Algorithm 1): the log
    of a candidate's variance under a Gaussian process that knows what is chosen, which is
    `log det K_S∪i - log det K_S`.

    Cost: O(M s) for the s-th choice.
    """

    def __init__(self, K: Tensor, earlier: Earlier, same: Tensor) -> None:
        count = len(earlier.gram)
        self._K = torch.cat(
            [
                torch.cat([K, earlier.cross], dim=1),
                torch.cat([earlier.cross.T, earlier.gram], dim=1),
            ]
        )
        self._variance = torch.ones(len(self._K), dtype=torch.float64)
        self._factor = torch.zeros(len(self._K), 0, dtype=torch.float64)
        for row in range(len(K), len(K) + count):
            self.add(row)

    def gains(self, rows: Tensor) -> Tensor:
        return self._variance[rows].clamp_min(_LEAST).log()

    def add(self, row: int) -> None:
        variance = float(self._variance[row])
        if variance <= _LEAST:  # what is chosen explains it, so that it explains nothing more
            return
        column = self._K[:, row] - self._factor @ self._factor[row]
        column = column / math.sqrt(variance)
        self._factor = torch.cat([self._factor, column[:, None]], dim=1)
        self._variance = self._variance - column.square()


class Vendi:
    """The Vendi score (Friedman & Dieng 2023) of what is chosen with the candidate: the entropy of
    the eigenvalues of `K_S∪i / (s + 1)`, which is the log of the score.

    Cost: O(M s³) for the s-th choice.
    """

    def __init__(self, K: Tensor, earlier: Earlier, same: Tensor) -> None:
        self._K = torch.cat([K, earlier.cross], dim=1)
        self._gram = earlier.gram
        self._chosen = list(range(len(K), len(K) + len(earlier.gram)))

    def gains(self, rows: Tensor) -> Tensor:
        size = len(self._chosen) + 1
        step = max(1, _EIGENVALUES // size**2)
        return torch.cat([self._entropies(part, size) for part in rows.split(step)])

    def _entropies(self, rows: Tensor, size: int) -> Tensor:
        grams = torch.ones(len(rows), size, size, dtype=torch.float64)
        grams[:, :-1, :-1] = self._gram
        cross = self._K[rows][:, self._chosen]
        grams[:, :-1, -1] = grams[:, -1, :-1] = cross
        values = torch.linalg.eigvalsh(grams / size).clamp_min(0)
        return -torch.special.xlogy(values, values).sum(dim=1)

    def add(self, row: int) -> None:
        cross = self._K[row, self._chosen][:, None]
        one = torch.ones(1, 1, dtype=torch.float64)
        self._gram = torch.cat(
            [torch.cat([self._gram, cross], dim=1), torch.cat([cross.T, one], dim=1)]
        )
        self._chosen.append(row)


class Facility:
    """Facility location: how much nearer all candidates are to what is chosen, on average.

    `mean_i max_{j ∈ S} K[i, j]` grows by the gain (Nemhauser, Wolsey & Fisher 1978 bound the greedy
    choice).

    Cost: O(M²) a choice.
    """

    def __init__(self, K: Tensor, earlier: Earlier, same: Tensor) -> None:
        self._K = K
        self._near = earlier.nearest.clone()

    def gains(self, rows: Tensor) -> Tensor:
        return (self._K[:, rows] - self._near[:, None]).clamp_min(0).mean(dim=0)

    def add(self, row: int) -> None:
        self._near = torch.maximum(self._near, self._K[:, row])
