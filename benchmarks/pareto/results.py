"""What tables and figures are made of: the rows of a run, by task, method and setting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.base import interval, read_rows
from benchmarks.fronts import hypervolume
from benchmarks.pareto.trials import Trial

ROOM = 0.01
"""Of precision, that a setting may lose against unguided sampling to be called as precise."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """The rows of one task.

    Args:
        tuning, test: a row a setting and unit.
        pooled: a row a setting and stage.
        search: a row a setting and prompt.
        times: a row a setting.
    """

    tuning: list[Row]
    test: list[Row]
    pooled: list[Row]
    search: list[Row]
    times: list[Row] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path, task: str) -> Results:
        """The rows of a task in a folder."""
        stages = ("tuning", "test", "pooled", "search", "times")
        return cls(
            *(
                [row for row in read_rows(folder / f"{stage}.parquet") if row["task"] == task]
                for stage in stages
            )
        )

    @property
    def unguided(self) -> str:
        """The key of what all is compared with: the tested setting without a method and with the
        highest weight.
        """
        return max(
            (key for key in self.settings() if not Trial.from_key(key).methods),
            key=lambda key: Trial.from_key(key).guidance_scale,
        )

    def settings(self) -> list[str]:
        """The keys of all tested settings."""
        return list(dict.fromkeys(row["key"] for row in self.test))

    def families(self) -> dict[str, list[str]]:
        """The tested settings of each method; those with memory are a method of their own."""
        found: dict[str, list[str]] = {}
        for key in self.settings():
            found.setdefault(name_of(key), []).append(key)
        return found

    def points(self, keys: Sequence[str]) -> Tensor:
        """Coverage and precision (units, settings, 2) of tested settings."""
        return torch.stack([points_of(by_unit(self.test, key)) for key in keys], dim=1)

    def precise(self, keys: Sequence[str]) -> str:
        """Of a method's settings the one that found the most on the validation prompts while its
        precision there was at most ROOM below that of unguided sampling; where none kept that, the
        most precise one.
        """
        floor = float(self._validated(self.unguided)[1]) - ROOM
        kept = [key for key in keys if float(self._validated(key)[1]) >= floor]
        return (
            max(kept, key=lambda key: float(self._validated(key)[0]))
            if kept
            else max(keys, key=lambda key: float(self._validated(key)[1]))
        )

    def _validated(self, key: str) -> Tensor:
        """A setting's mean point on the validation prompts, or that of the same one without memory,
        which stands for it.
        """
        plain = replace(Trial.from_key(key), memory=False)
        return points_of(by_unit(self.tuning, plain.key)).mean(dim=0)


def name_of(key: str) -> str:
    """What tables call the method of a setting."""
    trial = Trial.from_key(key)
    return f"{trial.family}, with memory" if trial.memory else trial.family


def by_unit(rows: Iterable[Row], key: str) -> list[Row]:
    """The rows of a setting in the order of their units."""
    return sorted((row for row in rows if row["key"] == key), key=lambda row: row["unit"])


def volume(points: Tensor) -> Tensor:
    """The hypervolume (…,) of mean points, from drawn units (…, units, settings, 2)."""
    return hypervolume(points.mean(dim=-3))


def with_interval(values: Tensor, form: str) -> str:
    """A mean over units (units,) with its interval."""
    low, high = interval(values)
    return f"{form.format(values.mean().item())} ({form.format(low)} to {form.format(high)})"


def ratio_with_interval(own: Tensor, base: Tensor) -> str:
    """The ratio of two means over the same units (units,), with its paired interval."""
    low, high = interval(
        torch.stack([own, base], dim=1),
        lambda drawn: drawn[..., 0].mean(dim=1) / drawn[..., 1].mean(dim=1),
    )
    return f"×{float(own.mean() / base.mean()):.2f} ({low:.2f} to {high:.2f})"


def points_of(rows: Sequence[Row]) -> Tensor:
    """Coverage and precision (units, 2) of the rows of a setting."""
    return torch.tensor(
        [[row["distinct"] / row["possible"], row["right"] / row["samples"]] for row in rows],
        dtype=torch.float64,
    )
