"""What the measurements of the search come to, for the page and the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.base import read_rows

PICTURES, SPECTRUM, RADII, BUILDS, QUERIES, STEPS, WIDE = (
    f"{name}.parquet"
    for name in ("pictures", "spectrum", "radii", "builds", "queries", "steps", "wide")
)
OURS, ANEW, FLAT, IVF = "ours", "ours, every step anew", "Faiss flat", "Faiss IVF"
NPROBE = (1, 2, 3, 5, 10)
TIERS = ("first", "second", "full")


def ivf_name(nprobe: int) -> str:
    """What tables and figures call the approximate index.

    Example:
        >>> ivf_name(1), ivf_name(2)
        ('Faiss IVF, 1 probe', 'Faiss IVF, 2 probes')
    """
    return f"{IVF}, {nprobe} probe{'s' if nprobe > 1 else ''}"


RIVAL = ivf_name(2)
"""What is published, and what ours is compared with."""


@dataclass(frozen=True)
class Summary:
    """One search of one set along all trajectories of a radius.

    Attributes:
        vectors, factor, radius, search: what was searched and how.
        per_step: mean seconds of a step of a batch.
        busy: mean seconds of processor time of that, which others on the machine disturb less.
        per_trajectory: seconds of a trajectory of as many steps as there are.
        there, found, wrong: vectors within the radius over all images and steps, how many of them
            were found, and what else was.
        inside, unseen: images and steps at which there is something within the radius, and those of
            them at which none of it was found.
        skipped: share of images and steps without a full search.
        seen: how many vectors each tier saw, in all.
        searches: images and steps.
    """

    vectors: int
    factor: float
    radius: float
    search: str
    per_step: float
    busy: float
    per_trajectory: float
    there: int
    found: int
    wrong: int
    inside: int
    unseen: int
    skipped: float
    seen: dict[str, int]
    searches: int

    @property
    def recall(self) -> float:
        """The share of what is there that was found; 1 where nothing is there."""
        return self.found / self.there if self.there else 1.0


def summaries(folder: Path) -> list[Summary]:
    """A summary a set, radius and search, by the size of the set and the radius."""
    rows = read_rows(folder / STEPS)
    groups: dict[tuple[int, float, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["vectors"], row["factor"], row["search"]), []).append(row)
    steps = 1 + max(row["step"] for row in rows)
    return [_summary(groups[key], steps) for key in sorted(groups, key=lambda key: key[:2])]


def _summary(rows: Sequence[dict[str, Any]], steps: int) -> Summary:
    first, searches = rows[0], sum(row["images"] for row in rows)
    per_step = sum(row["seconds"] for row in rows) / len(rows)
    return Summary(
        *(first[key] for key in ("vectors", "factor", "radius", "search")),
        per_step=per_step,
        busy=sum(row["busy"] for row in rows) / len(rows),
        per_trajectory=per_step * steps,
        **{
            key: sum(row[key] for row in rows)
            for key in ("there", "found", "wrong", "inside", "unseen")
        },
        skipped=sum(row["skipped"] for row in rows) / searches,
        seen={tier: sum(row[tier] for row in rows) for tier in TIERS},
        searches=searches,
    )


def resident(folder: Path, vectors: int, search: str) -> int | None:
    """Bytes that a search keeps in memory; None where it was not built."""
    name = OURS if search == ANEW else IVF if search.startswith(IVF) else search
    return next(
        (
            row["resident_bytes"]
            for row in read_rows(folder / BUILDS)
            if (row["vectors"], row["search"]) == (vectors, name)
        ),
        None,
    )
