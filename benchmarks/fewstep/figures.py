"""Coverage against precision, a figure a model."""

from __future__ import annotations

from pathlib import Path

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
            by_prompt(results.rows(results.precise(name).key, TUNED), point)[:, None],
        )
        for name in numbers
        if name in results.families
    ]
    base = next(one.points for one in series if one.name == PLAIN)
    draw_front(folder / FIGURE, series, base, "plain")


def _families() -> list[str]:
    """All methods of all models, in the order of their tables."""
    return list(dict.fromkeys(name for model in MODELS.values() for name in families(model)))
