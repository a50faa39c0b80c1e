"""Coverage against precision, a figure a model."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.fewstep.methods import PLAIN, families
from benchmarks.fewstep.models import MODELS
from benchmarks.fewstep.results import TUNED, Results, by_prompt, point
from benchmarks.pareto.figures import Series, draw_front

FIGURE = "coverage.png"


def draw_figure(folder: Path) -> None:
    """Write the figure of a model from the rows in its folder."""
    results = Results.read(folder)
    numbers = {name: i for i, name in enumerate(_families())}
    series = [
        Series(
            name,
            numbers[name],
            torch.stack([by_prompt(results.rows(key, TUNED), point) for key in keys], dim=1),
        )
        for name, keys in results.tested().items()
    ]
    series.sort(key=lambda one: one.number)
    base = next(one.points for one in series if one.name == PLAIN)
    draw_front(folder / FIGURE, series, base, "plain")


def _families() -> list[str]:
    """All methods of all models, in the order of their tables."""
    return list(dict.fromkeys(name for model in MODELS.values() for name in families(model)))
