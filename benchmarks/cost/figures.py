"""The figures of the cost benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.base import read_rows
from benchmarks.cost.measure import LOOSE, PROMPTS, STEPS, Row
from benchmarks.cost.rivals import RIVALS
from benchmarks.figure import COLOURS, MARKERS, drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABELS = {
    "sparke": "SPARKE",
    "sparke-all": "SPARKE, nothing left out",
    "spell": "SPELL",
    "published": "autograd, as published",
    "new-row": "autograd, new row only",
    "whole-gram": "autograd, whole Gram matrix",
    "vendi": "Vendi guidance",
    "copy": "copying the memory",
}
_PROMPT_LABELS = {
    "sparke": "SPARKE",
    "loose": f"SPARKE, tolerance {LOOSE:g}",
    "all": "SPARKE, nothing left out",
    "copy": "copying the memory",
}

_SAME = {
    "all": "sparke-all",
    "loose": "spell",
}  # whose colours they have in the figure of the rivals: the same line, and one that is free


def draw_figures(folder: Path) -> None:
    """Draws time against the number of stored samples, and against what prompts leave of it, for
    each device.
    """
    rows, prompts = [Row(**row) for row in read_rows(folder / STEPS)], read_rows(folder / PROMPTS)
    for device in {r.device for r in rows}:
        _steps(
            folder / f"steps-{device}.png", [r for r in rows if r.device == device and r.seconds]
        )
        own = [r for r in prompts if r["device"] == device]
        if own:
            _prompts(folder / f"prompts-{device}.png", own)


def _steps(path: Path, rows: Sequence[Row]) -> None:
    """A panel a batch size, of that size of latents which has most of them."""
    d = Counter(d for d, _ in {(r.d, r.batch) for r in rows}).most_common(1)[0][0]
    batches = sorted({r.batch for r in rows if r.d == d})
    with drawn(path, 8.2, 3.9) as figure:
        panels = figure.subplots(1, len(batches), sharey=True, squeeze=False)[0]
        for panel, batch in zip(panels, batches, strict=True):
            for name in RIVALS:
                points = sorted(
                    (r.n, 1e3 * (r.seconds or 0))
                    for r in rows
                    if (r.d, r.batch, r.method) == (d, batch, name)
                )
                if points:
                    panel.plot(*zip(*points, strict=True), label=_LABELS[name], **_look(name))
            panel.set(
                yscale="log",
                xlabel="stored samples",
                title=f"batch of {batch}, latents of {d:,} numbers",
            )
            _mark(panel, [r.n for r in rows if (r.d, r.batch) == (d, batch)])
        panels[0].set_ylabel("milliseconds a step, whole batch")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")


def _prompts(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """On the left a memory of one size with ever more samples of the image's prompt, on the right
    so many of them in ever more others.
    """
    single = [r for r in rows if r["batch"] == 1]
    n = Counter(r["n"] for r in single).most_common(1)[0][0]
    each = Counter(r["similar"] for r in single if r["similar"] != n).most_common(1)[0][0]
    with drawn(path, 8.2, 3.6) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        for name in _PROMPT_LABELS:
            own = [r for r in single if r["method"] == name]
            shares = sorted(
                (100 * r["similar"] / n, 1e3 * r["seconds"]) for r in own if r["n"] == n
            )
            sizes = sorted((r["n"], 1e3 * r["seconds"]) for r in own if r["similar"] == each)
            left.plot(*zip(*shares, strict=True), label=_PROMPT_LABELS[name], **_look(name))
            right.plot(*zip(*sizes, strict=True), **_look(name))
        left.set(
            yscale="log", xlabel="of them with the image's prompt, %", title=f"{n:,} stored samples"
        )
        right.set(xlabel="stored samples", title=f"{each:,} of them with the image's prompt")
        _mark(left, [100 * r["similar"] / n for r in single if r["n"] == n])
        _mark(right, [r["n"] for r in single if r["similar"] == each])
        left.set_ylabel("milliseconds a step, one image")
        figure.legend(*left.get_legend_handles_labels(), loc="outside right center")


def _mark(panel: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis with a tick at each value that was measured, written out."""
    panel.set_xscale("log")
    at = sorted(set(values))
    panel.set_xticks(
        at, [f"{x:,.0f}" if x >= 1 else f"{x:.2g}" for x in at], rotation=30, ha="right"
    )
    panel.minorticks_off()


def _look(name: str) -> dict[str, Any]:
    if name == "copy":
        return {"color": "#000000", "linestyle": ":", "linewidth": 1.2}
    i = list(RIVALS).index(_SAME.get(name, name))
    return {"color": COLOURS[i], "marker": MARKERS[i], "markersize": 4.5, "linewidth": 1.4}
