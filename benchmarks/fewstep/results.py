"""What tables and figures are made of: the rows of a model's run, and statistics over its prompts.

Units are prompts: what is measured of a prompt is the mean over its groups of a size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.base import read_rows
from benchmarks.fewstep.methods import PLAIN
from benchmarks.pareto.results import ROOM
from benchmarks.pareto.trials import Trial

HARM = 0.05
"""Loss of precision by which a prompt counts as harmed."""
TUNED = 8
"""Size of the groups that settings are chosen on."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """The setting of a method that is reported first.

    Args:
        key: of its trial.
        precise: whether it kept the precision of plain sampling on the validation prompts.
    """

    key: str
    precise: bool


@dataclass(frozen=True)
class Results:
    """The rows of one model: one for each setting, prompt, size and group."""

    tuning: list[Row]
    test: list[Row]

    @classmethod
    def read(cls, folder: Path) -> Results:
        """The rows in the folder of a model."""
        return cls(*(read_rows(folder / f"{stage}.parquet") for stage in ("tuning", "test")))

    @property
    def plain(self) -> str:
        """The key of plain sampling."""
        return next(row["key"] for row in self.tuning if row["family"] == PLAIN)

    @property
    def complete(self) -> list[int]:
        """The sizes of the groups in which all methods were tested; none before the run's end."""
        if PLAIN not in self.families:
            return []
        keys = [self.precise(family).key for family in self.families]
        sizes = {row["size"] for row in self.test}
        return sorted(s for s in sizes if all((key, s) in self._tested for key in keys))

    @property
    def families(self) -> list[str]:
        """The methods, in the order in which they were tuned."""
        return list(dict.fromkeys(row["family"] for row in self.tuning))

    @cached_property
    def _tested(self) -> dict[tuple[str, int], list[Row]]:
        found: dict[tuple[str, int], list[Row]] = {}
        for row in self.test:
            found.setdefault((row["key"], row["size"]), []).append(row)
        return found

    def groups(self, key: str, size: int) -> int:
        """How many groups of a size of each prompt were drawn of a setting."""
        return 1 + max(row["group"] for row in self._tested[key, size])

    def rows(self, key: str, size: int, begin: int = 0, count: int | None = None) -> list[Row]:
        """The tested groups of a size, or `count` of them for each prompt from number `begin`."""
        end = math.inf if count is None else begin + count
        return [row for row in self._tested[key, size] if begin <= row["group"] < end]

    def precise(self, family: str) -> Choice:
        """Of a method's settings the one with the largest coverage on the validation prompts among
        those whose precision there is at most ROOM below that of plain sampling; where there is
        none, the most precise one.
        """
        points = self._validated(family)
        plain = by_prompt([row for row in self.tuning if row["key"] == self.plain], point)
        floor = float(plain.mean(dim=0)[1]) - ROOM
        kept = {key: mean for key, mean in points.items() if mean[1] >= floor}
        if kept:
            return Choice(max(kept, key=lambda key: kept[key][0]), precise=True)
        return Choice(max(points, key=lambda key: points[key][1]), precise=False)

    def _validated(self, family: str) -> dict[str, tuple[float, float]]:
        """The mean coverage and precision of a method's settings on the validation prompts."""
        found: dict[str, list[Row]] = {}
        for row in self.tuning:
            if row["family"] == family:
                found.setdefault(row["key"], []).append(row)
        means = {key: by_prompt(rows, point).mean(dim=0) for key, rows in found.items()}
        return {key: (float(mean[0]), float(mean[1])) for key, mean in means.items()}


def name_of(key: str) -> str:
    """What tables call the method of a setting."""
    return Trial.from_key(key).family


def by_prompt(rows: Sequence[Row], value: Callable[[Row], Sequence[float] | float]) -> Tensor:
    """The mean over the groups of each prompt (prompts, …), in the order of their names."""
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row["prompt"], []).append(value(row))
    return torch.stack(
        [torch.tensor(found[prompt], dtype=torch.float64).mean(dim=0) for prompt in sorted(found)]
    )


def point(row: Row) -> tuple[float, float]:
    """Coverage and precision of a group."""
    return row["distinct"] / row["possible"], row["right"] / row["samples"]


def harmed(own: Tensor, base: Tensor) -> float:
    """The share of prompts whose precision (prompts,) is more than HARM below that of the base."""
    return float((own < base - HARM - 1e-9).double().mean())


def expected_distinct(shown: Sequence[int], images: float) -> float:
    """How many different right images some of a pool are expected to show, drawn without
    replacement; between two whole numbers of images in proportion.

        Σ_i 1 - C(N - n_i, n) / C(N, n)

    Source: rarefaction, Hurlbert 1971, "The Nonconcept of Species Diversity".

    Args:
        shown: for each image of the pool the right image that it shows, or -1.
        images: how many are drawn, at most those of the pool.

    Example:
        >>> expected_distinct([7, 7, -1, -1], 2)  # one of six pairs shows nothing right
        0.8333333333333334
    """
    low = math.floor(images)
    part = images - low
    few = _expected(shown, low)
    return few if part == 0 else few + part * (_expected(shown, low + 1) - few)


def _expected(shown: Sequence[int], images: int) -> float:
    pool, counts = len(shown), Counter(i for i in shown if i >= 0).values()
    return sum(1 - math.comb(pool - n, images) / math.comb(pool, images) for n in counts)


def equal_calls(
    results: Results, key: str, size: int, relative: float
) -> tuple[Tensor, Tensor] | None:
    """Distinct right images (prompts,) of a group of a method, and those that plain sampling is
    expected to find with as many evaluations of the denoiser, which are more random images.

    Args:
        results: of a model.
        key: of the setting.
        size: of the groups.
        relative: its evaluations for an image, over those of plain sampling.

    Returns:
        None where the pool of plain images has fewer.
    """
    pools: dict[str, list[int]] = {}
    for row in results.rows(results.plain, results.complete[-1]):
        pools.setdefault(row["prompt"], []).extend(row["shown"])
    images = size * relative
    if any(len(pool) < images for pool in pools.values()):
        return None
    own = by_prompt(results.rows(key, size), lambda row: float(row["distinct"]))
    plain = [expected_distinct(pools[prompt], images) for prompt in sorted(pools)]
    return own, torch.tensor(plain, dtype=torch.float64)
