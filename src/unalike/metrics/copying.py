"""Measure how close generated samples come to training or protected samples."""

from __future__ import annotations

import torch
from torch import Tensor

from unalike.errors import OptionError, shown
from unalike.kernels import power_of_two
from unalike.metrics.features import BLOCK, at_most, distance_blocks, pair
from unalike.options import number_or_nan
from unalike.tensors import real_numbers

_SAME = 8  # roundings of a norm within which two training samples are one and the same


def nearest_distances(
    generated: Tensor, protected: Tensor, *, block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """Distance (m,) of each generated sample to its nearest protected one, and its index (m,).

    Distances are float64.

    Args:
        generated: features (m, …).
        protected: features (n, …) by the same extractor.
        block: distances held at a time.

    Raises:
        OptionError: for features that are not finite or do not fit together.

    Cost: O(n m d).

    Example:
        >>> import torch
        >>> nearest_distances(torch.tensor([[1.0]]), torch.tensor([[5.0], [3.0]]))
        (tensor([2.], dtype=torch.float64), tensor([1]))
    """
    g, x = pair("generated", generated, "protected", protected)
    found = [distances.min(dim=1) for _, distances in distance_blocks(g, x, block=block)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def share_inside(
    generated: Tensor, protected: Tensor, radius: float, *, block: int = BLOCK
) -> float:
    """Share of generated samples closer than `radius` to a protected one, from 0 to 1.

    0 where the set is shielded.

    Source: the share "too close to neighbours" of Kirchhof et al. 2025, Table 2 (arXiv:2410.06025).

    Args and Raises: as for `nearest_distances`; the radius, in the features' units, must be above
    0.

    Example:
        >>> import torch
        >>> share_inside(torch.tensor([[1.0], [9.0]]), torch.tensor([[5.0], [3.0]]), radius=2.5)
        0.5
    """
    if not number_or_nan(radius) > 0:
        raise OptionError(
            f"radius is {shown(radius)}; it must be a number above 0, in the units of the "
            "features, as in radius=20.0"
        )
    return (nearest_distances(generated, protected, block=block)[0] < radius).double().mean().item()


def auth_pct(generated: Tensor, training: Tensor, *, block: int = BLOCK) -> float:
    """AuthPct: percentage of generated samples that look like no copy; larger is better.

    A sample is authentic if it is further from its nearest training sample than that one is from
    the nearest other training sample.

    100 where nothing looks copied. Exact copies always count against it, and so do samples that are
    merely good in a sparse region.

    Source: Alaa et al. 2022, authenticity (arXiv:2102.08921), reported as a percentage by Stein et
    al. 2023 (arXiv:2306.04675); a tie is not authentic, as in their code. Departures: a training
    sample that is repeated counts once, where their code takes its repetition for the nearest other
    one and calls everything near it authentic; a sample that is equally near to several training
    samples must be authentic for each, so that the order of the training set does not matter.

    Args:
        generated: features (m, …).
        training: features (n, …) by the same extractor, n at least 2.
        block: distances held at a time.

    Raises:
        OptionError: for fewer than two training samples, and features that are not finite or do not
            fit together.

    Cost: O((n + m) n d).

    Example:
        >>> import torch
        >>> auth_pct(torch.tensor([[0.1], [5.0]]), torch.tensor([[0.0], [1.0], [2.0]]))
        50.0
    """
    return 100 * authentic(generated, training, block=block).double().mean().item()


def authentic(generated: Tensor, training: Tensor, *, block: int = BLOCK) -> Tensor:
    """Whether each generated sample (m,) is authentic; `auth_pct` is their percentage.

    Args, Raises and Cost: as for `auth_pct`.

    Example:
        >>> import torch
        >>> authentic(torch.tensor([[0.1], [5.0]]), torch.tensor([[0.0], [1.0], [2.0]]))
        tensor([False,  True])
    """
    g, x = pair("generated", generated, "training", training)
    if len(x) < 2:
        raise OptionError(
            f"training has {len(x)} samples; at least 2 are needed, to compare distances among them"
        )
    scale = power_of_two(x)
    same = _SAME * _rounding(real_numbers("training", training)) * scale * (x / scale).norm(dim=1)
    among = x.new_empty(len(x))
    for part, distances in distance_blocks(x, x, block=block):
        among[part] = distances.masked_fill_(distances <= same[part, None], torch.inf).amin(dim=1)
    among = torch.where(among.isinf(), same, among)  # all others repeat this one
    parts = []
    for _, distances in distance_blocks(g, x, block=block):
        nearest = distances.amin(dim=1)
        limit = torch.where(at_most(distances, nearest[:, None]), among, -torch.inf).amax(dim=1)
        parts.append(~at_most(nearest, limit))
    return torch.cat(parts)


def _rounding(features: Tensor) -> float:
    """The relative rounding error of features: that of their own precision, or of float32."""
    exact = features.dtype == torch.float64 or not features.is_floating_point()
    return torch.finfo(torch.float64 if exact else torch.float32).eps
