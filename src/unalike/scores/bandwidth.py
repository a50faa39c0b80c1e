"""Choose a bandwidth for Gaussian kernels from the data."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.kernels import power_of_two, resolved_squares
from unalike.scores.grams import checked_rows

_HELD = 2**23  # distances at a time, 64 MiB
_SORTED = 2**24  # distances that are sorted at last, 128 MiB


def median_bandwidth(X: Tensor) -> float:
    """The exact median Euclidean distance between all pairs of samples: σ for `Gaussian`.

    In the units of the data.

    Two samples at that distance have `k = exp(-1/2)`. It is one rule among several and scores
    depend on it: compare sets at one bandwidth, that of the reference set for instance, never each
    at its own.

    Args:
        X: features (n, …), n at least 2.

    Raises:
        OptionError: for fewer than two samples, features that are not finite, or where half of the
            pairs are equal, so that it would be 0.

    Cost: O(n² d) time, once for up to 5,793 samples and three to five times beyond, in blocks:
    about 0.3 GiB beside X at any n. For a quick one pass a random part of the rows, such as
    `X[torch.randperm(len(X), generator=generator)[:5000]]`.

    Example:
        >>> import torch
        >>> median_bandwidth(torch.tensor([[0.0], [1.0], [3.0]]))  # of 1, 2 and 3
        2.0
    """
    rows = checked_rows("X", X)
    n = len(rows)
    if n < 2:
        raise OptionError(
            "X has 1 sample; a bandwidth needs at least 2, for it comes from the distances between "
            "them"
        )
    scale = power_of_two(rows)
    bandwidth = scale * math.sqrt(_ranked(rows / scale, (n * (n - 1) // 2 - 1) // 2))
    if bandwidth == 0:
        raise OptionError(
            "half of the pairs in X are of equal samples, so that the median distance is 0; remove "
            "copies, as in X.unique(dim=0), or pass a bandwidth of your own, as in Gaussian(0.8)"
        )
    return bandwidth


def _ranked(rows: Tensor, rank: int) -> float:
    """The squared distance of this rank, 0 for the smallest, without holding all distances.

    The bits of numbers that are not negative sort like the numbers.

    Each pass counts how many lie in each of 2¹⁶ equal ranges of bits and goes on within the one
    that has the rank.
    """
    count, low, bits = len(rows) * (len(rows) - 1) // 2, 0, 63
    while count > _SORTED and bits > 0:
        bits = max(0, bits - 16)
        counts = torch.zeros(2**16 + 1, dtype=torch.int64, device=rows.device)
        for codes in _within(rows, low, bits + 16):
            counts += torch.bincount((codes - low) >> bits, minlength=2**16 + 1)
        reached = counts.cumsum(dim=0)
        chosen = int(torch.searchsorted(reached, rank, right=True))
        rank -= int(reached[chosen] - counts[chosen])
        count, low = int(counts[chosen]), low + (chosen << bits)
    if bits == 0:
        return torch.tensor(low).view(torch.float64).item()
    return (
        torch.cat(list(_within(rows, low, bits)))
        .kthvalue(rank + 1)
        .values.view(torch.float64)
        .item()
    )


def _within(rows: Tensor, low: int, bits: int) -> Iterator[Tensor]:
    """Yield the squared distances of all pairs as integers of the same bits.

    Those from `low` to `low + 2**bits`.
    """
    step = max(1, _HELD // len(rows))
    for start in range(0, len(rows), step):
        a, b = slice(start, start + step), slice(start, None)
        squared = resolved_squares(rows[a], rows[b]).clamp_min(0)
        codes = squared[torch.ones_like(squared, dtype=torch.bool).triu(1)].view(torch.int64)
        yield codes if bits >= 63 else codes[(codes >= low) & (codes - low < 1 << bits)]
