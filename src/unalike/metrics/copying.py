"""How close samples come to a set that they must not copy."""

from __future__ import annotations

import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.metrics.features import BLOCK, distance_blocks, pair


def nearest_distances(
    generated: Tensor, protected: Tensor, *, block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """The distance (m,) of each generated sample to its nearest protected one, in float64, and the
    index (m,) of that.

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
    """Share of generated samples closer than `radius` to a protected one, 0 to 1; 0 where the set
    is shielded.

    Source: the share "too close to neighbours" of Kirchhof et al. 2025, Table 2 (arXiv:2410.06025).

    Args and Raises: as for `nearest_distances`; the radius, in the features' units, must be above
    0.

    Example:
        >>> import torch
        >>> share_inside(torch.tensor([[1.0], [9.0]]), torch.tensor([[5.0], [3.0]]), radius=2.5)
        0.5
    """
    if not radius > 0:
        raise OptionError(
            f"radius is {radius}; it must be a number above 0, in the units of the features, as in radius=20.0"
        )
    return (nearest_distances(generated, protected, block=block)[0] < radius).double().mean().item()


def auth_pct(generated: Tensor, training: Tensor, *, block: int = BLOCK) -> float:
    """AuthPct: percentage of generated samples that are no closer to their nearest training sample
    than another training sample is to it.

    100 where nothing looks copied; exact copies count against it, and so do samples that are merely
    good in a sparse region.

    Source: Alaa et al. 2022, authenticity (arXiv:2102.08921), reported as a percentage by Stein et
    al. 2023 (arXiv:2306.04675).

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
    """What `auth_pct` is the percentage of: whether each generated sample (m,) is no closer to its
    nearest than another is to that one.

    Args, Raises and Cost: as for `auth_pct`.

    Example:
        >>> import torch
        >>> authentic(torch.tensor([[0.1], [5.0]]), torch.tensor([[0.0], [1.0], [2.0]]))
        tensor([False,  True])
    """
    if len(training) < 2:
        raise OptionError(
            f"training has {len(training)} samples; at least 2 are needed, to compare distances among them"
        )
    distance, index = nearest_distances(generated, training, block=block)
    _, x = pair("generated", generated, "training", training)
    among = x.new_empty(len(x))
    for part, distances in distance_blocks(x, x, block=block):
        distances.diagonal(part.start).fill_(torch.inf)
        among[part] = distances.amin(dim=1)
    return distance >= among[index]
