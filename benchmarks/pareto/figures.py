"""Coverage against precision, a figure a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from benchmarks.base import interval
from benchmarks.figure import COLOURS, MARKERS, drawn
from benchmarks.fronts import undominated
from benchmarks.pareto.results import Results
from benchmarks.pareto.tasks import TASKS
from benchmarks.pareto.trials import Trial
from benchmarks.pareto.trials import families as trials


@dataclass(frozen=True)
class Series:
    """The settings of a method in a figure.

    Args:
        name: of the legend.
        number: says colour and marker, the same for the same method in every figure.
        points: coverage and precision (units, settings, 2).
        hollow: whether its markers are, as for a variant of another method.
    """

    name: str
    number: int
    points: Tensor
    hollow: bool = False

    @property
    def colour(self) -> str:
        """Of markers and lines."""
        return COLOURS[self.number % len(COLOURS)]

    @property
    def marker(self) -> str:
        """Another one for each method of a colour."""
        return MARKERS[(self.number + self.number // len(COLOURS)) % len(MARKERS)]


def draw_figures(folder: Path) -> None:
    """Write `emoji.png` and `digits.png` from the rows of a run."""
    for name in TASKS:
        results = Results.read(folder, name)
        if results.test:
            order = list(trials(name))
            series = [
                Series(
                    method,
                    order.index(Trial.from_key(keys[0]).family),
                    results.points(keys),
                    Trial.from_key(keys[0]).memory,
                )
                for method, keys in results.families().items()
            ]
            base = results.points([results.unguided])
            draw_front(folder / f"{name}.png", series, base, "unguided")


def draw_front(path: Path, series: Sequence[Series], base: Tensor, base_name: str) -> None:
    """The settings of each method with intervals, and a line through those that no other of its own
    beats.

    Args:
        path: of the PNG.
        series: a method each.
        base: the points (units, 1, 2) of what all is compared with.
        base_name: what stands beside it.
    """
    with drawn(path, 8.5, max(5.0, 0.22 * len(series))) as figure:
        panel = figure.subplots()
        for one in series:
            colour, points = one.colour, one.points
            means = points.mean(dim=0)
            for k in range(len(means)):
                x, y = (interval(points[:, k, axis]) for axis in (0, 1))
                panel.plot(x, [means[k, 1]] * 2, color=colour, alpha=0.25, linewidth=1)
                panel.plot([means[k, 0]] * 2, y, color=colour, alpha=0.25, linewidth=1)
            front = means[undominated(means)]
            front = front[front[:, 0].argsort()]
            panel.plot(front[:, 0], front[:, 1], color=colour, linewidth=1.2)
            panel.plot(
                means[:, 0],
                means[:, 1],
                one.marker,
                color=colour,
                markerfacecolor="none" if one.hollow else colour,
                markersize=7,
                linestyle="none",
                label=one.name,
            )
        mean = base.mean(dim=(0, 1))
        panel.annotate(
            base_name, (mean[0], mean[1]), textcoords="offset points", xytext=(8, -10), fontsize=8
        )
        panel.set(xlabel="coverage", ylabel="precision")
        panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
