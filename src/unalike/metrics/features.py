"""Checked feature arrays, and distances between them a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from unalike.errors import OptionError

BLOCK = 2**24
"""Entries of one block of a distance matrix: 128 MiB in float64."""


def checked(name: str, features: Tensor, *, least: int = 1) -> Tensor:
    """The features as float64 rows (n, d).

    Raises:
        OptionError: where they are not finite, have no features, or fewer than `least` rows.
    """
    rows = torch.as_tensor(features).detach()
    if rows.ndim < 2 or rows.numel() == 0 or len(rows) < least:
        raise OptionError(
            f"{name} has the shape {tuple(rows.shape)}; it must be (n, …) with at least {least} {'sample' if least == 1 else 'samples'} "
            "and one feature a sample"
        )
    if not torch.isfinite(rows).all():
        raise OptionError(
            f"{name} has NaN or infinite values; remove those samples, as in X[X.flatten(1).isfinite().all(dim=1)]"
        )
    return (rows.cpu() if rows.device.type == "mps" else rows).flatten(1).double()


def pair(
    a_name: str, a: Tensor, b_name: str, b: Tensor, *, least: int = 1
) -> tuple[Tensor, Tensor]:
    """Two checked arrays of features of the same size.

    Raises:
        OptionError: as `checked` does, and where the sizes differ.
    """
    rows, others = checked(a_name, a, least=least), checked(b_name, b, least=least)
    if rows.shape[1] != others.shape[1]:
        raise OptionError(
            f"{a_name} has {rows.shape[1]} features a sample and {b_name} has {others.shape[1]}; both must come from the same extractor"
        )
    return rows, others.to(rows.device)


def distance_blocks(a: Tensor, b: Tensor, *, block: int = BLOCK) -> Iterator[tuple[slice, Tensor]]:
    """Euclidean distances between rows (n, d) and (m, d): for each block of rows of `a` its slice
    and the distances (rows, m).

    Distances below the rounding error are exactly 0, so that copies are known as copies. O(n m d)
    in all, `block` distances at a time.
    """
    centre = b.mean(dim=0)
    u, v = a - centre, b - centre
    squares, rounding = v.square().sum(dim=1), torch.finfo(a.dtype).eps * a.shape[1]
    rows = max(1, block // len(b))
    for start in range(0, len(a), rows):
        part = slice(start, min(start + rows, len(a)))
        sizes = u[part].square().sum(dim=1, keepdim=True) + squares
        squared = torch.addmm(sizes, u[part], v.T, alpha=-2)
        yield part, squared.masked_fill_(squared <= rounding * sizes, 0).sqrt_()
