"""The section of the documentation on few steps and small groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from benchmarks.base import table
from benchmarks.fewstep.figures import FIGURE
from benchmarks.fewstep.measure import CPU
from benchmarks.fewstep.methods import FIRST_STEP, PLAIN, SETTINGS
from benchmarks.fewstep.models import MODELS
from benchmarks.fewstep.results import (
    HARM,
    TUNED,
    Choice,
    Results,
    by_prompt,
    equal_calls,
    harmed,
    point,
)
from benchmarks.pareto.results import ROOM, ratio_with_interval, with_interval
from benchmarks.pareto.trials import AUTO, Trial

OTHER_SEEDS = f"{PLAIN}, other seeds"


def page(folder: Path) -> str:
    """The section, from the rows of a run."""
    results = {name: Results.read(folder / name) for name in MODELS}
    measured = {name: own for name, own in results.items() if own.complete}
    parts = [
        "## Few steps and small groups of images",
        "`python -m benchmarks fewstep`",
        f"Every method has the same number of settings ({SETTINGS}; {FIRST_STEP}, which has no "
        "strength, one for each number of first steps), tried on validation prompts "
        f"in groups of {TUNED} images. Of each the setting with the largest coverage there is "
        f"reported, among those whose precision was at most {100 * ROOM:.0f} point below that of "
        "plain sampling; where there is none, the most precise one, marked with an asterisk. "
        "Methods act on each group as they do in a call with one prompt. Group `g` of `n` images "
        "has the seeds from `g · n` on, the same for all methods. *Harmed* is the share of "
        f"prompts whose precision falls by more than {100 * HARM:.0f} points; plain sampling with "
        "other seeds says how much of that is chance. *Similarity* is the mean cosine of the "
        "judge's features of two images of a group: 1 for equal images. *Calls* are evaluations "
        "of the denoiser for an image, counted while it ran, beside those of plain sampling; that "
        "ContrastiveNoise differentiates some of them is not counted. *At "
        "equal calls* is the ratio of distinct right images to those that plain sampling is "
        "expected to find when it spends the same evaluations on more random images. Intervals "
        "are 95%, by a paired bootstrap over prompts.",
    ]
    if measured:
        parts += ["Plain sampling:", _overview(measured)]
    for name, own in measured.items():
        parts += _model(name, own)
    missing = [f"`{name}`" for name in MODELS if name not in measured]
    if missing:
        parts.append(f"Not measured yet: {', '.join(missing)}.")
    return "\n\n".join(parts)


def short_table(folder: Path, model: str, families: Sequence[str] | None = None) -> str:
    """The methods beside plain sampling in groups of 8, the largest coverage first.

    Args:
        folder: of the run.
        model: its name in `MODELS`.
        families: the methods to show; None for all.
    """
    results = Results.read(folder / model)
    shown = [f for f in results.families if f != PLAIN and (families is None or f in families)]
    gains = []
    for family in shown:
        choice = results.precise(family)
        line = _line(results, choice, TUNED)
        gain = float(line.own[:, 0].mean() / line.base[:, 0].mean())
        cells = line.cells
        gains.append((gain, [*cells[:2], cells[3], cells[5], cells[6], cells[8]]))
    rows = [cells for _, cells in sorted(gains, key=lambda found: -found[0])]
    columns = ["method", "setting", "distinct right images", "points of precision"]
    return table([*columns, "prompts harmed", "evaluations"], rows)


def _overview(measured: dict[str, Results]) -> str:
    """What plain sampling reaches on each model."""
    sizes = sorted({size for own in measured.values() for size in own.complete})
    lines = []
    for name, own in measured.items():
        points = {size: by_prompt(own.rows(own.plain, size), point) for size in own.complete}
        similar = by_prompt(own.rows(own.plain, TUNED), lambda row: row["similarity"])
        lines.append(
            [
                f"`{name}`",
                MODELS[name].steps,
                f"{MODELS[name].guidance_scale:g}",
                *(f"{float(points[s][:, 0].mean()):.0%}" if s in points else "–" for s in sizes),
                f"{float(points[own.complete[-1]][:, 1].mean()):.0%}",
                f"{float(similar.mean()):.2f}",
            ]
        )
    columns = ["model", "steps", "guidance scale", *(f"coverage of {s}" for s in sizes)]
    return table([*columns, "precision", "similarity"], lines)


def _model(name: str, results: Results) -> list[str]:
    rows = results.rows(results.plain, TUNED)
    prompts = len({row["prompt"] for row in rows})
    model = MODELS[name]
    parts = [
        f"### {name}",
        f"`{model.source}` in {model.steps} step{'s' * (model.steps > 1)} at guidance scale "
        f"{model.guidance_scale:g}; {prompts} test prompts, "
        f"{len({row['prompt'] for row in results.tuning})} validation prompts. Drawn on "
        f"{' and '.join(sorted({row.get('device', CPU) for row in [*results.tuning, *rows]}))}.",
        f"![Coverage against precision](../benchmarks/results/fewstep/{name}/{FIGURE})",
    ]
    for size in sorted(results.complete, key=lambda size: (size != TUNED, size)):
        parts += [f"Groups of {size}:", _methods(results, size)]
    return parts


@dataclass(frozen=True)
class _Line:
    """A setting in groups of a size, beside plain sampling in the same groups.

    Attributes:
        own, base: coverage and precision (prompts, 2).
        cells: of the table.
    """

    own: Tensor
    base: Tensor
    cells: list[str]


def _methods(results: Results, size: int) -> str:
    """A row for each method, by their coverage beside that of plain sampling."""
    choices = {family: results.precise(family) for family in results.families}
    lines = {family: _line(results, choice, size) for family, choice in choices.items()}
    best = lines.get(AUTO)
    order = sorted(
        (family for family in lines if family != PLAIN),
        key=lambda family: -float(lines[family].own[:, 0].mean() / lines[family].base[:, 0].mean()),
    )
    rows = []
    for family in [PLAIN, *order]:
        cells = list(lines[family].cells)
        if best is not None and family != AUTO:
            gap = best.own[:, 0] - lines[family].own[:, 0]
            cells.append(with_interval(100 * gap, "{:+.1f}"))
        elif best is not None:
            cells.append("–")
        rows.append(cells)
    other = _other_seeds(results, size)
    if other:
        rows.insert(1, [*other, *([""] if best is not None else [])])
    columns = ["method", "setting", "coverage", "beside plain", "precision", "points of precision"]
    columns += ["harmed", "similarity", "calls", "at equal calls"]
    return table([*columns, *([f"{AUTO} above it by"] if best is not None else [])], rows)


def _line(results: Results, choice: Choice, size: int) -> _Line:
    key, plain = choice.key, results.plain
    rows = results.rows(key, size)
    base_rows = results.rows(plain, size, count=results.groups(key, size))
    if key == plain:
        base_rows = rows = results.rows(plain, size, count=_paired(results, size))
    own, base = by_prompt(rows, point), by_prompt(base_rows, point)
    calls = _mean(rows, "evaluations") / _mean(base_rows, "evaluations")
    cells = _cells(own, base, _mean(rows, "similarity"))
    found = equal_calls(results, key, size, calls)
    trial = Trial.from_key(key)
    guided = trial.methods or trial.candidates
    setting = trial.options or ("default" if guided else f"CFG {trial.guidance_scale:g}")
    return _Line(
        own,
        base,
        [
            trial.family + ("" if choice.precise else " *"),
            setting,
            *cells,
            f"×{calls:.2f}",
            "–" if found is None or key == plain else ratio_with_interval(*found),
        ],
    )


def _cells(own: Tensor, base: Tensor, similarity: float) -> list[str]:
    """Coverage, its ratio, precision, its difference, harm and similarity."""
    return [
        with_interval(own[:, 0], "{:.0%}"),
        ratio_with_interval(own[:, 0], base[:, 0]),
        with_interval(own[:, 1], "{:.0%}"),
        with_interval(100 * (own[:, 1] - base[:, 1]), "{:+.1f}"),
        f"{harmed(own[:, 1], base[:, 1]):.0%}",
        f"{similarity:.2f}",
    ]


def _other_seeds(results: Results, size: int) -> list[str] | None:
    """Plain sampling with as many other seeds, beside itself; None where there are not as many."""
    plain, count = results.plain, _paired(results, size)
    if results.groups(plain, size) < 2 * count:
        return None
    rows = results.rows(plain, size, begin=count, count=count)
    own = by_prompt(rows, point)
    base = by_prompt(results.rows(plain, size, count=count), point)
    return [OTHER_SEEDS, "", *_cells(own, base, _mean(rows, "similarity")), "×1.00", "–"]


def _paired(results: Results, size: int) -> int:
    """How many groups of a size the methods are compared in."""
    others = [
        results.groups(results.precise(family).key, size)
        for family in results.families
        if family != PLAIN
    ]
    return max(others, default=results.groups(results.plain, size))


def _mean(rows: Sequence[dict[str, float]], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)
