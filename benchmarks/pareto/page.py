"""The section of the documentation on variety against fidelity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.base import interval, table
from benchmarks.pareto.results import (
    ROOM,
    Results,
    by_unit,
    name_of,
    ratio_with_interval,
    volume,
    with_interval,
)
from benchmarks.pareto.tasks import STEPS, TASKS
from benchmarks.pareto.trials import AUTO, Trial


def page(folder: Path) -> str:
    """The section, from the rows of a run."""
    parts = [
        "## Variety against fidelity on the shipped models",
        "`python -m benchmarks pareto`",
        "Every method has the same number of settings (eight), tried on validation prompts. The "
        "one or two settings that together reach the largest hypervolume there are measured on "
        f"the test prompts, with {STEPS} steps and the same seeds for all. *Coverage* is the "
        "number of distinct right images among the samples over the largest possible number: the "
        "smaller of the samples and the right images. *Precision* is the share of samples that "
        "show a whole right image, by the model's judge. *Hypervolume* is the area under a "
        "method's settings in these two, between 0 and 1. k-NN precision, recall, density and "
        "coverage use k-nearest-neighbour balls around features, prompt by prompt. Intervals are "
        "95%, by a bootstrap over units of prompt and seeds; ratios and differences are paired. "
        "Denoisers run in bfloat16 and everything else in float32. SPELL's radius is measured "
        "once, on unguided samples of validation prompts. Times are of one core, one setting "
        "after another. Groups of 4 and 8 images, and methods for few steps, are compared on the "
        "same emoji model below, under *Few steps and small groups of images*, as `emoji-cfg2` "
        "and `emoji-cfg7.5`.",
    ]
    for name in TASKS:
        results = Results.read(folder, name)
        if results.test:
            parts += _task(name, results)
    return "\n\n".join(parts)


HEADLINE = (
    "independent sampling",
    "CADS",
    "IntervalGuidance",
    "VendiGuidance",
    "SPARKE as published",
    "SPELL",
    "ancestral sampling",
    "Auto",
)
"""The methods in the README's table."""


def variety_table(folder: Path, task: str) -> str:
    """What each method finds on a model at equal precision, one setting a method."""
    return _at_equal_precision(Results.read(folder, task))


def headline_table(folder: Path, task: str) -> str:
    """The few rows of `variety_table` that the README shows, without intervals."""
    results = Results.read(folder, task)
    base = results.points([results.unguided])[:, 0].mean(dim=0)
    seconds = {row["key"]: row["seconds"] for row in results.times}
    lines = []
    for key in _chosen(results):
        if name_of(key) in HEADLINE:
            coverage, precision = results.points([key])[:, 0].mean(dim=0).tolist()
            scale = Trial.from_key(key).guidance_scale
            lines.append(
                [
                    name_of(key),
                    f"{scale:g}",
                    f"{coverage:.0%}",
                    f"×{coverage / float(base[0]):.2f}",
                    f"{precision:.0%}",
                    f"×{seconds[key] / seconds[results.unguided]:.2f}",
                ]
            )
    columns = ["method", "guidance scale", "coverage", "gain", "precision", "time per image"]
    return table(columns, lines)


def _task(name: str, results: Results) -> list[str]:
    units = len({row["unit"] for row in results.test})
    samples = results.test[0]["samples"]
    unguided = Trial.from_key(results.unguided)
    parts = [
        f"### {name}",
        f"{units} test units of {samples} samples, {len({row['unit'] for row in results.tuning})} "
        f"validation units. Unguided: CFG {unguided.guidance_scale:g}.",
        f"![Coverage against precision](../benchmarks/results/pareto/{name}.png)",
        "What each method reaches over its settings:",
        _volumes(results),
        "At equal precision, a row a method: the setting with the largest coverage on the "
        f"validation prompts among those whose precision there was at most {100 * ROOM:.0f} point "
        "below that of unguided sampling (where there is none, the most precise setting).",
        _at_equal_precision(results),
        "The same settings in other measures:",
        _other_measures(results),
    ]
    if results.search:
        found = (
            "Samples needed to find nine tenths of the right images of a prompt (in brackets how "
            "many were found at the end, where that was not enough):"
        )
        parts += [found, _searched(results)]
    return parts


def _volumes(results: Results) -> str:
    families = results.families()
    points = {name: results.points(keys) for name, keys in families.items()}
    best = points.get(AUTO)
    lines = []
    for name, own in sorted(points.items(), key=lambda item: -float(volume(item[1]))):
        low, high = interval(own, volume)
        cells = [name, len(families[name]), f"{float(volume(own)):.3f} ({low:.3f} to {high:.3f})"]
        if best is not None:
            cells.append("–" if name == AUTO else _difference(best, own))
        lines.append(cells)
    return table(
        [
            "method",
            "settings",
            "hypervolume",
            *([f"{AUTO} above it by"] if best is not None else []),
        ],
        lines,
    )


def _difference(a: torch.Tensor, b: torch.Tensor) -> str:
    """How far the hypervolume of `a` is above that of `b`, on the same drawn units."""
    both, split = torch.cat([a, b], dim=1), a.shape[1]

    def difference(drawn: torch.Tensor) -> torch.Tensor:
        return volume(drawn[..., :split, :]) - volume(drawn[..., split:, :])

    low, high = interval(both, difference)
    return f"{float(difference(both)):+.3f} ({low:+.3f} to {high:+.3f})"


def _at_equal_precision(results: Results) -> str:
    base = results.points([results.unguided])[:, 0]
    seconds = {row["key"]: row["seconds"] for row in results.times}
    lines = []
    for key in _chosen(results):
        own = results.points([key])[:, 0]
        lines.append(
            [
                name_of(key),
                Trial.from_key(key).setting,
                with_interval(own[:, 0], "{:.0%}"),
                ratio_with_interval(own[:, 0], base[:, 0]),
                with_interval(own[:, 1], "{:.0%}"),
                with_interval(100 * (own[:, 1] - base[:, 1]), "{:+.1f}"),
                f"×{seconds[key] / seconds[results.unguided]:.2f}",
            ]
        )
    columns = [
        "method",
        "setting",
        "coverage",
        "against unguided",
        "precision",
        "points of precision",
        "time per image",
    ]
    return table(columns, lines)


def _other_measures(results: Results) -> str:
    columns = [
        "method",
        "setting",
        "recall",
        "coverage",
        "k-NN precision",
        "density",
        "Vendi",
        "Conditional-Vendi",
        "similarity",
        "Fréchet",
    ]
    lines = []
    for key in _chosen(results):
        rows = by_unit(results.test, key)
        (pooled,) = (row for row in results.pooled if row["key"] == key and row["stage"] == "test")
        means = {
            name: sum(row[name] for row in rows) / len(rows)
            for name in rows[0]
            if isinstance(rows[0][name], float)
        }
        # prompts that have nothing in common make the joint Gram matrix one block a prompt: the
        # mean of their entropies is left
        conditional = (
            torch.tensor([row["vendi"] for row in rows], dtype=torch.float64).log().mean().exp()
        )
        shares = [
            f"{means[f'manifold_{name}']:.2f}"
            for name in ("recall", "coverage", "precision", "density")
        ]
        vendi = [f"{means['vendi']:.1f}", f"{float(conditional):.1f}", f"{means['similarity']:.2f}"]
        lines.append(
            [name_of(key), Trial.from_key(key).setting, *shares, *vendi, f"{pooled['frechet']:.1f}"]
        )
    return table(columns, lines)


def _searched(results: Results) -> str:
    prompts = list(dict.fromkeys(row["prompt"] for row in results.search))
    possible = {row["prompt"]: row["possible"] for row in results.search}
    lines = []
    for key in dict.fromkeys(row["key"] for row in results.search):
        own = {row["prompt"]: row for row in results.search if row["key"] == key}
        needed: Sequence[str] = [
            str(own[p]["needed"] or f"– ({own[p]['found']})") if p in own else "" for p in prompts
        ]
        found = sum(1 for row in own.values() if row["needed"])
        lines.append([name_of(key), Trial.from_key(key).setting, *needed, f"{found} of {len(own)}"])
    return table(
        [
            "method",
            "setting",
            *(f"{p}, {possible[p]} images" for p in prompts),
            "prompts covered",
        ],
        lines,
    )


def _chosen(results: Results) -> list[str]:
    """Unguided sampling, and of each method the setting that is as precise."""
    chosen = [results.precise(keys) for keys in results.families().values()]
    return [results.unguided, *(key for key in chosen if key != results.unguided)]
