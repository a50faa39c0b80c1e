"""The copy benchmark: what people would call a copy, without a shield, with the published one, and
with one of finished images.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.base import Benchmark, Progress, read_rows, write_rows
from benchmarks.copies.draw import build, measure
from benchmarks.copies.edits import measure_edits
from benchmarks.copies.page import ROWS, add_variety, draw_pairs, page
from benchmarks.copies.settings import SMOKE, Size
from benchmarks.figure import require_matplotlib
from benchmarks.pareto.measure import finished, workers


def run(folder: Path, smoke: bool, progress: Progress) -> None:
    """Draw what is missing, a prompt beside a setting at a time, and the figure.

    Images, their descriptors for `benchmarks/brute_force.py`, and the protected sets are left in
    `data`, `latents` and `protected` in the folder.
    """
    require_matplotlib()
    size = SMOKE if smoke else Size()
    rows = read_rows(folder / ROWS)
    done = {(r["model"], r["protected"], r["guard"], r["prompt"]) for r in rows}
    missing = [job for job in size.jobs() if job.key not in done]
    for name in size.sets:
        build(name, folder)
    with workers() as pool:
        for i, (_, found) in enumerate(finished(pool, partial(measure, folder=folder), missing)):
            rows += found
            write_rows(folder / ROWS, rows)
            progress((i + 1) / len(missing))
    add_variety(rows, folder)
    measure_edits(rows, folder)
    draw_pairs(rows, folder)
    progress(1.0)


BENCHMARK = Benchmark(
    name="copies", run=run, page=lambda folder: page(folder, read_rows(folder / ROWS))
)
