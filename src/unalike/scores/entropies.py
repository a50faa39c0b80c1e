"""Rényi entropies of a kernel matrix, or of any symmetric matrix with eigenvalues of sum 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unalike.errors import OptionError, shown
from unalike.options import number_or_nan
from unalike.scores.grams import TOLERANCE, normalised


def entropy(gram: Tensor, order: float = 1.0) -> float:
    """Rényi entropy `H_q(K)` in nats of a normalised kernel matrix, from 0 to log n.

    0 where all samples are alike; it falls as the order grows.

    Source: Sánchez Giraldo, Rao and Príncipe 2014, "Measures of Entropy from Data Using Infinitely
    Divisible Kernels" (arXiv:1211.2459).

    Args:
        gram: `K` (n, n), symmetric with a unit diagonal, positive semi-definite.
        order: `q`, at least 0, `math.inf` included.

    Raises:
        OptionError: for a negative order or a matrix of another form.

    Cost: O(n³) for the eigenvalues; O(n²) at order 2, which needs none.

    Example:
        >>> import torch
        >>> entropy(torch.eye(4)) == math.log(4)
        True
    """
    order = check_order(order)
    K = normalised("gram", gram)
    if order == 2:
        return -math.log(purity(K))
    return spectral_entropy(_support(K), order)


def spectral_entropy(eigenvalues: Tensor, order: float) -> float:
    """`H_q` of eigenvalues above 0 that sum to 1.

    Example:
        >>> import torch
        >>> spectral_entropy(torch.tensor([0.5, 0.5]), math.inf) == math.log(2)
        True
    """
    if order == math.inf:
        return -math.log(eigenvalues.max().item())
    logs = eigenvalues.log()
    if abs(order - 1) < 1e-9:  # log Σ λ^q and 1 - q both vanish; the limit is Shannon's entropy
        return max(0.0, -(eigenvalues * logs).sum().item())
    return max(0.0, torch.logsumexp(order * logs, dim=0).item() / (1 - order))


def check_order(order: float) -> float:
    """An order of an entropy as a float; any other is refused."""
    number = number_or_nan(order)
    if not number >= 0:
        raise OptionError(
            f"order is {shown(order)}; it must be a number of at least 0, math.inf included, "
            "as in order=1"
        )
    return number


def purity(K: Tensor) -> float:
    """`||K / n||_F²`, the sum of the squared eigenvalues of `K / n`."""
    return (K.double().square().sum() / len(K) ** 2).item()


def _support(K: Tensor) -> Tensor:
    """Eigenvalues of `K / n` above the rounding of its entries, scaled to sum 1, in float64."""
    n = len(K)
    eigenvalues = torch.linalg.eigvalsh(K.double() / n)
    if eigenvalues[0] < -TOLERANCE:
        raise OptionError(
            f"the Gram matrix has the eigenvalue {n * eigenvalues[0].item():.3g}; a kernel's "
            "matrix has none below 0: compute it with a positive definite kernel, such as "
            "unalike.kernels.Gaussian(0.8)"
        )
    return above_rounding(eigenvalues, torch.finfo(K.dtype).eps)


def above_rounding(eigenvalues: Tensor, entries: float) -> Tensor:
    """Eigenvalues, ascending, that are more than rounding; scaled to sum 1 again.

    Args:
        eigenvalues: (m,) in float64.
        entries: the relative rounding error of that matrix's entries.
    """
    # entries off by a share eps move an eigenvalue by eps at most (Weyl), for they sum to 1 on the
    # diagonal; the solver adds its own error
    rounding = entries + len(eigenvalues) * torch.finfo(torch.float64).eps * eigenvalues[-1]
    kept = eigenvalues[eigenvalues > rounding]
    return kept / kept.sum()
