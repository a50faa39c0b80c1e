"""Scores of many samples from the covariance of features, with their error.

Time grows with n; memory does not.

Source: Ospanov, Zhang, Jalali, Cao, Bogdanov and Farnia 2024, "Towards a Scalable Reference-Free
Evaluation of Generative Models" (FKEA, arXiv:2407.02961). Departures: the error; conditional
scores; at order 2 pairs of a frequency with itself are left out of `||C||_F²`, which makes it right
on average at any number of frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unalike.kernels import Cosine, Kernel
from unalike.scores.covariance import GROUPS, Covariance, covariance, feature_maps
from unalike.scores.entropies import above_rounding, check_order, spectral_entropy
from unalike.scores.grams import checked_rows

FREQUENCIES = 512

Terms = tuple[tuple[int, tuple[int, ...]], ...]
"""A score as the exponential of a sum of entropies: of each the sign, and which of X (0) and Y (1)
its kernel is a product over.
"""
VENDI: Terms = ((1, (0,)),)
CONDITIONAL: Terms = ((1, (0, 1)), (-1, (1,)))
INFORMATION: Terms = ((1, (0,)), (1, (1,)), (-1, (0, 1)))


@dataclass(frozen=True)
class Estimate:
    """A score from random features, and how far it may be from the exact one.

    Attributes:
        value: the score.
        error: standard error of `value`, measured over eight groups of frequencies, and so itself
            uncertain by about a quarter; 0 where the features are exact.
        bias: how much `value` is expected to be above the exact score (below it, where negative)
            because frequencies are few, measured likewise. Where it is not small beside `value`,
            take more frequencies: a spectrum of 2 r numbers cannot hold a score beyond 2 r.
    """

    value: float
    error: float
    bias: float


def approximate_vendi(
    X: Tensor,
    order: float = 1.0,
    *,
    kernel: Kernel | None = None,
    frequencies: int = FREQUENCIES,
    seed: int = 0,
) -> Estimate:
    """Vendi score `exp(H_q)` of many samples, with its error.

    As `vendi` gives it for few; `order=2` is the RKE score.

    For `Gaussian`, `H_q` is that of the covariance `C` (2 r, 2 r) of the features `(cos <w_i, x>,
    sin <w_i, x>) / √r`, `w_i` drawn from N(0, 1 / bandwidth²). Its spectrum approaches that of `K /
    n`: with K̃ the kernel matrix that the features give,

        E ||K̃ / n - K / n||_F² = Σ_ij (1 - k_ij²)² / (2 r n²) ≤ 1 / (2 r),
        ||λ̃ - λ||_2 ≤ ||K̃ / n - K / n||_F,

    and with probability `1 - δ` the norm is below `√(1 / (2 r)) + √(2 log(1 / δ) / r)`. So
    directions whose eigenvalues are small beside `1 / √r` are not resolved: `error` and `bias` say
    what that does to the score. For `Cosine` the covariance (d, d) is exact.

    Source: Ospanov et al. 2024 (FKEA, arXiv:2407.02961). Departure: at order 2, `Σ λ²` without the
    pairs of a frequency with itself, whose mean is that of the exact kernel matrix.

    Args:
        X: features (n, …), one row a sample.
        order: `q`, at least 0, `math.inf` included.
        kernel: on the features; `Cosine()` where none is given. `Gaussian(median_bandwidth(X))` for
            features of more than 4,096 numbers.
        frequencies: `r`, a multiple of 8.
        seed: of the frequencies. Figures compare best with the same ones.

    Raises:
        OptionError: for a negative order, another kernel, wrong features, or more than 4,096
            features of the kernel.

    Cost: O(n r (d + r)) time and O(r²) memory beside X in float64, then nine eigendecompositions,
    O(r³); without those at order 2. With the cosine kernel O(n d²), O(d²), and one, O(d³).

    Example:
        >>> import torch
        >>> from unalike.kernels import Gaussian
        >>> kinds = 9 * torch.eye(3).repeat(1000, 1)  # three, equally frequent
        >>> found = approximate_vendi(kinds, kernel=Gaussian(1.0), frequencies=64)
        >>> abs(found.value - 3) < 3 * found.error < 0.2
        True
    """
    return _one_shot(VENDI, [("X", X, kernel)], order, frequencies, seed)


def approximate_conditional_vendi(
    X: Tensor,
    Y: Tensor,
    order: float = 1.0,
    *,
    kernel: Kernel | None = None,
    prompt_kernel: Kernel | None = None,
    frequencies: int = FREQUENCIES,
    seed: int = 0,
) -> Estimate:
    """Conditional Vendi score of many samples given their prompts, with its error.

    As `conditional_vendi` gives it for few.

    The features of `K_X ∘ K_Y` are the waves of `<w_i, x> + <v_i, y>` for two Gaussian kernels, and
    outer products where one is a cosine kernel: 2 r p of them with prompts of size p, d p for two
    cosine kernels, and never more than 4,096. `order=2` is the conditional RKE.

    Source: Ospanov et al. 2024 (FKEA, arXiv:2407.02961) for the features; Jalali, Ospanov, Gohari
    and Farnia 2024 (arXiv:2411.02817) for the score.

    Args:
        X: features of the samples (n, …).
        Y: features of their prompts (n, …), in the same order.
        kernel, prompt_kernel: on `X` and on `Y`; `Cosine()` where none is given.
        order, frequencies, seed: as for `approximate_vendi`.

    Raises:
        OptionError: as for `approximate_vendi`, and where the numbers of samples and prompts
            differ.

    Cost: that of two `approximate_vendi`.

    Example:
        >>> import torch
        >>> prompts = torch.eye(2).repeat_interleave(2, dim=0)
        >>> four_samples = torch.eye(4)  # two for each prompt
        >>> round(approximate_conditional_vendi(four_samples, prompts).value, 6)
        2.0
    """
    return _one_shot(
        CONDITIONAL, [("X", X, kernel), ("Y", Y, prompt_kernel)], order, frequencies, seed
    )


def approximate_information_vendi(
    X: Tensor,
    Y: Tensor,
    order: float = 1.0,
    *,
    kernel: Kernel | None = None,
    prompt_kernel: Kernel | None = None,
    frequencies: int = FREQUENCIES,
    seed: int = 0,
) -> Estimate:
    """Information part of the Vendi score of many samples, with its error.

    As `information_vendi` gives it for few.

    Source, Args and Raises: as for `approximate_conditional_vendi`. Cost: that of three
    `approximate_vendi`.

    Example:
        >>> import torch
        >>> prompts = torch.eye(2).repeat_interleave(2, dim=0)
        >>> round(approximate_information_vendi(torch.eye(4), prompts).value, 6)
        2.0
    """
    return _one_shot(
        INFORMATION, [("X", X, kernel), ("Y", Y, prompt_kernel)], order, frequencies, seed
    )


def _one_shot(
    terms: Terms,
    given: Sequence[tuple[str, Tensor, Kernel | None]],
    order: float,
    frequencies: int,
    seed: int,
) -> Estimate:
    order = check_order(order)
    kernels = [Cosine() if kernel is None else kernel for _, _, kernel in given]
    tables = [
        checked_rows(name, table, kernel)
        for (name, table, _), kernel in zip(given, kernels, strict=True)
    ]
    maps = feature_maps(kernels, [table.shape[1] for table in tables], frequencies, seed)
    return estimate(
        terms,
        [covariance([maps[i] for i in of], [tables[i] for i in of]) for _, of in terms],
        order,
    )


def estimate(terms: Terms, sums: Sequence[Covariance], order: float) -> Estimate:
    """`exp(Σ ± H_q(C))` with its standard error and bias, by the jackknife over frequencies.

    Leaving out a group leaves a part of each covariance, so that all groups cost no further pass
    over the samples.

    Source: Efron and Stein 1981, "The Jackknife Estimate of Variance"; Quenouille 1956 for the
    bias.
    """
    value = _score(terms, sums, order, None)
    blocks = max(s.blocks for s in sums)
    if blocks == 1:
        return Estimate(value, 0.0, 0.0)
    groups = torch.arange(blocks, device=sums[0].total.device).chunk(GROUPS)
    without = [
        _score(terms, sums, order, torch.cat([*groups[:g], *groups[g + 1 :]]))
        for g in range(GROUPS)
    ]
    mean = sum(without) / GROUPS
    error = math.sqrt((GROUPS - 1) / GROUPS * sum((score - mean) ** 2 for score in without))
    return Estimate(value, error, (GROUPS - 1) * (mean - value))


def _score(terms: Terms, sums: Sequence[Covariance], order: float, kept: Tensor | None) -> float:
    return math.exp(
        sum(sign * _entropy(s, order, kept) for (sign, _), s in zip(terms, sums, strict=True))
    )


def _entropy(covariance: Covariance, order: float, kept: Tensor | None) -> float:
    C = covariance.matrix(kept)
    r, w = C.shape[:2]
    if order == 2:
        squares = C.square().sum(dim=(1, 3))
        if r == 1:
            return -math.log(squares.item())
        return -math.log((squares.sum() - squares.diagonal().sum()).item() * r / (r - 1))
    rounding = torch.finfo(torch.float64).eps * math.sqrt(covariance.n)
    return spectral_entropy(
        above_rounding(torch.linalg.eigvalsh(C.reshape(r * w, r * w)), rounding), order
    )
