"""Several workers: what sharing a memory is worth, what its parts cost, and how far that carries.

The folder has `coverage.parquet`, a row for each prompt and kind of workers, and `costs.json`, the
seconds of one operation each, from which the simulation of the page follows.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.base import Benchmark, Progress, read_rows, write_rows
from benchmarks.scaling.costs import measure_costs
from benchmarks.scaling.coverage import KINDS, Size, judged
from benchmarks.scaling.page import COSTS, COVERAGE, page
from training.emoji.measure import PROMPTS

SIZE = Size(prompts=PROMPTS, num=64, batch=8, workers=4)
SMOKE = Size(prompts=PROMPTS[:2], num=8, batch=2, workers=2)


def run(folder: Path, smoke: bool, progress: Progress) -> None:
    """Measure what the folder lacks."""
    size = SMOKE if smoke else SIZE
    rows = read_rows(folder / COVERAGE)
    for done, kind in enumerate(KINDS):
        if all(row["workers"] != kind for row in rows):
            rows += judged(kind, size)
            write_rows(folder / COVERAGE, rows)
        progress((done + 1) / (len(KINDS) + 1))
    if not (folder / COSTS).exists():
        measure_costs(folder / COSTS, repeats=2 if smoke else 20)
    progress(1.0)


BENCHMARK = Benchmark(name="scaling", run=run, page=page)
