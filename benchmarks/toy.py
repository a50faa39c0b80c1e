"""The toy benchmark: all methods on mixtures with an exact denoiser, each over a sweep of the same
number of trials.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.base import Benchmark, Progress, interval, read_rows, table, write_rows
from benchmarks.figure import require_matplotlib
from benchmarks.fronts import hypervolume, undominated
from benchmarks.mixtures import MODES, PROMPTS, Mixtures, draw, quality
from benchmarks.table import BENCHMARKS
from unalike.guidance.method import Method
from unalike.guidance.methods import build
from unalike.guidance.protocols import References

CFG, LOW_CFG = 3.0, 1.0
ROOM = 0.02  # of precision, that the setting of a table may lose against independent sampling
ROWS, SAMPLES = "trials.parquet", "samples.parquet"
MEASURES = ("coverage", "precision", "log_likelihood")


@dataclass(frozen=True)
class Trial:
    """One setting of a method: the weight of classifier-free guidance and the options; no method
    where the name is empty.
    """

    guidance_scale: float
    method: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        numbers = {
            name: value
            for name, value in self.options.items()
            if isinstance(value, float) and (name, value) != ("stop", 1)
        }
        shown = [f"{name} {value:g}" for name, value in numbers.items()]
        return ", ".join([*shown, f"CFG {self.guidance_scale:g}"])


@dataclass(frozen=True)
class Family:
    """The trials of one method.

    Args:
        name: what tables call it.
        memory: whether samples are drawn in batches of which later ones know the earlier, instead
            of all at once.
        trials: its sweep.
    """

    name: str
    memory: bool
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Args:
        samples: of each of the four prompts.
        batches: that they are drawn in, with a memory.
        validation, test: seeds of the worlds to choose settings on and to report.
        thin: take every such trial of a sweep only.
    """

    samples: int = 16
    batches: int = 4
    validation: tuple[int, ...] = (1000, 1001, 1002)
    test: tuple[int, ...] = tuple(range(8))
    thin: int = 1


SMOKE = Size(samples=8, batches=2, validation=(1000,), test=(0, 1), thin=8)


def families() -> Iterator[Family]:
    """The methods, each with 16 trials: four strengths, all or the first 70% of the steps, and two
    weights of classifier-free guidance.

    Those without a strength have as many of their own: 16 weights, 16 intervals, and four sizes of
    noise at two places.
    """
    yield Family("independent", False, (Trial(CFG),))
    yield Family("lower CFG", False, tuple(Trial(1 + (CFG - 1) * i / 16) for i in range(16)))
    ends = product((0.02, 0.05, 0.1, 0.15), (0.2, 0.4, 0.8, 2.0))
    yield Family(
        "IntervalGuidance",
        False,
        tuple(Trial(CFG, "interval", {"sigma_low": low, "sigma_high": high}) for low, high in ends),
    )
    noises = product((0.5, 1.0, 2.0, 4.0), ((0.6, 0.9), (0.05, 0.3)), (CFG, LOW_CFG))
    yield Family(
        "CADS",
        False,
        tuple(
            Trial(scale, "cads", {"noise_scale": s, "tau_1": low, "tau_2": high})
            for s, (low, high), scale in noises
        ),
    )
    yield Family("ParticleGuidance", False, _swept("particle", "strength", (0.1, 0.2, 0.4, 0.8)))
    for memory in (False, True):
        yield Family(
            "VendiGuidance",
            memory,
            _swept("vendi", "strength", (0.05, 0.4, 1.6, 3.2), conditional=True),
        )
        yield Family(
            "SPARKE on x_t",
            memory,
            _swept("sparke", "strength", (0.05, 0.1, 0.2, 0.4), target="x_t", every=5),
        )
        yield Family("SPARKE on x0", memory, _swept("sparke", "strength", (0.05, 0.4, 1.6, 3.2)))
        reaches = product(
            (0.2, 0.4, 0.8, 1.6), (0.5, 0.1), (CFG, LOW_CFG)
        )  # in two dimensions modes are told apart at lower noise
        yield Family(
            "Auto",
            memory,
            tuple(
                Trial(scale, "auto", {"strength": s, "noise_to_signal": r})
                for s, r, scale in reaches
            ),
        )
        yield Family("SPELL", memory, _swept("spell", "factor", (0.1, 0.4, 0.8, 1.6)))


def _swept(method: str, option: str, strengths: Sequence[float], **fixed: Any) -> tuple[Trial, ...]:
    grid = product(strengths, (1.0, 0.7), (CFG, LOW_CFG))
    return tuple(
        Trial(scale, method, {option: strength, "stop": stop, **fixed})
        for strength, stop, scale in grid
    )


def sampled(
    world: Mixtures, family: Family, trial: Trial, size: Size, seed: int
) -> tuple[Tensor, Tensor]:
    """Samples (n, 2) of all prompts of a world and their prompts (n,), by one setting."""
    batches = size.batches if family.memory else 1
    prompts = torch.arange(PROMPTS).repeat_interleave(size.samples // batches)
    parts, memory, methods = [], None, _ready(world, trial, size, seed)
    for batch in range(batches):
        first_seed = 1000 * seed + batch * len(prompts)
        parts.append(
            draw(
                world,
                prompts,
                methods,
                guidance_scale=trial.guidance_scale,
                seed=first_seed,
                memory=memory,
            ).x
        )
        memory = References(
            torch.cat(parts).float(), world.embeddings[prompts].float().repeat(len(parts), 1)
        )
    return torch.cat(parts), prompts.repeat(batches)


def _ready(world: Mixtures, trial: Trial, size: Size, seed: int) -> list[Method]:
    """The method, with what it measures on unguided samples measured on ones of other seeds."""
    if not trial.method:
        return []
    method = build(trial.method, **trial.options)
    if method.needs_calibration:
        prompts = torch.arange(PROMPTS).repeat_interleave(size.samples)
        unguided = draw(
            world, prompts, (), guidance_scale=trial.guidance_scale, seed=10**6 + 1000 * seed
        )
        method = method.calibrated(unguided.x, prompts)
    return [method]


def run(folder: Path, smoke: bool, progress: Progress) -> None:
    """Measure into the folder, method by method, and draw the figures."""
    from benchmarks.toy_figures import draw_figures

    require_matplotlib()
    size, every = SMOKE if smoke else Size(), list(families())
    rows, shown = read_rows(folder / ROWS), read_rows(folder / SAMPLES)
    done = {(row["method"], row["memory"]) for row in shown}
    rows = [row for row in rows if (row["method"], row["memory"]) in done]
    for i, family in enumerate(every):
        progress(i / len(every))
        if (family.name, family.memory) in done:
            continue
        family = Family(family.name, family.memory, family.trials[:: size.thin])
        rows += _measured(family, size, rows)
        best = next(
            row
            for row in rows
            if (row["method"], row["memory"], row["best"]) == (family.name, family.memory, True)
        )
        x, prompts = sampled(
            Mixtures.random(size.test[0]), family, family.trials[best["trial"]], size, size.test[0]
        )
        own = x[prompts == 0].tolist()
        shown += [
            {"method": family.name, "memory": family.memory, "world": size.test[0], "x": a, "y": b}
            for a, b in own
        ]
        write_rows(folder / ROWS, rows)
        write_rows(folder / SAMPLES, shown)
    draw_figures(folder)
    progress(1.0)


def _measured(
    family: Family, size: Size, earlier: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """A row a trial and world: every trial on the validation worlds; on the test worlds those that
    are undominated on the former.
    """
    rows = [
        _row(family, i, "validation", size, seed)
        for i in range(len(family.trials))
        for seed in size.validation
    ]
    points = (
        torch.tensor([[r["coverage"], r["precision"]] for r in rows])
        .view(len(family.trials), len(size.validation), 2)
        .mean(dim=1)
    )
    independent = [
        r["precision"]
        for r in earlier
        if r["method"] == "independent" and r["role"] == "validation"
    ]
    floor = sum(independent) / len(independent) - ROOM if independent else 0.0
    edge = undominated(points)
    # of those that keep the precision, the one that covers most; where none does, the most precise
    kept = edge & (points[:, 1] >= floor)
    best = int(
        torch.where(kept, points[:, 0], -1).argmax()
        if kept.any()
        else torch.where(edge, points[:, 1], -1).argmax()
    )
    for i in edge.nonzero().flatten().tolist():
        rows += [_row(family, i, "test", size, seed) | {"best": i == best} for seed in size.test]
    return rows


def _row(family: Family, index: int, role: str, size: Size, seed: int) -> dict[str, Any]:
    world, trial = Mixtures.random(seed), family.trials[index]
    measured = asdict(quality(world, *sampled(world, family, trial, size, seed)))
    setting = {
        "setting": str(trial),
        "guidance_scale": trial.guidance_scale,
        "options": json.dumps(trial.options),
    }
    return {
        "method": family.name,
        "memory": family.memory,
        "role": role,
        "trial": index,
        "best": False,
        "seed": seed,
        **setting,
        **measured,
    }


def page(folder: Path) -> str:
    """The section of the documentation."""
    rows = read_rows(folder / ROWS)
    tested = [r for r in rows if r["role"] == "test"]
    worlds, tried = len({r["seed"] for r in tested}), max(r["trial"] for r in rows) + 1
    parts = [
        "## Toy: mixtures with an exact score",
        f"{BENCHMARKS['toy'].question} `python -m benchmarks toy`",
        f"Each world has {PROMPTS} prompts of {MODES} modes of unequal weight in the plane, some "
        "of them common to two prompts. The model is exact, so that what is lost is lost by the "
        "guidance. A mode is covered where a sample lies within three standard deviations of it; "
        "precision is the share of samples that are as near to some mode of their prompt. Methods "
        "without a memory draw all samples at once.",
        f"Every method had {tried} trials (independent sampling one) on worlds that are not those "
        "of the tables. Settings that no other trial of the method beat in coverage and precision "
        f"there were measured on {worlds} test worlds: the table has the one that covered most at "
        f"a precision at most {100 * ROOM:.0f} points below that of independent sampling (the "
        "most precise one where none kept that), and the hypervolume of all of them, the area "
        "under their front. Intervals are 95%, by a bootstrap over worlds. SPARKE and "
        "VendiGuidance see directions from the origin only, which tell the modes of a prompt "
        "apart here by construction.",
        "![Samples of each method in a test world](../benchmarks/results/toy/samples.png)",
        "![Coverage against precision](../benchmarks/results/toy/fronts.png)",
        "All samples at once:",
        _table(tested, memory=False),
        "In batches, of which later ones know the earlier, for the methods that have a memory:",
        _table(tested, memory=True),
    ]
    return "\n\n".join(parts)


def _table(tested: Sequence[dict[str, Any]], *, memory: bool) -> str:
    lines = []
    for name in dict.fromkeys(r["method"] for r in tested if r["memory"] == memory):
        own = [r for r in tested if r["method"] == name and r["memory"] == memory]
        best = [r for r in own if r["best"]]
        points = by_seed(own)
        cells = [
            _with_interval(torch.tensor([r[m] for r in best]), "{:.0%}")
            for m in ("coverage", "precision")
        ]
        likelihood = torch.tensor([r["log_likelihood"] for r in best]).mean().item()
        low, high = interval(points, lambda drawn: hypervolume(drawn.mean(dim=1)))
        lines.append(
            [
                name,
                best[0]["setting"],
                *cells,
                f"{likelihood:.2f}",
                f"{hypervolume(points.mean(dim=0)):.3f} ({low:.3f} to {high:.3f})",
            ]
        )
    return table(
        ["method", "setting", "coverage", "precision", "log-likelihood", "hypervolume"], lines
    )


def by_seed(rows: Sequence[dict[str, Any]]) -> Tensor:
    """Coverage and precision (seeds, trials, 2) of one method's rows."""
    seeds, trials = sorted({r["seed"] for r in rows}), sorted({r["trial"] for r in rows})
    found = {(r["seed"], r["trial"]): (r["coverage"], r["precision"]) for r in rows}
    return torch.tensor(
        [[found[seed, trial] for trial in trials] for seed in seeds], dtype=torch.float64
    )


def _with_interval(values: Tensor, form: str) -> str:
    low, high = interval(values)
    return f"{form.format(values.mean().item())} ({form.format(low)} to {form.format(high)})"


BENCHMARK = Benchmark(name="toy", run=run, page=page)
