"""The benchmark of the search among protected vectors: ours and Faiss along the predictions of
guided generations.

`pictures` and `latents` make the set, `trajectories` records what is searched for, `brute` says
what is there, `rivals` are the searches, and `measure` says what is measured.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.base import Benchmark, Progress
from benchmarks.figure import require_matplotlib
from benchmarks.shield_search.page import page


def run(folder: Path, smoke: bool, progress: Progress) -> None:
    """Measure what the folder lacks, and draw the figures."""
    from benchmarks.shield_search import measure
    from benchmarks.shield_search.figures import draw_figures

    require_matplotlib()
    measure.run(folder, measure.SMOKE if smoke else measure.FULL, progress)
    draw_figures(folder)


BENCHMARK = Benchmark(name="shield_search", run=run, page=page)
