"""Distances of images to a protected set, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import torch

from unalike.errors import OptionError
from unalike.shields import Shield


@dataclass(frozen=True)
class Checked:
    """Distance of an image to a protected set.

    Attributes:
        image: its name.
        nearest: the id of the nearest protected point.
        distance: to it, Euclidean and exact.
        margin: how far the image is beyond the ball at least, `distance - radius - rounding`.
        inside: whether that is below 0.
    """

    image: str
    nearest: str
    distance: float
    margin: float
    inside: bool


def checked(shield: Shield, points: torch.Tensor, names: Sequence[str]) -> list[Checked]:
    """Distances of points (m, …) with these names to the set.

    Raises:
        OptionError: for points that are not finite.
    """
    bad = (~torch.isfinite(points.flatten(1)).all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise OptionError(
            f"{names[bad[0]]!r} has NaN or infinite values; what is checked must be finite"
        )
    index, distance = shield.nearest(points.reshape(len(points), *shield.shape))
    margins = (distance - shield.reach).tolist()
    rows = zip(names, map(int, index), distance.tolist(), margins, strict=True)
    return [Checked(name, shield.ids[i], d, margin, margin < 0) for name, i, d, margin in rows]


def check_table(found: Sequence[Checked], radius: float) -> pa.Table:
    """`check.parquet`: a row an image, the closest first. Columns: those of `Checked`, and
    `radius`.
    """
    table = pa.Table.from_pylist([asdict(c) for c in found], schema=_SCHEMA)
    return table.append_column("radius", pa.array([radius] * len(found), pa.float64()))


_SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("nearest", pa.string()),
        ("distance", pa.float64()),
        ("margin", pa.float64()),
        ("inside", pa.bool_()),
    ]
)
