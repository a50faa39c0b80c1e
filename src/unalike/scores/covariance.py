"""Feature maps of kernels, and the covariance of their features.

It has the spectrum of the kernel matrix.

With features `φ(x)`, `k(x, y) = <φ(x), φ(y)>`, the m × m matrix `C = Σ φ φᵀ / n` and the n × n
matrix `K / n` have the same eigenvalues above 0. A cosine kernel has `φ(x) = x / ||x||`, exactly; a
Gaussian one has random features, and a product of kernels the product of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unalike.errors import OptionError, shown
from unalike.kernels import Cosine, Gaussian, Kernel, unit_rows
from unalike.options import number_or_nan
from unalike.scores.grams import check_pairs

LARGEST = 4096  # features: a covariance of 128 MiB, whose eigenvalues take minutes on one core
GROUPS = 8  # of frequencies, over which errors are measured
_HELD = 2**20  # feature values at a time, 8 MiB


@dataclass(frozen=True)
class FeatureMap:
    """Features of a kernel: frequencies (r, d) of a Gaussian one; none of a cosine kernel.

    They are drawn from N(0, 1 / bandwidth²).

    Source: Rahimi and Recht 2007, "Random Features for Large-Scale Kernel Machines".
    """

    size: int
    frequencies: Tensor | None


def feature_maps(
    kernels: Sequence[Kernel], sizes: Sequence[int], frequencies: int, seed: int
) -> list[FeatureMap]:
    """Make the feature map of each kernel on rows of `sizes` numbers.

    Equal arguments give equal frequencies, on every machine.

    Raises:
        OptionError: for a kernel that has no features here, or a number of frequencies that is not
            a multiple of the groups.
    """
    check_frequencies(frequencies)
    check_seed(seed)
    generator, maps = torch.Generator().manual_seed(int(seed)), []
    for kernel, size in zip(kernels, sizes, strict=True):
        check_kernel(kernel)
        drawn = None
        if isinstance(kernel, Gaussian):
            drawn = (
                torch.randn(frequencies, size, generator=generator, dtype=torch.float64)
                / kernel.bandwidth
            )
        maps.append(FeatureMap(size, drawn))
    return maps


def check_frequencies(frequencies: int) -> None:
    """Refuse frequencies that do not split into groups of one size."""
    number = number_or_nan(frequencies, whole=True)
    if not (number >= GROUPS and number % GROUPS == 0):
        raise OptionError(
            f"frequencies is {shown(frequencies)}; it must be a multiple of {GROUPS} above 0, "
            f"for errors are measured over {GROUPS} groups: pass frequencies=512"
        )


def check_seed(seed: int) -> None:
    """Refuse a seed that no generator takes."""
    if not -(2**63) <= number_or_nan(seed, whole=True) < 2**64:
        raise OptionError(
            f"seed is {shown(seed)}; it must be a whole number of 64 bits, as in seed=0"
        )


def check_kernel(kernel: Kernel) -> None:
    """Refuse a kernel that has no features here."""
    if not isinstance(kernel, Gaussian | Cosine):
        raise OptionError(
            f"the kernel is {kernel!r}; features are known for Gaussian and Cosine: pass one of "
            "them, or use unalike.scores.vendi, which takes any"
        )


def features(maps: Sequence[FeatureMap], tables: Sequence[Tensor]) -> Tensor:
    """Features (n, r, w) of the product of the kernels; r = 1 where none of them is random.

    Phases of Gaussian kernels add up, for their product is a Gaussian kernel of the rows side by
    side, each over its bandwidth; what is left is `(cos, sin) / √r`. Unit rows of cosine kernels
    multiply it as outer products.
    """
    random = [
        x @ m.frequencies.to(x).T
        for m, x in zip(maps, tables, strict=True)
        if m.frequencies is not None
    ]
    product = torch.ones_like(tables[0][:, :1, None])
    if random:
        phases = torch.stack(random).sum(dim=0)
        product = torch.stack([phases.cos(), phases.sin()], dim=2) / phases.shape[1] ** 0.5
    for m, x in zip(maps, tables, strict=True):
        if m.frequencies is None:
            product = (product[:, :, :, None] * unit_rows(x)[:, None, None, :]).flatten(2)
    return product


@dataclass(frozen=True)
class Covariance:
    """The sum `Σ φ φᵀ` (m, m) over `n` samples; two of them add up.

    `blocks` is the number of frequencies, or 1 where the features are exact.
    """

    total: Tensor
    n: int
    blocks: int

    def __add__(self, other: Covariance) -> Covariance:
        return Covariance(self.total + other.total.to(self.total), self.n + other.n, self.blocks)

    def matrix(self, kept: Tensor | None = None) -> Tensor:
        """`C` (r, w, r, w), scaled to trace 1, of the kept frequencies where they are given."""
        width = len(self.total) // self.blocks
        C = (self.total / self.n).view(self.blocks, width, self.blocks, width)
        return (
            C
            if kept is None or self.blocks == 1
            else C[kept][:, :, kept] * (self.blocks / len(kept))
        )


def covariance(maps: Sequence[FeatureMap], tables: Sequence[Tensor]) -> Covariance:
    """Covariance of the features of rows (n, d), computed in blocks of rows.

    Raises:
        OptionError: where the tables differ in length, their rows do not have the maps' sizes, or
            there are too many features.

    Cost: O(n m²) time for m features, O(m²) memory.
    """
    for table in tables[1:]:
        check_pairs(tables[0], table)
    blocks = max((len(m.frequencies) for m in maps if m.frequencies is not None), default=1)
    m = check_features(maps, blocks)
    total = torch.zeros(m, m, dtype=torch.float64, device=tables[0].device)
    rows = max(1, _HELD // m)
    for start in range(0, len(tables[0]), rows):
        phi = features(maps, [table[start : start + rows] for table in tables]).flatten(1)
        total.addmm_(phi.T, phi)
    return Covariance(total, len(tables[0]), blocks)


def check_features(maps: Sequence[FeatureMap], blocks: int) -> int:
    """The number of features, if their covariance fits into memory."""
    count = 1 if blocks == 1 else 2 * blocks
    parts = [] if blocks == 1 else [f"2 · {blocks} waves"]
    for size in (m.size for m in maps if m.frequencies is None):
        count, parts = count * size, [*parts, f"{size} numbers a row"]
    if count > LARGEST:
        raise OptionError(
            f"the features of the kernel are {count} ({' × '.join(parts)}); at most {LARGEST} are "
            "allowed, as time and memory grow with their square: take fewer frequencies, project "
            "long rows to fewer numbers, or pass "
            "unalike.kernels.Gaussian(unalike.scores.median_bandwidth(X)) in place of Cosine(): a "
            "product of Gaussians has 2 · frequencies"
        )
    return count
