"""Compute a metric for each prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from unalike.errors import OptionError

T = TypeVar("T")


def by_group(
    metric: Callable[..., T], groups: Tensor, *arrays: tuple[Tensor, Tensor] | Tensor
) -> dict[int, T]:
    """Compute `metric` of each group's own rows.

    So a set that varies only between prompts does not pass for a varied one.

    Args:
        metric: called with one array for each of `arrays`.
        groups: (n,) integers, equal for samples of the same prompt; the groups that are scored.
        arrays: (n, …) with the same rows as `groups`, or a pair of an array (m, …) and its own
            groups (m,), such as real features.

    Returns:
        Group → what the metric returned, in ascending order of the groups.

    Raises:
        OptionError: where an array has other rows than its groups, or a group has no rows in one of
            the arrays.

    Example:
        >>> import torch
        >>> groups, x = torch.tensor([7, 7, 3]), torch.tensor([[1.0], [3.0], [5.0]])
        >>> by_group(lambda own: own.mean().item(), groups, x)
        {3: 5.0, 7: 2.0}
    """
    pairs = [a if isinstance(a, tuple) else (a, groups) for a in arrays]
    for rows, own in pairs:
        if len(rows) != len(own):
            raise OptionError(
                f"an array has {len(rows)} rows and its groups {len(own)}; there must be one group "
                "number for each row"
            )
    scored: dict[int, T] = {}
    for group in groups.unique().tolist():
        parts = [rows[own == group] for rows, own in pairs]
        if any(len(part) == 0 for part in parts):
            raise OptionError(
                f"group {group} has no rows in one of the arrays; leave that group out, or add its "
                "rows"
            )
        scored[group] = metric(*parts)
    return scored
