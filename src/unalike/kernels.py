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

from unalike.errors import OptionError


class Kernel(Protocol):
    """What the scores and the guidance ask of a kernel."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """The Gram matrix (n, m) of rows (n, d) and (m, d)."""
        ...


def unit_rows(x: Tensor) -> Tensor:
    """Rows of `(…, d)` scaled to Euclidean norm 1. A row of zeros stays zero: it has no direction.

    Example:
        >>> import torch
        >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    return x / x.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances (n, m) between the rows of `(n, d)` and `(m, d)`, never negative,
    exactly 0 on the diagonal of `a, a`.

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
        if not (math.isfinite(self.bandwidth) and self.bandwidth > 0):
            raise OptionError(
                f"bandwidth is {self.bandwidth}; it must be a finite number above 0, such as Gaussian(0.8)"
            )

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return self.log(a, b).exp()

    def log(self, a: Tensor, b: Tensor) -> Tensor:
        """`log k`, which keeps its order where `k` itself would underflow to 0."""
        return squared_distances(a, b) / (-2 * self.bandwidth**2)


@dataclass(frozen=True)
class Cosine:
    """`k(a, b) = <a, b> / (||a|| ||b||)`, from -1 to 1; 0 between a row of zeros and any other row.

    Example:
        >>> import torch
        >>> Cosine()(torch.tensor([[1.0, 0.0]]), torch.tensor([[5.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]))
        tensor([[ 1.,  0., -1.]])
    """

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        gram = (unit_rows(a) @ unit_rows(b).T).clamp(-1, 1)
        return gram.fill_diagonal_(1) if a is b else gram
