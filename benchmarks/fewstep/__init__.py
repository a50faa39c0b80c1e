"""Few steps and small groups of images: every method tuned alike on each model, and compared in
groups of 4, 8 and 32 images, also at equal numbers of evaluations of the denoiser.

The folder has one for each model, with `tuning.parquet` and `test.parquet`, a row for each setting,
prompt, size and group. A run goes on with the settings that are missing; to measure a model again,
remove its folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from benchmarks.base import Benchmark, Progress, read_rows, write_rows
from benchmarks.fewstep.figures import draw_figure
from benchmarks.fewstep.measure import Job, measure
from benchmarks.fewstep.methods import ALONE, PLAIN, families
from benchmarks.fewstep.models import MODELS, Model, installed, require
from benchmarks.fewstep.page import page
from benchmarks.fewstep.results import TUNED, Results
from benchmarks.figure import require_matplotlib
from benchmarks.pareto.measure import finished, workers
from benchmarks.pareto.trials import Trial
from training.emoji.measure import PROMPTS, VALIDATION

TUNING = 0.4
"""The share of the work that is tuning, about."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Args:
        tuning: groups of each validation prompt.
        groups: size of a group → how many of each test prompt; measured in this order.
        pool: how many times as many images plain sampling draws, for equal numbers of evaluations.
        validation, test: prompts.
        methods: every so many methods are measured, with their last settings alone unless it is 1.
        models: of those that are installed, where none are named; None for all.
    """

    tuning: int = 2
    groups: dict[int, int] = field(default_factory=lambda: {8: 4, 4: 4, 32: 1})
    pool: int = 4
    validation: tuple[str, ...] = VALIDATION
    test: tuple[str, ...] = PROMPTS
    methods: int = 1
    models: int | None = None


LONG = Size(tuning=1, groups={8: 1, 4: 1}, pool=2, validation=VALIDATION[::2])
"""That of models with classifier-free guidance or many steps, of which each image costs several
times as much; `benchmarks.pareto` has groups of 32.
"""
SMOKE = Size(
    tuning=1,
    groups={8: 1, 4: 1},
    pool=2,
    validation=VALIDATION[:1],
    test=PROMPTS[:2],
    methods=8,
    models=1,
)


def run(folder: Path, smoke: bool, progress: Progress, models: Sequence[str] | None = None) -> None:
    """Measure what the folder lacks of these models; None for all that are installed."""
    require_matplotlib()
    names = list(models or installed()[: SMOKE.models if smoke else None])
    with workers() as pool:
        for number, name in enumerate(names):

            def of_all(share: float, number: int = number) -> None:
                progress((number + share) / len(names))

            model = MODELS[name]
            distilled = model.few and model.guidance_scale == 1
            size = SMOKE if smoke else Size() if distilled else LONG
            _Comparison(model, folder / name, size, pool, of_all).run()
            draw_figure(folder / name)


def only(models: Sequence[str]) -> Benchmark:
    """The benchmark of some of the models."""
    return replace(BENCHMARK, run=partial(run, models=require(models)))


class _Comparison:
    """The run of one model: its folder, its size, and how far it is."""

    def __init__(
        self, model: Model, folder: Path, size: Size, pool: ProcessPoolExecutor, progress: Progress
    ) -> None:
        self.model, self.folder, self.size = model, folder, size
        self.pool, self.progress = pool, progress

    def run(self) -> None:
        """Tune all, then test what was chosen."""
        self.folder.mkdir(exist_ok=True)
        size = self.size
        trials = self._trials()
        tuning = [
            Job(self.model.name, trial, size.validation, {TUNED: size.tuning})
            for own in trials.values()
            for trial in own
        ]
        self._measure("tuning", tuning, 0.0, TUNING)
        results = Results.read(self.folder)
        chosen = {name: Trial.from_key(results.precise(name).key) for name in trials}
        test = [
            Job(self.model.name, chosen[family], size.test, groups)
            for part in size.groups
            for family in trials
            if (groups := self._groups(family, part))
        ]
        self._measure("test", test, TUNING, 1.0)

    def _trials(self) -> dict[str, list[Trial]]:
        """The trials of each method; of a smoke run the last ones of some."""
        found = families(self.model)
        if self.size.methods == 1:
            return found
        return {name: found[name][-1:] for name in list(found)[:: self.size.methods]}

    def _groups(self, family: str, size: int) -> dict[int, int]:
        """How many groups of a size are drawn for the test. Where images are drawn once for all
        sizes, as many as they make of all sizes, and none at the sizes after the first.
        """
        groups = self.size.groups
        if family not in ALONE:
            return {size: groups[size]}
        images = max(size * count for size, count in groups.items())
        images *= self.size.pool if family == PLAIN else 1
        first = size == next(iter(groups))
        return {size: images // size for size in groups} if first else {}

    def _measure(self, stage: str, jobs: Sequence[Job], begin: float, end: float) -> None:
        """Measure the trials that the rows of a stage lack; rows of other trials are left out."""
        path = self.folder / f"{stage}.parquet"
        wanted = {(job.trial.key, size) for job in jobs for size in job.groups}
        earlier = read_rows(path)
        rows = [row for row in earlier if (row["key"], row["size"]) in wanted]
        if len(rows) < len(earlier):
            write_rows(path, rows)
        done = {(row["key"], row["size"]) for row in rows}
        missing = [job for job in jobs if (job.trial.key, min(job.groups)) not in done]
        for count, (_, measured) in enumerate(finished(self.pool, measure, missing), 1):
            rows += measured
            write_rows(path, rows)
            self.progress(begin + (end - begin) * count / len(missing))


BENCHMARK = Benchmark(name="fewstep", run=run, page=page, only=only)
