"""Two measures at once, both better when larger: which settings are not beaten in both, and how
much such a set reaches.
"""

from __future__ import annotations

from torch import Tensor


def undominated(points: Tensor) -> Tensor:
    """Which points (n, 2) no other point is at least as good as in both measures and better in one:
    (n,) bool.

    Example:
        >>> import torch
        >>> undominated(torch.tensor([[0.2, 0.9], [0.5, 0.5], [0.1, 0.8], [0.5, 0.5]])).tolist()
        [True, True, False, True]
    """
    at_least = (points[None] >= points[:, None]).all(dim=2)
    better = (points[None] > points[:, None]).any(dim=2)
    return ~(at_least & better).any(dim=1)


def hypervolume(points: Tensor) -> Tensor:
    """The area (…,) that points (…, n, 2) dominate above the origin: of the union of the rectangles
    from 0 to each point.

    Larger is better; for two shares, 1 is a single setting that is perfect in both. The order of
    the points does not matter, and a point that another beats in both adds nothing.

    Source: Zitzler and Thiele 1998, "Multiobjective Optimization Using Evolutionary Algorithms: A
    Comparative Case Study".

    Cost: that of sorting.

    Args:
        points: at least 0 in both measures.

    Example:
        >>> import torch
        >>> hypervolume(torch.tensor([[0.5, 1.0], [1.0, 0.5]]))
        tensor(0.7500)
    """
    first, order = points[..., 0].sort(dim=-1, descending=True)
    second = points[..., 1].gather(-1, order).cummax(dim=-1).values
    widths = first.clone()
    widths[..., :-1] -= first[..., 1:]
    return (widths * second).sum(dim=-1)
