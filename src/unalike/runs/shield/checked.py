"""Distances of images to a protected set, and their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
        edits: the same of the image after each edit, by its name; empty where it was not edited.
    """

    image: str
    nearest: str
    distance: float
    margin: float
    inside: bool
    edits: Mapping[str, Checked] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        """The columns of the image, ready for JSON; those of an edit end in its name.

        Example:
            >>> edited = Checked("cat.png", "dog", 1.0, -1.0, True)
            >>> Checked("cat.png", "dog", 3.0, 1.0, False, {"half": edited}).to_row()
            {'image': 'cat.png', 'nearest': 'dog', 'distance': 3.0, 'margin': 1.0, 'inside': False,
            'nearest_half': 'dog', 'distance_half': 1.0, 'margin_half': -1.0, 'inside_half': True}
        """
        row = {"image": self.image, **{name: getattr(self, name) for name in _MEASURED}}
        for edit, after in self.edits.items():
            row |= {f"{name}_{edit}": getattr(after, name) for name in _MEASURED}
        return row


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
    """`check.parquet`: a row an image, the closest first. Columns: those of `Checked.to_row`, and
    `radius`.
    """
    columns = [("image", pa.string()), *_MEASURED.items()]
    for edit in found[0].edits if found else ():
        columns += [(f"{name}_{edit}", kind) for name, kind in _MEASURED.items()]
    table = pa.Table.from_pylist([c.to_row() for c in found], schema=pa.schema(columns))
    return table.append_column("radius", pa.array([radius] * len(found), pa.float64()))


_MEASURED = {
    "nearest": pa.string(),
    "distance": pa.float64(),
    "margin": pa.float64(),
    "inside": pa.bool_(),
}
