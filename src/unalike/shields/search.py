"""Exact Euclidean nearest neighbours, in float64 and block by block."""

from __future__ import annotations

import torch
from torch import Tensor

from unalike.kernels import squared_distances

_BLOCK = 2048


def nearest(queries: Tensor, rows: Tensor, *, skip_own: bool = False) -> tuple[Tensor, Tensor]:
    """For each of the queries (B, d) the index (B,) int64 of the nearest of the rows (n, d), n at least 1, and its distance (B,) float64.

    One matrix product finds the rows that could be nearest, given its rounding error; those are measured by direct differences, so
    that the distance of a near duplicate keeps all its digits. Ties go to the lower index. O(B n d) time, O(B n + block · d) space.

    Args:
        queries: (B, d), any precision.
        rows: (n, d), on the same device.
        skip_own: leave out row i for query i, for the nearest other sample of one set; then n must be at least 2.

    Example:
        >>> nearest(torch.tensor([[0.0, 0.0]]), torch.tensor([[5.0, 0.0], [0.0, 2.0]]))
        (tensor([1]), tensor([2.], dtype=torch.float64))
    """
    q = queries.double()
    squared = torch.cat([squared_distances(q, block.double()) for block in rows.split(_BLOCK)], dim=1)
    if skip_own:
        squared.fill_diagonal_(torch.inf)
    largest = torch.stack([block.double().square().sum(1).max() for block in rows.split(_BLOCK)]).max()
    slack = 32 * torch.finfo(torch.float64).eps * q.shape[1] * (q.square().sum(1) + largest)
    index, distance = [], []
    for i, bound in enumerate(squared.min(dim=1).values + slack):
        candidates = (squared[i] <= bound).nonzero().flatten()
        exact = torch.cat([(rows[c].double() - q[i]).norm(dim=1) for c in candidates.split(_BLOCK)])
        best = int(exact.argmin())
        index.append(candidates[best])
        distance.append(exact[best])
    if not index:
        return torch.empty(0, dtype=torch.int64, device=rows.device), torch.empty(0, dtype=torch.float64, device=rows.device)
    return torch.stack(index), torch.stack(distance)
