"""Check feature arrays, and compute distances between them a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from unalike.errors import OptionError, shown
from unalike.kernels import power_of_two, resolved_squares, unit_rows
from unalike.options import number_or_nan
from unalike.tensors import real_numbers

BLOCK = 2**24
"""Entries of one block of a distance matrix: 128 MiB in float64."""
_TIE = 1e-9
_LARGEST = 1e300


def checked(name: str, features: Tensor, *, least: int = 1) -> Tensor:
    """Convert features to float64 rows (n, d) after checking them.

    Raises:
        OptionError: where they are not real, not finite or too large, have no features, or fewer
            than `least` rows.
    """
    rows = real_numbers(name, features)
    if rows.ndim < 2 or rows.numel() == 0 or len(rows) < least:
        raise OptionError(
            f"{name} has the shape {tuple(rows.shape)}; it must be (n, …) with at least {least} "
            f"{'sample' if least == 1 else 'samples'} and one feature a sample"
        )
    if not torch.isfinite(rows).all():
        raise OptionError(
            f"{name} has NaN or infinite values; remove those samples, as in "
            "X[X.flatten(1).isfinite().all(dim=1)]"
        )
    rows = (rows.cpu() if rows.device.type == "mps" else rows).flatten(1).double()
    if rows.abs().max() > _LARGEST:
        raise OptionError(
            f"{name} has numbers beyond {_LARGEST:g}, whose distances float64 cannot hold; scale "
            "both arrays by one factor"
        )
    return rows


def pair(
    a_name: str, a: Tensor, b_name: str, b: Tensor, *, least: int = 1
) -> tuple[Tensor, Tensor]:
    """Check two arrays of features and that their rows have the same size.

    Raises:
        OptionError: as `checked` does, and where the sizes differ.
    """
    rows, others = checked(a_name, a, least=least), checked(b_name, b, least=least)
    if rows.shape[1] != others.shape[1]:
        raise OptionError(
            f"{a_name} has {rows.shape[1]} features a sample and {b_name} has {others.shape[1]}; "
            "both must come from the same extractor"
        )
    return rows, others.to(rows.device)


def common_scale(a: Tensor, b: Tensor) -> float:
    """A power of two near the largest entry of both arrays.

    Squares of what it divides neither overflow nor vanish.
    """
    return max(power_of_two(a), power_of_two(b))


def distance_blocks(a: Tensor, b: Tensor, *, block: int = BLOCK) -> Iterator[tuple[slice, Tensor]]:
    """Yield Euclidean distances between rows (n, d) and (m, d), a block of rows of `a` at a time.

    Each block comes as its slice of `a` and the distances (rows, m).

    Equal rows are at exactly 0, and no others. O(n m d) in all, `block` distances at a time.
    """
    scale = common_scale(a, b)
    v = b / scale
    rows = rows_of_a_block(block, len(b))
    for start in range(0, len(a), rows):
        part = slice(start, min(start + rows, len(a)))
        yield part, resolved_squares(a[part] / scale, v).clamp_min_(0).sqrt_() * scale


def rows_of_a_block(block: int, columns: int) -> int:
    """The number of rows of this many entries that are held at a time.

    Raises:
        OptionError: for a block that is not a whole number above 0.
    """
    if not number_or_nan(block, whole=True) >= 1:
        raise OptionError(
            f"block is {shown(block)}; allowed: a whole number at least 1, as in block=2**24"
        )
    return max(1, int(block) // columns)


def at_most(distances: Tensor, limit: Tensor) -> Tensor:
    """Whether distances are at most a limit; differences of rounding size count as ties."""
    return distances <= limit * (1 + _TIE)


def directions(name: str, rows: Tensor) -> Tensor:
    """Rows (n, d) scaled to norm 1.

    Raises:
        OptionError: where a row is all zeros, which has no direction.
    """
    if (zeros := (rows == 0).all(dim=1)).any():
        raise OptionError(
            f"row {zeros.nonzero()[0].item()} of {name} is all zeros and has no direction to "
            f"compare; remove it, as in {name}[{name}.any(dim=1)]"
        )
    return unit_rows(rows)
