"""Precision, recall, density and coverage, from balls around samples.

The ball of a sample reaches to its k-th nearest neighbour; together they stand for the support of a
distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unalike.errors import OptionError, shown
from unalike.metrics.features import BLOCK, at_most, distance_blocks, pair
from unalike.options import number_or_nan


@dataclass(frozen=True)
class Manifolds:
    """Precision, recall, density and coverage of one set against another.

    Attributes:
        precision: share of generated samples inside a real sample's ball, 0 to 1; larger: fewer
            samples that are not like real ones.
        recall: share of real samples inside a generated sample's ball, 0 to 1; larger: more of the
            real set's variety is reached.
        density: mean number of real balls that a generated sample is in, over `k`; 0 and up, 1
            where the sets are alike.
        coverage: share of real samples with a generated sample in their ball, 0 to 1; unlike recall
            it cannot be raised by outliers.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifolds(real: Tensor, generated: Tensor, k: int = 5, *, block: int = BLOCK) -> Manifolds:
    """Precision, recall, density and coverage of generated samples against real ones.

    With `B(x, r)` the closed ball and `r_k(x; X)` the distance from `x` to its k-th nearest
    neighbour in `X` without itself:

        precision = mean_j 1[∃ i: g_j ∈ B(x_i, r_k(x_i; real))]
        recall = mean_i 1[∃ j: x_i ∈ B(g_j, r_k(g_j; generated))]
        density = mean_j (1/k) Σ_i 1[g_j ∈ B(x_i, r_k(x_i; real))]
        coverage = mean_i 1[∃ j: g_j ∈ B(x_i, r_k(x_i; real))]

    Source: Kynkäänniemi et al. 2019 (arXiv:1904.06991) for precision and recall, which use k = 3;
    Naeem et al. 2020 (arXiv:2002.09797) for density and coverage, which use k = 5. Figures of
    different `k` or numbers of samples do not compare.

    Args:
        real: features (n, …) of real samples.
        generated: features (m, …) of generated ones, by the same extractor.
        k: which neighbour ends a ball; below n and m.
        block: distances held at a time.

    Raises:
        OptionError: for a `k` that is not below both numbers of samples, and features that are not
            finite or do not fit together.

    Cost: O((n + m)² d) time; `block` float64 numbers beside the features.

    Example:
        >>> import torch
        >>> X = torch.arange(8.0).view(8, 1)
        >>> manifolds(X, X[:4] + 0.25, k=1)
        Manifolds(precision=1.0, recall=0.625, density=2.0, coverage=0.625)
    """
    found = membership(real, generated, k, block=block)
    return Manifolds(
        precision=(found.balls > 0).double().mean().item(),
        recall=found.recalled.double().mean().item(),
        density=found.balls.double().mean().item() / k,
        coverage=found.covered.double().mean().item(),
    )


@dataclass(frozen=True)
class Membership:
    """Ball membership of each sample; `Manifolds` holds its means.

    Attributes:
        balls: (m,) how many real balls each generated sample is in.
        recalled: (n,) bool, whether each real sample is in a generated one's ball.
        covered: (n,) bool, whether each real sample has a generated one in its ball.
    """

    balls: Tensor
    recalled: Tensor
    covered: Tensor


def membership(real: Tensor, generated: Tensor, k: int = 5, *, block: int = BLOCK) -> Membership:
    """Compute sample by sample, on the CPU, what `manifolds` averages.

    Args, Raises and Cost: as for `manifolds`.

    Example:
        >>> import torch
        >>> X = torch.arange(8.0).view(8, 1)
        >>> membership(X, X[:4] + 0.25, k=1).balls
        tensor([2., 2., 2., 2.])
    """
    x, g = pair("real", real, "generated", generated)
    k = number_or_nan(given := k, whole=True)
    if not 1 <= k < min(len(x), len(g)):
        raise OptionError(
            f"k is {shown(given)}; it must be at least 1 and below both numbers of samples "
            f"({len(x)} real, {len(g)} generated), as in k=3"
        )
    around_real, around_generated = _radii(x, k, block), _radii(g, k, block)
    balls, recalled, covered = (
        torch.zeros(len(g)),
        torch.zeros(len(x), dtype=torch.bool),
        torch.zeros(len(x), dtype=torch.bool),
    )
    for part, distances in distance_blocks(x, g, block=block):
        inside = at_most(distances, around_real[part, None])
        balls += inside.sum(dim=0).cpu()
        covered[part] = inside.any(dim=1).cpu()
        recalled[part] = at_most(distances, around_generated).any(dim=1).cpu()
    return Membership(balls, recalled, covered)


def _radii(x: Tensor, k: int, block: int) -> Tensor:
    """The distance (n,) of each row to its k-th nearest other row."""
    radii = x.new_empty(len(x))
    for part, distances in distance_blocks(x, x, block=block):
        distances.diagonal(part.start).fill_(torch.inf)
        radii[part] = distances.kthvalue(k, dim=1).values
    return radii
