"""The cost benchmark: time and peak memory of one guidance step against the number of stored
samples.

`problem` makes what is measured on, `rivals` are the ways to a step, `clock` measures them,
`measure` says at which sizes.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.base import Benchmark, Progress
from benchmarks.cost import measure
from benchmarks.cost.page import page
from benchmarks.figure import require_matplotlib


def run(folder: Path, smoke: bool, progress: Progress) -> None:
    """Measure what the folder lacks, on the processor and on a GPU where there is one, and draw the
    figures.
    """
    from benchmarks.cost.figures import draw_figures

    require_matplotlib()
    measure.run(folder, measure.SMOKE if smoke else measure.Size(), progress)
    draw_figures(folder)


BENCHMARK = Benchmark(name="cost", run=run, page=page)
