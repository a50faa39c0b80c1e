"""The copying benchmark: how many images of the emoji model are copies of its training images,
without and with a shield around them.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.base import Benchmark, Progress, read_rows, write_rows
from benchmarks.figure import require_matplotlib
from benchmarks.pareto.measure import finished, workers
from benchmarks.shield_emoji.draw import again, build, measure, protected_gaps
from benchmarks.shield_emoji.page import GAPS, ROWS, draw_distances, draw_pairs, page
from benchmarks.shield_emoji.settings import SMOKE, Setting, Size, jobs


def run(folder: Path, smoke: bool, progress: Progress) -> None:
    """Draw what is missing, a prompt beside a setting at a time, and the figures.

    The protected sets, and the final latents for `benchmarks/brute_force.py`, are left in
    `protected` and `latents` in the folder.
    """
    require_matplotlib()
    size = SMOKE if smoke else Size()
    rows = read_rows(folder / ROWS)
    done = {(r["guard"], r["radius"], r["nprobe"], r["protected"], r["prompt"]) for r in rows}
    missing = [job for job in jobs(size) if job.key not in done]
    for setting in size.settings():
        build(setting, folder)
    with workers() as pool:
        for i, (_, measured) in enumerate(finished(pool, partial(measure, folder=folder), missing)):
            rows += measured
            write_rows(folder / ROWS, rows)
            progress(0.9 * (i + 1) / len(missing))
        _measure_again(folder, rows, pool, lambda share: progress(0.9 + 0.1 * share))
    if not read_rows(folder / GAPS):
        write_rows(
            folder / GAPS,
            [{"picture": i, "distance": d} for i, d in enumerate(protected_gaps().tolist())],
        )
    draw_distances(rows, folder)
    draw_pairs(rows, folder)
    progress(1.0)


def _measure_again(
    folder: Path, rows: list[dict[str, Any]], pool: ProcessPoolExecutor, progress: Progress
) -> None:
    """Adds what the finished images measure to the rows that lack it."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["protected"] == "all" and row["again"] is None:
            setting = Setting(row["guard"], row["radius"], row["nprobe"], row["protected"])
            groups.setdefault((setting.name, row["prompt"]), []).append(row)
    for i, (where, found) in enumerate(
        finished(pool, partial(_again, folder=folder), list(groups))
    ):
        for row in groups[where]:
            row["again"] = found[row["seed"]]
        progress((i + 1) / len(groups))
    write_rows(folder / ROWS, rows)


def _again(where: tuple[str, str], folder: Path) -> list[float]:
    return again(*where, folder)


BENCHMARK = Benchmark(
    name="shield_emoji", run=run, page=lambda folder: page(folder, read_rows(folder / ROWS))
)
