"""Quality terms: a number for each candidate, larger for one that is likely a good image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unalike.selection.similarity import blocked_squares


def typicality(features: Tensor, groups: Tensor | None = None) -> Tensor:
    """Minus the mean distance of each candidate to its nearest neighbours in its group: (M,).

    Larger is more typical; outliers, which are often damaged images, are far below the others. The
    neighbours are the √m nearest, rounded up, of the m others. 0 in a group of one.

    Args:
        features: (M, d).
        groups: (M,) int64, equal for candidates of one prompt; None for one group.

    Cost: O(M² d).

    Example:
        >>> typicality(torch.tensor([[0.0], [1.0], [9.0]]))
        tensor([-5.0000, -4.5000, -8.5000], dtype=torch.float64)
    """
    groups = torch.zeros(len(features), dtype=torch.int64) if groups is None else groups
    result = torch.zeros(len(features), dtype=torch.float64)
    for group in groups.unique().tolist():
        rows = (groups == group).nonzero().flatten()
        others = len(rows) - 1
        if others < 1:
            continue
        own = features[rows]
        distances = blocked_squares(own, own).sqrt().fill_diagonal_(math.inf)
        nearest = distances.topk(math.ceil(math.sqrt(others)), dim=1, largest=False).values
        result[rows] = -nearest.mean(dim=1)
    return result


def agreement(first: Tensor, second: Tensor) -> Tensor:
    """Minus the distance between two predictions of each candidate: (M,).

    Of two evaluations one after the other it is self-consistency: how little the model changes its
    mind. Of the prediction with and without the prompt it is how much of the image the noise
    decides rather than the prompt.

    Args:
        first, second: predictions (M, …) of the same candidates.

    Example:
        >>> agreement(torch.zeros(2, 2), torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
        tensor([-0., -5.], dtype=torch.float64)
    """
    return -(first.float() - second.float()).flatten(1).norm(dim=1).double().cpu()


def standardised(quality: Tensor, groups: Tensor) -> Tensor:
    """Quality with mean 0 and standard deviation 1 within each group; 0 where all are equal.

    Example:
        >>> standardised(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1]))
        tensor([-1.,  1.,  0.], dtype=torch.float64)
    """
    result = torch.zeros(len(quality), dtype=torch.float64)
    for group in groups.unique().tolist():
        own = quality[groups == group].double()
        spread = own.std(correction=0)
        if spread > 0:
            result[groups == group] = (own - own.mean()) / spread
    return result
