"""Coverage against precision, a figure a model."""

from __future__ import annotations

from pathlib import Path

from benchmarks.base import interval
from benchmarks.figure import COLOURS, MARKERS, drawn
from benchmarks.fronts import undominated
from benchmarks.pareto.results import Results
from benchmarks.pareto.tasks import TASKS
from benchmarks.pareto.trials import Trial
from benchmarks.pareto.trials import families as trials


def draw_figures(folder: Path) -> None:
    """Write `emoji.png` and `digits.png` from the rows of a run."""
    for name in TASKS:
        results = Results.read(folder, name)
        if results.test:
            _front(folder / f"{name}.png", name, results)


def _front(path: Path, task: str, results: Results) -> None:
    """The tested settings with intervals, and a line through those of a method that no other of its
    own beats.
    """
    families = results.families()
    order = list(trials(task))
    with drawn(path, 8.5, 5) as figure:
        panel = figure.subplots()
        for name, keys in families.items():
            i = order.index(Trial.from_key(keys[0]).family)
            colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
            remembered = Trial.from_key(keys[0]).memory
            points = results.points(keys)
            means = points.mean(dim=0)
            for k in range(len(keys)):
                x, y = (interval(points[:, k, axis]) for axis in (0, 1))
                panel.plot(x, [means[k, 1]] * 2, color=colour, alpha=0.25, linewidth=1)
                panel.plot([means[k, 0]] * 2, y, color=colour, alpha=0.25, linewidth=1)
            front = means[undominated(means)]
            front = front[front[:, 0].argsort()]
            panel.plot(front[:, 0], front[:, 1], color=colour, linewidth=1.2)
            face = "none" if remembered else colour
            panel.plot(
                means[:, 0],
                means[:, 1],
                marker,
                color=colour,
                markerfacecolor=face,
                markersize=7,
                linestyle="none",
                label=name,
            )
        base = results.points([results.unguided]).mean(dim=(0, 1))
        panel.annotate(
            "unguided", (base[0], base[1]), textcoords="offset points", xytext=(8, -10), fontsize=8
        )
        panel.set(xlabel="coverage", ylabel="precision")
        panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
