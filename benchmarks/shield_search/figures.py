"""The figures of the search among protected vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.base import read_rows
from benchmarks.figure import COLOURS, MARKERS, drawn
from benchmarks.shield_search.results import (
    ANEW,
    FLAT,
    NPROBE,
    OURS,
    QUERIES,
    RIVAL,
    SPECTRUM,
    STEPS,
    Summary,
    ivf_name,
    summaries,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPECTRA, RECALL, ALONG = "spectrum.png", "recall.png", "steps.png"
_NAMES = (OURS, ANEW, *map(ivf_name, NPROBE), FLAT)


def draw_figures(folder: Path) -> None:
    """The spectrum of the set, recall against time, and time and distances along the steps."""
    _spectra(folder / SPECTRA, read_rows(folder / SPECTRUM))
    found = summaries(folder)
    count = found[0].vectors
    _recall(folder / RECALL, [s for s in found if s.vectors == count])
    own = [row for row in read_rows(folder / STEPS) if row["vectors"] == count]
    _along(
        folder / ALONG, own, [row for row in read_rows(folder / QUERIES) if row["vectors"] == count]
    )


def _spectra(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with drawn(path, 7.0, 3.0) as figure:
        shares, remaining = figure.subplots(1, 2)
        for i, name in enumerate(dict.fromkeys(row["latents"] for row in rows)):
            own = [row["share"] for row in rows if row["latents"] == name]
            left, rest = 1.0, []
            for share in own:
                left -= share
                rest.append(100 * max(left, 0.0))
            label = {"encoded": "encoded images", "set": "protected set"}[name]
            at = range(1, 1 + len(own))
            shares.loglog(
                at,
                [100 * max(s, 1e-9) for s in own],
                color=COLOURS[i],
                linestyle="-" if i else "--",
                linewidth=1.4,
                label=label,
            )
            remaining.semilogx(
                at, rest, color=COLOURS[i], linestyle="-" if i else "--", linewidth=1.4
            )
        shares.set(
            xlabel="principal component", ylabel="share of the variance, %", ylim=(1e-4, 100)
        )
        remaining.set(
            xlabel="principal components", ylabel="variance beyond them, %", ylim=(0, 100)
        )
        shares.legend()


def _recall(path: Path, found: Sequence[Summary]) -> None:
    factors = sorted({s.factor for s in found})
    with drawn(path, 8.2, 3.2) as figure:
        panels = figure.subplots(1, len(factors), sharey=True, squeeze=False)[0]
        for panel, factor in zip(panels, factors, strict=True):
            for s in (s for s in found if s.factor == factor):
                i = _NAMES.index(s.search)
                panel.plot(
                    1e3 * s.per_step,
                    100 * s.recall,
                    color=COLOURS[i],
                    marker=MARKERS[i],
                    markersize=7,
                    linestyle="",
                    label=s.search,
                )
            panel.set(
                xscale="log",
                xlabel="milliseconds a step",
                title=f"radius {found[0].radius / found[0].factor * factor:.1f}",
            )
        panels[0].set_ylabel("found of what is within, %")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")


def _along(path: Path, rows: Sequence[dict[str, Any]], queries: Sequence[dict[str, Any]]) -> None:
    factors = sorted({row["factor"] for row in rows})
    middle = min(factors, key=lambda factor: abs(factor - 1))
    with drawn(path, 8.2, 3.2) as figure:
        left, right = figure.subplots(1, 2)
        for name in (OURS, ANEW, RIVAL):
            i = _NAMES.index(name)
            own = [row for row in rows if (row["search"], row["factor"]) == (name, middle)]
            at = sorted({row["step"] for row in own})
            left.plot(
                at,
                [1e3 * median(row["seconds"] for row in own if row["step"] == step) for step in at],
                color=COLOURS[i],
                marker=MARKERS[i],
                markersize=3,
                linewidth=1.2,
                label=name,
            )
        left.set(xlabel="step", ylabel="milliseconds, median of the trajectories", yscale="log")
        left.legend()
        _distances(right, [row for row in queries if row["factor"] == middle])


def _distances(panel: Axes, queries: Sequence[dict[str, Any]]) -> None:
    at = sorted({row["step"] for row in queries})
    columns = [sorted(row["distance"] for row in queries if row["step"] == step) for step in at]
    panel.fill_between(
        at,
        [c[0] for c in columns],
        [c[-1] for c in columns],
        color=COLOURS[0],
        alpha=0.25,
        linewidth=0,
        label="all images",
    )
    panel.plot(at, [median(c) for c in columns], color=COLOURS[0], linewidth=1.4, label="median")
    panel.axhline(
        queries[0]["radius"], color="#000000", linestyle=":", linewidth=1.2, label="radius"
    )
    panel.set(xlabel="step", ylabel="distance to the nearest protected vector", ylim=(0, None))
    panel.legend()
