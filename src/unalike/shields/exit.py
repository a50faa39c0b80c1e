"""Find the exact way out of a union of balls along a ray."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_MOST_DIRECTIONS = 16


def ray_exit(x: Tensor, directions: Tensor, centres: Iterable[Tensor], radius: float) -> Tensor:
    """Distance (q,) along each direction from `x` to the first point outside all balls.

    In float64; 0 where `x` is outside.

    The ray `x + t u` is inside the ball around `z` for `t` between the roots of `t² + 2 t <x - z,
    u> + ||x - z||² - radius² = 0`. The end of the connected union of these intervals that begins at
    `t = 0` is the exit: finite, since every interval is, and exact. A point at exactly `radius` is
    outside.

    Args:
        x: (d,) float64.
        directions: (q, d) float64, each of norm 1.
        centres: all balls that a ray might meet, in blocks (m, d) of any precision.
        radius: of all balls.

    Cost: O(m d q) for the roots and O(m log m) per direction for the union.

    Example:
        >>> line = torch.tensor([[0.0], [1.5], [9.0]])
        >>> ray_exit(torch.zeros(1).double(), torch.tensor([[1.0], [-1.0]]).double(), [line], 1.0)
        tensor([2.5000, 1.0000], dtype=torch.float64)
    """
    half, gap = [], []
    for block in centres:
        w = x - block.double()
        half.append(w @ directions.T)
        gap.append(w.square().sum(1) - radius**2)
    along, outside = torch.cat(half), torch.cat(gap)[:, None]
    discriminant = along.square() - outside
    root = discriminant.clamp_min(0).sqrt()
    lower, upper = -along - root, -along + root
    exits = []
    for q in range(len(directions)):
        met = (discriminant[:, q] > 0) & (upper[:, q] > 0)
        order = lower[met, q].argsort()
        exits.append(_end_of_union(lower[met, q][order], upper[met, q][order]))
    return x.new_tensor(exits)


def _end_of_union(lower: Tensor, upper: Tensor) -> float:
    """End of the connected union of open intervals that covers 0; 0 where none does.

    The intervals are sorted by their beginnings.
    """
    if len(lower) == 0 or lower[0] >= 0:
        return 0.0
    reach = upper.cummax(0).values
    breaks = (lower[1:] >= reach[:-1]).nonzero().flatten()
    # The union is broken where an interval begins beyond all before it; intervals that begin at 0
    # or later extend what covers 0.
    return float(reach[breaks[0]] if len(breaks) else reach[-1])


def directions_out(x: Tensor, inside: Tensor, radius: float) -> Tensor:
    """Unit vectors (q, d) to try from `x` (d,), given the balls around it.

    Their centres (k, d) come nearest first.

    That of the sum `Σ max(0, radius / ||x - z|| - 1) (x - z)` of sparse repellency (Kirchhof et al.
    2025, Eq. 5), that of the sum of the unit vectors, and those away from up to 16 centres. Where
    none of these has a direction, as when `x` is a centre itself, a fixed pseudo-random one stands
    in.
    """
    w, tiny = x - inside.double(), torch.finfo(torch.float64).tiny
    distance = w.norm(dim=1, keepdim=True).clamp_min(tiny)
    unit = w / distance
    spell = ((radius / distance - 1).clamp_max(1e12) * w).sum(0, keepdim=True)
    candidates = torch.cat([spell, unit.sum(0, keepdim=True), unit[:_MOST_DIRECTIONS]])
    length = candidates.norm(dim=1, keepdim=True)
    usable = (length > 1e-9 * radius).flatten()
    if not usable.any():
        candidates = torch.randn(
            1, len(x), generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        return candidates / candidates.norm()
    return candidates[usable] / length[usable]
