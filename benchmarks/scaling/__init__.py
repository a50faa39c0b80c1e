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

SIZES = (Size(prompts=PROMPTS, num=64, batch=8, workers=4),)
SMOKE = (
    Size(prompts=PROMPTS[:2], num=8, batch=2, workers=2),
    Size(prompts=PROMPTS[:2], num=4, batch=1, workers=2),
)


def run(folder: Path, smoke: bool, progress: Progress) -> None:
    """Measure what the folder lacks."""
    rows = read_rows(folder / COVERAGE)
    measured = {(row["workers"], row["batch"]) for row in rows}
    wanted = [(kind, size) for size in (SMOKE if smoke else SIZES) for kind in KINDS]
    for done, (kind, size) in enumerate(wanted):
        if (kind, size.batch) not in measured:
            rows += judged(kind, size)
            write_rows(folder / COVERAGE, rows)
        progress((done + 1) / (len(wanted) + 1))
    if not (folder / COSTS).exists():
        measure_costs(folder / COSTS, repeats=2 if smoke else 20)
    progress(1.0)


BENCHMARK = Benchmark(name="scaling", run=run, page=page)
