"""What the benchmark of the ambient variant shows: fidelity and variety beside time, and the time
of one guided step.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.base import interval, read_rows, table
from benchmarks.figure import COLOURS, MARKERS, drawn

ROWS, STEPS, FIGURE = "prompts.parquet", "steps.parquet", "ambient.png"
UNGUIDED, LATENTS, IMAGES, CLIP = "unguided", "latents", "images", "images, CLIP ViT-B/32"
VALIDATION, TEST = "validation", "test"
Row = dict[str, Any]
_SETTING = ("way", "strength", "stop")


def best(rows: Sequence[Row], way: str) -> dict[str, Any]:
    """The setting of a way with the largest coverage on the validation prompts, then precision."""
    own = [r for r in rows if r["split"] == VALIDATION and r["way"] == way]
    settings = list(dict.fromkeys(tuple(r[name] for name in _SETTING) for r in own))
    chosen = max(
        settings, key=lambda s: tuple(v.mean().item() for v in _measures(_of(own, s))[:2][::-1])
    )
    return dict(zip(_SETTING, chosen, strict=True))


def _of(rows: Sequence[Row], setting: tuple[Any, ...]) -> list[Row]:
    return [r for r in rows if tuple(r[name] for name in _SETTING) == setting]


def _measures(rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
    """Precision, coverage and seconds an image, prompt by prompt."""
    columns = (
        [r["right"] / r["samples"], r["distinct"] / r["possible"], r["seconds"] / r["samples"]]
        for r in rows
    )
    precision, distinct, seconds = torch.tensor(list(columns), dtype=torch.float64).T
    return precision, distinct, seconds


def _tested(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of the test prompts of each way, in the order of the prompts."""
    ways = (UNGUIDED, LATENTS, IMAGES)
    return {
        way: sorted(
            (r for r in rows if r["split"] == TEST and r["way"] == way), key=lambda r: r["prompt"]
        )
        for way in ways
    }


def draw_figure(rows: Sequence[Row], steps: Sequence[Row], folder: Path) -> None:
    """Write the figure: what each way changes on the test prompts, and the time of a step."""
    found = {way: _measures(own)[:2] for way, own in _tested(rows).items()}
    with drawn(folder / FIGURE, 8.2, 2.6) as figure:
        left, right = figure.subplots(1, 2)
        for i, way in enumerate((LATENTS, IMAGES)):
            changes = [100 * (a - b) for a, b in zip(found[way], found[UNGUIDED], strict=True)]
            ends = [
                (v.mean().item() - low, high - v.mean().item())
                for v in changes
                for low, high in [interval(v)]
            ]
            style: dict[str, Any] = {
                "color": COLOURS[i],
                "marker": MARKERS[i],
                "capsize": 2,
                "linestyle": "none",
            }
            at = [place + 0.2 * (i - 0.5) for place in range(len(changes))]
            left.errorbar(
                [v.mean().item() for v in changes],
                at,
                xerr=list(zip(*ends, strict=True)),
                label=way,
                **style,
            )
        left.axvline(0, color="#666666", linewidth=0.8)
        left.set_yticks(range(2), ["precision", "distinct right\nimages"])
        left.set(xlabel="change against unguided, points", ylim=(1.5, -0.8))
        left.legend(loc="upper left", ncols=2)
        times = _medians(steps)
        plain = times[UNGUIDED][0]
        names = [name for name in times if name != UNGUIDED]
        right.barh(
            range(len(names)), [plain] * len(names), color="#BBBBBB", label="the step itself"
        )
        right.barh(
            range(len(names)),
            [times[n][1] for n in names],
            left=plain,
            color=COLOURS[1],
            hatch="//",
            label="the correction",
        )
        right.set_yticks(range(len(names)), names)
        right.invert_yaxis()
        right.set(xlabel=f"processor time of a step of {steps[0]['images']} images, s")
        right.legend()


def _medians(steps: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """For each way the median time of a step, and of the correction in it."""
    of_way = {
        way: [r for r in steps if r["way"] == way] for way in dict.fromkeys(r["way"] for r in steps)
    }
    return {
        w: (median(r["step_seconds"] for r in own), median(r["correction_seconds"] for r in own))
        for w, own in of_way.items()
    }


def page(folder: Path) -> str:
    """The section of the documentation."""
    rows, steps = read_rows(folder / ROWS), read_rows(folder / STEPS)
    tested = _tested(rows)
    trials = len(
        {
            tuple(r[name] for name in _SETTING)
            for r in rows
            if r["split"] == VALIDATION and r["way"] == IMAGES
        }
    )
    validation = len({r["prompt"] for r in rows if r["split"] == VALIDATION})
    samples, rounds = tested[UNGUIDED][0]["samples"], 1 + max(r["round"] for r in steps)
    parts = [
        "## Ambient: comparing images in place of latents",
        (
            "What does comparing images in place of latents bring, and what does it cost? `python "
            "-m benchmarks ambient`"
        ),
        "`SPARKE(embed=…)`, the ambient variant of the paper, decodes each prediction, embeds the "
        "image, and takes the gradient back through both networks. Here the embedding is that of "
        "the judge of the emoji model, by which images are told apart in the end, which favours "
        "this variant. SPARKE on latents beside it, each with the strength and window, of "
        f"{trials} trials, that gave most distinct right images on {validation} validation "
        f"prompts; then {samples} images of each of {len(tested[UNGUIDED])} test prompts, 20 "
        "steps, CFG 2.5, the same seeds. Times are processor time of one thread, so that waiting "
        "for other work on the machine does not count. Intervals are 95%, by a bootstrap over "
        "prompts.",
        _quality(tested),
        _difference(tested),
        (
            "![Precision and distinct right images, and the time of a "
            f"step](../benchmarks/results/ambient/{FIGURE})"
        ),
        f"The time of a step of {steps[0]['images']} images, medians of {rounds} rounds of all "
        "ways in turn, in calls of few steps whose preparation is included. CLIP ViT-B/32 has its "
        "real size and random weights, which the time does not depend on, and sees the 64×64 "
        "images enlarged to 224×224. The decoder is that of the emoji model, so that of larger "
        "images adds to this; its gradient is taken image by image with intermediate results "
        "computed again, which saves memory and costs a pass more.",
        _times(steps),
        "An interval that contains 0 says that no difference was found, not that there is none: "
        f"{samples} images of each of {len(tested[UNGUIDED])} prompts show only large ones. What "
        "this does not show: whether a real CLIP would make images more unlike than this judge "
        "does, since no weights of it are here, nor other numbers of images: the cost grows with "
        "them, and a memory is embedded once more.",
    ]
    return "\n\n".join(parts)


def _quality(tested: dict[str, list[Row]]) -> str:
    lines = []
    for way, own in tested.items():
        setting = (
            "" if way == UNGUIDED else f"strength {own[0]['strength']:g}, stop {own[0]['stop']:g}"
        )
        precision, distinct, seconds = _measures(own)
        shown = [
            f"{v.mean():.1%} ({low:.1%} to {high:.1%})"
            for v in (precision, distinct)
            for low, high in [interval(v)]
        ]
        lines.append([way, setting, *shown, f"{seconds.median():.2f} s"])
    return table(
        [
            "compared",
            "setting",
            "precision",
            "distinct right images, of the possible",
            "time an image",
        ],
        lines,
    )


def _difference(tested: dict[str, list[Row]]) -> str:
    """Each against the other, prompt by prompt."""
    found, lines = {way: _measures(own) for way, own in tested.items()}, []
    for way, other in ((LATENTS, UNGUIDED), (IMAGES, UNGUIDED), (IMAGES, LATENTS)):
        changes = [a - b for a, b in zip(found[way][:2], found[other][:2], strict=True)]
        shown = [
            f"{100 * v.mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
            for v in changes
            for low, high in [interval(v)]
        ]
        lines.append(
            [f"{way} against {other}", *shown, f"{(found[way][2] / found[other][2]).median():.1f}"]
        )
    return table(
        [
            "prompt by prompt",
            "precision, points",
            "distinct right images, points",
            "times as long (median)",
        ],
        lines,
    )


def _times(steps: Sequence[Row]) -> str:
    plain = {r["round"]: r["step_seconds"] for r in steps if r["way"] == UNGUIDED}
    lines = []
    for way, (seconds, correction) in _medians(steps).items():
        ratio = median(r["step_seconds"] / plain[r["round"]] for r in steps if r["way"] == way)
        lines.append(
            [
                way,
                f"{1000 * seconds:.0f} ms",
                "" if way == UNGUIDED else f"{1000 * correction:.1f} ms",
                f"{ratio:.2f}",
            ]
        )
    return table(
        ["compared", "time of a step", "of which the correction", "times an unguided step"], lines
    )
