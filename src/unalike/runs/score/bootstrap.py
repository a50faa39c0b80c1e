"""Bootstrap intervals of scores, from the influence of each sample.

Drawing samples again with repetition would put copies into a set, and every score of diversity is
made to notice copies: a hundred images that all differ would be redrawn as sixty-three. So a score
is computed once, together with its influence function, and the bootstrap redraws the influences.
For scores that are means over samples that is the ordinary bootstrap; for the others it is that of
their first-order expansion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LEVEL = 0.95
_BLOCK = 2**22


@dataclass(frozen=True)
class Estimate:
    """A score and the influence of each sample on it.

    Attributes:
        value: the score.
        influence: (n,) its influence function at each sample, of mean 0: the derivative in the
            sample's weight; None where it has none.
        log: whether `influence` is that of the score's logarithm.
        rows: (n,) which samples of the set these are; None for all of them.
        of_reference: whether they are samples of the reference.
    """

    value: float
    influence: Tensor | None
    log: bool = False
    rows: Tensor | None = None
    of_reference: bool = False

    @classmethod
    def mean(cls, values: Tensor, *, of_reference: bool = False) -> Estimate:
        """The mean of one number a sample."""
        values = values.double()
        return cls(values.mean().item(), values - values.mean(), of_reference=of_reference)


def interval(
    estimate: Estimate, units: Tensor | None, *, draws: int, seed: int
) -> tuple[float, float] | None:
    """The central 95% of the score over `draws` bootstrap redraws; None where there is nothing to
    redraw.

    Source: Efron 1979, "Bootstrap Methods: Another Look at the Jackknife" (Annals of Statistics 7),
    and his infinitesimal jackknife of the same paper for scores that are no means.

    Args:
        estimate: the score.
        units: (n,) integers, equal for samples that are redrawn together, such as those of one
            prompt; None to redraw each by itself.
        draws: how many times; 0 for no interval.
        seed: of the redraws.

    Cost: `draws` times the number of units, in blocks.

    Example:
        >>> import torch
        >>> half = Estimate.mean(torch.tensor([0.0, 1.0]).repeat(200))
        >>> interval(half, None, draws=2000, seed=0)  # 0.5 ± 1.96 · 0.5 / √400
        (0.45..., 0.5475...)
    """
    if estimate.influence is None or draws == 0:
        return None
    sums, counts = _by_unit(estimate.influence, units)
    if len(sums) < 2:
        return None
    generator = torch.Generator().manual_seed(seed)
    moved = []
    rows = max(1, _BLOCK // len(sums))
    for start in range(0, draws, rows):
        drawn = torch.randint(len(sums), (min(rows, draws - start), len(sums)), generator=generator)
        moved.append(sums[drawn].sum(dim=1) / counts[drawn].sum(dim=1))
    levels = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    low, high = torch.quantile(torch.cat(moved), levels).tolist()
    if estimate.log:
        return estimate.value * math.exp(low), estimate.value * math.exp(high)
    return estimate.value + low, estimate.value + high


def _by_unit(influence: Tensor, units: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sums of the influences (u,) and numbers of samples (u,) of each unit."""
    if units is None:
        return influence, torch.ones_like(influence)
    _, index = units.unique(return_inverse=True)
    size = int(index.max()) + 1
    zeros = influence.new_zeros(size)
    return zeros.index_add(0, index, influence), zeros.index_add(
        0, index, torch.ones_like(influence)
    )
