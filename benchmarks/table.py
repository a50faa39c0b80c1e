"""The table of benchmarks, by name, and how one is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from unalike.errors import OptionError, close_to

if TYPE_CHECKING:
    from benchmarks.base import (
        Benchmark,
        Progress,
    )  # with torch, for which a list of the benchmarks should not wait


@dataclass(frozen=True)
class Row:
    """A benchmark as it stands in lists.

    Args:
        home: its module.
        question: what it answers, in one line.
    """

    home: str
    question: str


BENCHMARKS: dict[str, Row] = {
    "toy": Row(
        "benchmarks.toy",
        (
            "With an exact model, which modes of its prompts does each method find, and what does "
            "that cost in precision and likelihood?"
        ),
    ),
    "pareto": Row(
        "benchmarks.pareto",
        (
            "Which method finds the most right images at which precision, on the shipped models, "
            "all tuned alike?"
        ),
    ),
    "fewstep": Row(
        "benchmarks.fewstep",
        (
            "With few steps and small groups of images, which method finds more right images at "
            "the same precision, and what does it cost?"
        ),
    ),
    "sparsity": Row(
        "benchmarks.sparsity",
        (
            "How large is each method's correction beside the denoiser's own step, and at how many "
            "steps is an image corrected at all?"
        ),
    ),
    "cost": Row(
        "benchmarks.cost",
        "What does one guidance step cost, and how does that grow with the memory?",
    ),
    "awareness": Row(
        "benchmarks.awareness",
        (
            "What does guidance do to a prompt when the memory is full of unrelated ones, with and "
            "without the kernel on prompts?"
        ),
    ),
    "copies": Row(
        "benchmarks.copies",
        (
            "How many finished images show a protected one, without a shield, with the published "
            "one, and with one of finished images?"
        ),
    ),
    "shield_emoji": Row(
        "benchmarks.shield_emoji",
        (
            "How many images are copies of training images, without and with a shield, and what "
            "does keeping them out cost?"
        ),
    ),
    "shield_search": Row(
        "benchmarks.shield_search",
        (
            "Does the search find every protected vector that is near, how fast and in how much "
            "memory, beside the published one?"
        ),
    ),
    "throughput": Row(
        "benchmarks.throughput",
        "How fast is `unalike run` beside a loop that draws and saves the same images?",
    ),
    "regions": Row("benchmarks.regions", "Does guidance stay where it was asked for?"),
    "scaling": Row(
        "benchmarks.scaling",
        "Does one memory for several workers find what a single worker finds, and how far does "
        "that carry?",
    ),
    "ambient": Row(
        "benchmarks.ambient",
        "What does comparing images in place of latents bring, and what does it cost?",
    ),
}
"""Name → module, imported when it is asked for, and question. A new benchmark is one file and one
entry here.
"""


def available() -> list[str]:
    """The names of the benchmarks whose modules are there, in the order of the table."""
    return [name for name, row in BENCHMARKS.items() if find_spec(row.home) is not None]


def load(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        OptionError: for an unknown name, suggesting the closest.
    """
    names = available()
    if name not in names:
        close = close_to(name, names)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise OptionError(f"benchmark is {name!r}; allowed: {', '.join(map(repr, names))}{hint}")
    return import_module(BENCHMARKS[name].home).BENCHMARK


def measure(
    name: str,
    folder: Path,
    *,
    smoke: bool,
    progress: Progress,
    models: Sequence[str] | None = None,
) -> str:
    """Run a benchmark into a folder, or go on with the run in it, and return its page.

    Args:
        name: the benchmark's.
        folder: see `claim`.
        smoke: whether the run is of the small size.
        progress: told how far it is.
        models: of a benchmark that measures several, those to measure; None for all.

    Raises:
        OptionError: for an unknown name or model, and for models of a benchmark that has no choice.
        StoreError: for a folder that holds something else (see `claim`).
    """
    from benchmarks.base import claim, finish

    benchmark = load(name)
    if models is not None:
        if benchmark.only is None:
            raise OptionError(f"benchmark {name!r} has no choice of models; leave out --models")
        benchmark = benchmark.only(models)
    claim(folder, name, smoke=smoke)
    benchmark.run(folder, smoke, progress)
    finish(folder)
    return benchmark.page(folder)
