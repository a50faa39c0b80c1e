"""The table of benchmarks, by name, and how one is run."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from unalike.bench.base import Benchmark, Progress, claim, finish
from unalike.errors import OptionError

BENCHMARKS: dict[str, str] = {
    "toy": "unalike.bench.toy",
    "pareto": "unalike.bench.pareto",
    "sparsity": "unalike.bench.sparsity",
    "cost": "unalike.bench.cost",
    "awareness": "unalike.bench.awareness",
    "shield_emoji": "unalike.bench.shield_emoji",
    "shield_search": "unalike.bench.shield_search",
    "regions": "unalike.bench.regions",
    "ambient": "unalike.bench.ambient",
}
"""Name → module, imported when it is asked for. A new benchmark is one file and one entry here."""


def available() -> list[str]:
    """The names of the benchmarks whose modules are there, in the order of the table."""
    return [name for name, module in BENCHMARKS.items() if find_spec(module) is not None]


def load(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        OptionError: for an unknown name, suggesting the closest.
    """
    names = available()
    if name not in names:
        close = get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise OptionError(f"benchmark is {name!r}; allowed: {', '.join(map(repr, names))}{hint}")
    return import_module(BENCHMARKS[name]).BENCHMARK


def measure(name: str, folder: Path, *, smoke: bool, progress: Progress) -> str:
    """Run a benchmark into a folder, or go on with the run in it, and return its page.

    Raises:
        OptionError: for an unknown name.
        StoreError: for a folder that holds something else (see `claim`).
    """
    benchmark = load(name)
    claim(folder, name, smoke=smoke)
    benchmark.run(folder, smoke, progress)
    finish(folder)
    return benchmark.page(folder)
