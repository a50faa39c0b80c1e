"""Measure the distance between the distributions of two sets of features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.metrics.features import BLOCK, common_scale, pair, rows_of_a_block


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """Fréchet distance of normal distributions fitted to two sets; smaller is better.

    0 for equal sets.

        ||μ_r - μ_g||² + tr(C_r + C_g - 2 (C_r^½ C_g C_r^½)^½)

    With Inception features it is called FID, with DINOv2 features FD-DINOv2. It falls as the number
    of samples grows, so only figures of the same numbers compare, and below some thousand samples
    it mostly measures their number.

    Source: Heusel et al. 2017 (arXiv:1706.08500), from Dowson and Landau 1982. Departure: the
    square root by a symmetric eigendecomposition, which never turns complex.

    Args:
        real: features (n, …), n at least 2.
        generated: features (m, …) by the same extractor, m at least 2.

    Raises:
        OptionError: for fewer than two samples, and features that are not finite or do not fit
            together.

    Cost: O((n + m) d² + d³) time, O(d²) memory.

    Example:
        >>> import torch
        >>> X = torch.tensor([[0.0], [2.0]])
        >>> round(frechet_distance(X, X + 3), 6)
        9.0
    """
    x, g = pair("real", real, "generated", generated, least=2)
    scale = common_scale(x, g)
    x, g = x / scale, g / scale
    covariance_x, covariance_g = _covariance(x), _covariance(g)
    root = _square_root(covariance_x)
    cross = torch.linalg.eigvalsh(root @ covariance_g @ root).clamp_min(0).sqrt().sum()
    squared = (
        (x.mean(dim=0) - g.mean(dim=0)).square().sum()
        + covariance_x.trace()
        + covariance_g.trace()
        - 2 * cross
    )
    return _representable(max(0.0, squared.item()) * scale * scale)


def _covariance(x: Tensor) -> Tensor:
    centred = x - x.mean(dim=0)
    return centred.T @ centred / (len(x) - 1)


def _square_root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def kernel_distance(real: Tensor, generated: Tensor, *, block: int = BLOCK) -> float:
    """Kernel distance (KID): unbiased squared maximum mean discrepancy, about 0 for equal sets.

    The kernel is `k(a, b) = (<a, b> / d + 1)³`.

    It may be slightly negative. With Inception features it is called KID. Unlike the Fréchet
    distance its expectation does not depend on the numbers of samples. All pairs are used, in place
    of the mean over random subsets that some implementations take.

    Source: Bińkowski et al. 2018 (arXiv:1801.01401).

    Args:
        real: features (n, …), n at least 2.
        generated: features (m, …) by the same extractor, m at least 2.
        block: kernel values held at a time.

    Raises:
        OptionError: as `frechet_distance` does.

    Cost: O((n + m)² d) time.

    Example:
        >>> import torch
        >>> round(kernel_distance(torch.zeros(4, 1), torch.ones(4, 1)), 6)  # k: 1 + 8 - 2 · 1
        7.0
    """
    x, g = pair("real", real, "generated", generated, least=2)
    centre = (x.mean(dim=0) + g.mean(dim=0)) / 2
    u, v = x - centre, g - centre
    own = sum(
        (_kernel_sum(a, a, centre, block) - _kernel_diagonal(a, centre).sum())
        / (len(a) * (len(a) - 1))
        for a in (u, v)
    )
    return _representable((own - 2 * _kernel_sum(u, v, centre, block) / (len(u) * len(v))).item())


def _kernel_sum(a: Tensor, b: Tensor, centre: Tensor, block: int) -> Tensor:
    total, size = a.new_zeros(()), a.shape[1]
    along_a, along_b, level = a @ centre / size, b @ centre / size, _level(centre)
    step = rows_of_a_block(block, len(b))
    for rows, along in zip(a.split(step), along_a.split(step), strict=True):
        total += _kernel(rows @ b.T / size, along[:, None], along_b, level).sum()
    return total


def _kernel_diagonal(a: Tensor, centre: Tensor) -> Tensor:
    size = a.shape[1]
    along = a @ centre / size
    return _kernel(a.square().sum(dim=1) / size, along, along, _level(centre))


def _level(centre: Tensor) -> float:
    return centre.square().mean().item() + 1


def _kernel(product: Tensor, along_a: Tensor, along_b: Tensor, level: float) -> Tensor:
    """`k(a, b) - k(a, c) - k(c, b) + k(c, c)` for rows that the centre `c` was taken off.

    What is left out depends on one row alone and cancels in the discrepancy; with a large common
    offset it would take all digits along.

    Args:
        product: `<a - c, b - c> / d`.
        along_a, along_b: `<a - c, c> / d` and `<b - c, c> / d`.
        level: `<c, c> / d + 1`.
    """
    q = level + along_a + along_b
    return product * (3 * q * (q + product) + product**2) + 3 * along_a * along_b * (level + q)


def _representable(value: float) -> float:
    if not math.isfinite(value):
        raise OptionError(
            "the features are so large that float64 cannot hold their distance; scale both arrays "
            "by one factor"
        )
    return value
