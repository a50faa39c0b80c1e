"""The figures of the toy benchmark: samples of each method, and coverage against precision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.base import read_rows
from benchmarks.figure import COLOURS, MARKERS, drawn
from benchmarks.fronts import undominated
from benchmarks.mixtures import Mixtures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RANGE = (
    2.35  # the plane is shown from -_RANGE to _RANGE; what lies further out is marked at the edge
)
_LEAST = 0.95  # precision that the fronts are drawn from


def draw_figures(folder: Path) -> None:
    """Write `samples.png` and `fronts.png` from the rows of a run."""
    _samples(folder, read_rows(folder / "samples.parquet"), read_rows(folder / "trials.parquet"))
    _fronts(folder, read_rows(folder / "trials.parquet"))


def _samples(folder: Path, shown: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> None:
    """A panel a method, drawn at once, and the legend in the last."""
    names = list(dict.fromkeys(r["method"] for r in shown if not r["memory"]))
    settings = {r["method"]: r["setting"] for r in rows if r["best"] and not r["memory"]}
    with drawn(folder / "samples.png", 12.5, 5.2) as figure:
        figure.set_layout_engine("compressed")  # the panels are square
        panels = figure.subplots(2, 6).flatten()
        for panel, name in zip(panels, names, strict=False):
            own = [(r["x"], r["y"]) for r in shown if r["method"] == name and not r["memory"]]
            world = Mixtures.random(next(r["world"] for r in shown if r["method"] == name))
            _panel(panel, world, torch.tensor(own, dtype=torch.float64))
            panel.set_title("\n".join([name, *_wrapped(settings[name])]), fontsize=8)
        handles, labels = panels[0].get_legend_handles_labels()
        for panel in panels[len(names) :]:
            panel.axis("off")
        panels[-1].legend(handles, labels, loc="center", fontsize=9)


def _wrapped(setting: str) -> list[str]:
    """Lines of a setting, broken between options only."""
    return wrap(setting.replace(" ", "\xa0").replace(",\xa0", ", "), 28)


def _panel(panel: Axes, world: Mixtures, x: torch.Tensor) -> None:
    line = torch.linspace(-_RANGE, _RANGE, 161, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=2).flatten(0, 1)
    density = world.log_density(grid, 0).view(len(line), len(line))
    panel.contourf(
        line,
        line,
        density,
        levels=[-40, -20, -8, 2, 20],
        colors=["#F4F4F4", "#E2E2E2", "#C6C6C6", "#9A9A9A"],
    )
    hits = world.hits(x, 0)
    modes = world.means[world.weights[0] > 0]
    missed = modes[~hits.any(dim=0)]
    right, wrong = x[hits.any(dim=1)], x[~hits.any(dim=1)].clamp(-0.98 * _RANGE, 0.98 * _RANGE)
    panel.scatter(
        *right.T,
        s=16,
        color=COLOURS[0],
        edgecolors="white",
        linewidths=0.5,
        zorder=3,
        label="sample in a mode",
    )
    panel.scatter(
        *wrong.T, s=22, color="black", marker="x", linewidths=1.3, zorder=4, label="sample outside"
    )
    panel.scatter(
        *missed.T,
        s=190,
        facecolors="none",
        edgecolors=COLOURS[1],
        linewidths=1.8,
        zorder=2,
        label="mode without a sample",
    )
    panel.set(xlim=(-_RANGE, _RANGE), ylim=(-_RANGE, _RANGE), aspect="equal", xticks=[], yticks=[])
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    panel.text(
        0.03,
        0.03,
        f"{len(modes) - len(missed)} of {len(modes)} modes",
        transform=panel.transAxes,
        fontsize=7.5,
    )


def _fronts(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Two panels, without and with memory: the settings that were tested, and each method's front
    through them.
    """
    tested = [r for r in rows if r["role"] == "test"]
    names = list(dict.fromkeys(r["method"] for r in tested))
    with drawn(folder / "fronts.png", 9, 4.2) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for panel, memory in zip(panels, (False, True), strict=True):
            for i, name in enumerate(names):
                # what has no memory is drawn in both, to compare with
                own = [r for r in tested if r["method"] == name and r["memory"] == memory]
                own = own or (
                    [r for r in tested if r["method"] == name]
                    if name in ("independent", "lower CFG")
                    else []
                )
                if own:
                    _front(panel, own, COLOURS[i], MARKERS[i], name)
            panel.set(
                xlabel="coverage of modes",
                title="later batches know the earlier" if memory else "all samples at once",
            )
            panel.set(xlim=(0.35, 1.01), ylim=(_LEAST, 1.003))
        panels[0].set_ylabel(f"precision, from {_LEAST:g}")
        panels[0].legend(loc="lower left")


def _front(
    panel: Axes, rows: Sequence[dict[str, Any]], colour: str, marker: str, name: str
) -> None:
    trials = sorted({r["trial"] for r in rows})
    points = torch.tensor(
        [
            [
                sum(r[m] for r in rows if r["trial"] == t) / sum(r["trial"] == t for r in rows)
                for m in ("coverage", "precision")
            ]
            for t in trials
        ]
    )
    edge = points[undominated(points)]
    edge = edge[edge[:, 0].argsort()]
    panel.plot(*edge.T, color=colour, marker=marker, markersize=5, linewidth=1.2, label=name)
