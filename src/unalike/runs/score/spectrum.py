"""Entropies of kernel matrices with their influence functions.

The smaller of two matrices with the same eigenvalues is decomposed.

With feature vectors `φ_i` of unit length, `K_ij = <φ_i, φ_j>`, the matrix `K / n` (n, n) and the
operator `A = Σ_i φ_i φ_iᵀ / n` (d, d) have the same eigenvalues. Giving sample `i` more weight
moves `A` in the direction `φ_i φ_iᵀ - A`, so that

    H_1 = -tr A log A          moves by  -Σ_j log λ_j <φ_i, v_j>² - H_1
    H_2 = -log tr A²           moves by  -2 (Σ_j λ_j <φ_i, v_j>² / Σ_j λ_j² - 1)
    H_∞ = -log λ_1             moves by  -(<φ_i, v_1>² / λ_1 - 1)

with the eigenvectors `v_j` of `A`: all that is kept of these is `<φ_i, v_j>²`, the loads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unalike.kernels import Cosine, Kernel, unit_rows

_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Block:
    """Eigenvalues (r,) of `A`, the samples `rows` (b,) that they belong to, and the loads (b, r) of
    those.
    """

    rows: Tensor
    eigenvalues: Tensor
    loads: Tensor


@dataclass(frozen=True)
class Spectrum:
    """All eigenvalues of a normalised kernel matrix of `size` samples, in blocks where it falls
    apart.
    """

    size: int
    blocks: Sequence[Block]

    def entropy(self, order: float) -> tuple[float, Tensor]:
        """`H_q` in nats for q = 1, 2 or ∞, and its influence function (n,), of mean 0."""
        values = torch.cat([b.eigenvalues for b in self.blocks])
        kept = values[values > _EPS + self.size * _EPS * values.max()]
        total = kept.sum()
        if order == 1:
            entropy = max(0.0, -(kept / total * (kept / total).log()).sum().item())
            # an eigenvalue at the rounding error has no load either, so its logarithm only has to
            # be finite
            return entropy, self._each(lambda v: -v.clamp_min(_EPS**2).log()) - entropy
        if order == 2:
            purity = values.square().sum()
            return -math.log(purity), -2 * (self._each(lambda v: v) / purity - 1)
        top = values.max()
        ties = values >= top * (1 - 1e-9)
        chosen = self._each(lambda v: (v >= top * (1 - 1e-9)).double())
        return -math.log(top), -(chosen / (ties.sum() * top) - 1)

    def _each(self, weight: object) -> Tensor:
        found = torch.zeros(self.size, dtype=torch.float64)
        for block in self.blocks:
            found[block.rows] = block.loads @ weight(block.eigenvalues)  # type: ignore[operator]
        return found


def of_features(features: Tensor, kernel: Kernel) -> Spectrum:
    """The spectrum of a kernel's matrix of features (n, d), in float64.

    Cost: O(n² d + n³), or O(n d² + d³) for the cosine where d is below n.
    """
    return Spectrum(
        len(features),
        [_block(torch.arange(len(features)), features.double(), kernel, len(features))],
    )


def of_gram(gram: Tensor) -> Spectrum:
    """The spectrum of a normalised kernel matrix (n, n). O(n³)."""
    return Spectrum(len(gram), [_of_gram(torch.arange(len(gram)), gram.double(), len(gram))])


def within_groups(features: Tensor, kernel: Kernel, groups: Tensor) -> Spectrum:
    """The spectrum of `K_X ∘ K_Y` where `K_Y` is 1 for samples of the same group and 0 for others:
    a block a group.
    """
    rows = [(groups == g).nonzero()[:, 0] for g in groups.unique()]
    return Spectrum(
        len(features), [_block(r, features[r].double(), kernel, len(features)) for r in rows]
    )


def of_groups(groups: Tensor) -> Spectrum:
    """The spectrum of that `K_Y` alone: the shares of the groups."""
    blocks = []
    for group in groups.unique():
        rows = (groups == group).nonzero()[:, 0]
        ones = torch.ones(len(rows), 1, dtype=torch.float64)
        blocks.append(
            Block(rows, torch.tensor([len(rows) / len(groups)], dtype=torch.float64), ones)
        )
    return Spectrum(len(groups), blocks)


def _block(rows: Tensor, features: Tensor, kernel: Kernel, size: int) -> Block:
    if isinstance(kernel, Cosine) and features.shape[1] < len(features):
        units = unit_rows(features)
        eigenvalues, vectors = torch.linalg.eigh(units.T @ units / size)
        return Block(rows, eigenvalues.clamp_min(0), (units @ vectors).square())
    return _of_gram(rows, kernel(features, features), size)


def _of_gram(rows: Tensor, gram: Tensor, size: int) -> Block:
    eigenvalues, vectors = torch.linalg.eigh((gram + gram.T) / 2 / size)
    eigenvalues = eigenvalues.clamp_min(0)
    return Block(rows, eigenvalues, size * eigenvalues * vectors.square())
