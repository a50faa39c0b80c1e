"""Samples of one prompt counted against the exact set of its right pictures, for every shipped
model alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Counts:
    """What the samples of one prompt showed.

    Attributes:
        samples: how many there are.
        right: how many show a right picture.
        distinct: how many different right pictures are among them.
        possible: the most that could be: the smaller of the samples and the right pictures there
            are.
    """

    samples: int
    right: int
    distinct: int
    possible: int


def summary(records: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Per guidance scale: precision (share of samples that are right), distinct right pictures, and
    those as a share of the possible.
    """
    rows = []
    for scale in sorted({r["guidance_scale"] for r in records}):
        own = [r for r in records if r["guidance_scale"] == scale]
        rows.append(
            {
                "guidance_scale": scale,
                "precision": sum(r["right"] for r in own) / sum(r["samples"] for r in own),
                "distinct": sum(r["distinct"] for r in own) / len(own),
                "share_of_possible": sum(r["distinct"] / r["possible"] for r in own) / len(own),
            }
        )
    return rows
