"""Variety against fidelity on the shipped models: every method over its own sweep, chosen on some
prompts and reported on others.

In the folder: `tuning.parquet` and `test.parquet`, a row a setting and unit; `pooled.parquet`, a
row a setting; `search.parquet`, how many samples it takes to find nine tenths of the right images
of a prompt; `times.parquet`, seconds an image. A run goes on with the settings that are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.base import Benchmark, Progress, read_rows, write_rows
from benchmarks.figure import require_matplotlib
from benchmarks.fronts import hypervolume
from benchmarks.pareto.figures import draw_figures
from benchmarks.pareto.measure import Job, Search, clock, finished, measure, search, workers
from benchmarks.pareto.page import page
from benchmarks.pareto.results import points_of
from benchmarks.pareto.tasks import TASKS, Task
from benchmarks.pareto.trials import AUTO, INDEPENDENT, Trial, families

WITH_MEMORY = ("SPARKE on x0", "SPELL", AUTO)
"""Methods that are also measured in batches that know the earlier ones, at the setting that was
best on the validation prompts.
"""


ROUNDS = 2
"""Of timing; the quicker one counts."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Args:
        samples: of each test unit.
        limit: of samples in which nine tenths of the right images are looked for.
        chosen: settings of each method that are tested.
        thin: a number for a smoke run: only that many trials, units and samples of anything.
    """

    samples: int = 32
    limit: int = 96
    chosen: int = 2
    thin: int | None = None


SMOKE = Size(samples=4, limit=16, chosen=1, thin=2)


def run(folder: Path, smoke: bool, progress: Progress) -> None:
    """Measure what the folder lacks."""
    require_matplotlib()
    size = SMOKE if smoke else Size()
    with workers() as pool:
        _Comparison(folder, size, pool, progress).run()
    draw_figures(folder)


class _Comparison:
    """One run: its folder, its size, and how far it is."""

    def __init__(self, folder: Path, size: Size, pool: Any, progress: Progress) -> None:
        self.folder, self.size, self.pool, self.progress = folder, size, pool, progress
        self.tasks = {name: _thinned(task, size) for name, task in TASKS.items()}

    def run(self) -> None:
        """Tune all, test what was chosen, then search and time; the shares of the work are about
        those on two cores.
        """
        sweeps = {name: self._sweep(name) for name in self.tasks}
        self._measure(
            "tuning",
            {
                name: [t for trials in sweep.values() for t in trials]
                for name, sweep in sweeps.items()
            },
            0.0,
            0.3,
        )
        tested = {name: self._tested(name) for name in self.tasks}
        self._measure("test", tested, 0.3, 0.9)
        self._search(
            {name: self._searched(name, trials) for name, trials in tested.items()}, 0.9, 0.96
        )
        self._clock(tested, 0.96, 1.0)

    def _sweep(self, task: str) -> dict[str, list[Trial]]:
        """The trials of each method; of a smoke run the last ones of some, among them the unguided
        weight.
        """
        return {
            name: trials[-(self.size.thin or 0) :]
            for name, trials in list(families(task).items())[:: 4 if self.size.thin else 1]
        }

    def _measure(
        self, stage: str, trials: dict[str, list[Trial]], begin: float, end: float
    ) -> None:
        rows, pooled = (
            read_rows(self.folder / f"{stage}.parquet"),
            read_rows(self.folder / "pooled.parquet"),
        )
        done = {(row["task"], row["key"]) for row in pooled if row["stage"] == stage}
        jobs = [
            Job(
                name,
                trial,
                *(
                    (task.validation, task.validation_samples)
                    if stage == "tuning"
                    else (task.test, self.size.samples)
                ),
            )
            for name, task in self.tasks.items()
            for trial in trials[name]
            if (name, trial.key) not in done
        ]
        for count, (job, result) in enumerate(finished(self.pool, measure, jobs), 1):
            about = {
                "task": job.task,
                "key": job.trial.key,
                "family": job.trial.family,
                "setting": job.trial.setting,
            }
            rows += [about | row for row in result.units]
            pooled.append({"stage": stage, **about, **result.pooled})
            write_rows(self.folder / f"{stage}.parquet", rows)
            write_rows(self.folder / "pooled.parquet", pooled)
            self.progress(begin + (end - begin) * count / len(jobs))

    def _tested(self, task: str) -> list[Trial]:
        """Independent sampling at the unguided weight, what was chosen of each method, and some of
        that with memory.
        """
        rows = [row for row in read_rows(self.folder / "tuning.parquet") if row["task"] == task]
        chosen = {
            family: choose([row for row in rows if row["family"] == family], self.size.chosen)
            for family in self._sweep(task)
        }
        trials = [
            Trial(INDEPENDENT, TASKS[task].unguided),
            *(trials[0] for trials in chosen.values()),
        ]
        trials += [chosen[family][0].with_memory() for family in WITH_MEMORY if family in chosen]
        trials += [trial for trials in chosen.values() for trial in trials[1:]]
        return list({trial.key: trial for trial in trials}.values())

    def _searched(self, task: str, tested: Sequence[Trial]) -> list[Search]:
        """Independent sampling at two weights, and the settings with memory."""
        wanted = [
            tested[0],
            Trial(INDEPENDENT, TASKS[task].low),
            *(trial for trial in tested if trial.memory),
        ]
        return [
            Search(task, trial, prompt, self.size.limit)
            for trial in wanted
            for prompt in self.tasks[task].small
        ]

    def _search(self, jobs: dict[str, list[Search]], begin: float, end: float) -> None:
        path = self.folder / "search.parquet"
        rows = read_rows(path)
        done = {(row["task"], row["key"], row["prompt"]) for row in rows}
        missing = [
            job
            for some in jobs.values()
            for job in some
            if (job.task, job.trial.key, job.prompt) not in done
        ]
        for count, (job, result) in enumerate(finished(self.pool, search, missing), 1):
            rows.append(
                {
                    "task": job.task,
                    "key": job.trial.key,
                    "family": job.trial.family,
                    "setting": job.trial.setting,
                    **result,
                }
            )
            write_rows(path, rows)
            self.progress(begin + (end - begin) * count / len(missing))

    def _clock(self, trials: dict[str, list[Trial]], begin: float, end: float) -> None:
        """Time all settings one after another, and once more, so that a busy moment hits all
        alike.
        """
        path = self.folder / "times.parquet"
        if read_rows(path):
            return
        jobs = [
            Job(name, trial, task.validation[:1], self.size.samples)
            for _ in range(ROUNDS)
            for name, task in self.tasks.items()
            for trial in trials[name]
        ]
        found: dict[tuple[str, str], list[float]] = {}
        for count, (job, seconds) in enumerate(finished(self.pool, clock, jobs), 1):
            found.setdefault((job.task, job.trial.key), []).append(seconds)
            self.progress(begin + (end - begin) * count / len(jobs))
        write_rows(
            path,
            [
                {"task": task, "key": key, "seconds": min(seconds)}
                for (task, key), seconds in found.items()
            ],
        )


def choose(rows: Sequence[dict[str, Any]], most: int) -> list[Trial]:
    """The settings, `most` at most, that together reach the largest hypervolume of share of the
    possible and precision, the best first.

    They are taken one by one, each adding the most; what adds nothing is left out.

    Args:
        rows: of the trials of one method, a row a unit.
    """
    keys = list(dict.fromkeys(row["key"] for row in rows))
    points = torch.stack(
        [points_of([row for row in rows if row["key"] == key]).mean(dim=0) for key in keys]
    )
    chosen: list[int] = []
    while len(chosen) < most:
        reached = [float(hypervolume(points[[*chosen, i]])) for i in range(len(keys))]
        best = max(range(len(keys)), key=reached.__getitem__)
        if chosen and reached[best] <= float(hypervolume(points[chosen])) + 1e-9:
            break
        chosen.append(best)
    return [Trial.from_key(keys[i]) for i in chosen]


def _thinned(task: Task, size: Size) -> Task:
    """The task at the size of a smoke run, or as it is."""
    if size.thin is None:
        return task
    return replace(
        task,
        validation=task.validation[:1],
        test=task.test[: size.thin],
        validation_samples=size.samples,
        small=task.small[:1],
    )


BENCHMARK = Benchmark(name="pareto", run=run, page=page)
