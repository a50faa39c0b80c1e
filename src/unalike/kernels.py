"""Kernels on row vectors, normalised so that `k(a, a) = 1`.

A kernel object called on `(n, d)` and `(m, d)` gives the `(n, m)` Gram matrix. The product of two
Gram matrices entry by entry, of samples and of their prompts, is the Gram matrix of the pairs: that
is how entropies are conditioned on prompts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unalike.errors import OptionError, shown
from unalike.options import number_or_nan

_UNSURE = 1e4
"""A squared distance is measured by differences where its rounding may exceed one part in this."""
_DIFFERENCES = 1 << 22


class Kernel(Protocol):
    """Interface of a kernel for scores and guidance."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """The Gram matrix (n, m) of rows (n, d) and (m, d)."""
        ...


def unit_rows(x: Tensor) -> Tensor:
    """Scale rows of `(…, d)` to Euclidean norm 1; a row of zeros has no direction and stays zero.

    Example:
        >>> import torch
        >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    # The largest entry is brought near 1 by a power of two, which is exact, so that squares neither
    # overflow nor vanish and rows of an ordinary size keep every bit.
    x = x / _power_of_two(x.detach().abs().amax(dim=-1, keepdim=True)) if x.shape[-1] else x
    return x / x.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)


def power_of_two(x: Tensor) -> float:
    """The power of two that divides `x` so that its largest entry lies in [1, 2).

    1 where all entries are 0. Dividing by it changes no digit.

    Example:
        >>> import torch
        >>> power_of_two(torch.tensor([3.0, -5.0]))
        4.0
    """
    return float(_power_of_two(x.detach().abs().max())) if x.numel() else 1.0


def _power_of_two(largest: Tensor) -> Tensor:
    """The largest power of two not above each of these numbers; 1 for 0 and infinity."""
    usable = (largest > 0) & largest.isfinite()
    return torch.where(usable, largest / (2 * torch.frexp(largest).mantissa), 1)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances (n, m) between the rows of `(n, d)` and `(m, d)`.

    Never negative, and exactly 0 on the diagonal of `a, a`.

    One matrix product on rows centred at the mean of `b`, so that a common offset costs no digits.
    O(n m d).

    Example:
        >>> import torch
        >>> squared_distances(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        tensor([[25.,  1.]])
    """
    centre = b.mean(dim=0, keepdim=True)
    u, v = a - centre, b - centre
    squared = u.square().sum(1, keepdim=True) + v.square().sum(1) - 2 * (u @ v.T)
    squared = squared.clamp_min(0)
    return squared.fill_diagonal_(0) if a is b else squared


def resolved_squares(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (n, m) like `squared_distances`, accurate for near rows too.

    The product loses the digits of distances that are small beside the rows themselves; those pairs
    are measured by differences, so that exactly equal rows are at 0 and no others are. The squares
    of the rows must be normal numbers. O(n m d), and O(d) for each near pair.

    Example:
        >>> import torch
        >>> rows = torch.tensor([[1e9, 0.0], [0.0, 1e-3], [0.0, 0.0]], dtype=torch.float64)
        >>> resolved_squares(rows, rows)[1, 2].item()
        1e-06
    """
    centre = b.mean(dim=0)
    u, v = a - centre, b - centre
    sizes = u.square().sum(dim=1, keepdim=True) + v.square().sum(dim=1)
    squared = torch.addmm(sizes, u, v.T, alpha=-2)
    unsure = squared <= _UNSURE * torch.finfo(a.dtype).eps * a.shape[1] * sizes
    for pairs in unsure.nonzero().split(max(1, _DIFFERENCES // max(1, a.shape[1]))):
        i, j = pairs.T
        squared[i, j] = (a[i] - b[j]).square().sum(dim=1)
    return squared


@dataclass(frozen=True)
class Gaussian:
    """`k(a, b) = exp(-||a - b||² / (2 bandwidth²))`.

    Args:
        bandwidth: σ, in the units of the data; above 0.

    Raises:
        OptionError: for a bandwidth that is not a finite number above 0.

    Example:
        >>> import torch
        >>> Gaussian(1.0)(torch.zeros(1, 2), torch.tensor([[0.0, 2.0]])).item()  # exp(-2)
        0.1353352814912796
    """

    bandwidth: float

    def __post_init__(self) -> None:
        if not 0 < number_or_nan(self.bandwidth) < math.inf:
            raise OptionError(
                f"bandwidth is {shown(self.bandwidth)}; it must be a finite number above 0, such "
                "as Gaussian(0.8)"
            )

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return self.log(a, b).exp()

    def log(self, a: Tensor, b: Tensor) -> Tensor:
        """`log k`, which keeps its order where `k` itself would underflow to 0."""
        # In units of a power of two near the bandwidth, so that no square overflows or vanishes
        # where the kernel does not.
        most = 1000 if a.dtype == torch.float64 else 125
        unit = 2.0 ** max(-most, min(most, math.frexp(self.bandwidth)[1]))
        same, a = a is b, a / unit
        return squared_distances(a, a if same else b / unit) / (-2 * (self.bandwidth / unit) ** 2)


@dataclass(frozen=True)
class Cosine:
    """`k(a, b) = <a, b> / (||a|| ||b||)`, from -1 to 1; 0 between a row of zeros and any other row.

    Example:
        >>> import torch
        >>> rows = torch.tensor([[5.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
        >>> Cosine()(torch.tensor([[1.0, 0.0]]), rows)
        tensor([[ 1.,  0., -1.]])
    """

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        gram = (unit_rows(a) @ unit_rows(b).T).clamp(-1, 1)
        return gram.fill_diagonal_(1) if a is b else gram
