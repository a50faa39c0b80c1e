"""What the benchmark of several workers shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.base import environment, interval, read_rows, table
from benchmarks.scaling.coverage import ONE, SEPARATE, SHARED, UNGUIDED
from benchmarks.scaling.simulation import BANDWIDTH, LATENCY, LOADS, SPREAD, WORKERS, simulate

COVERAGE, COSTS = "coverage.parquet", "costs.json"
_NAMES = {
    UNGUIDED: "no guidance",
    ONE: "1 worker",
    SHARED: "4 workers, one memory",
    SEPARATE: "4 workers, a memory each",
}


def page(folder: Path) -> str:
    """The section of the documentation."""
    return "\n\n".join(
        [
            "## Several workers",
            "Does one memory for all workers find what a single worker finds? `emoji-turbo` draws "
            "64 images of each of forty prompts in 4 steps with the default method, 8 at a time, "
            "and of each of twenty one at a time. Coverage is the number of different right images "
            "beside the number that can be found; 95% intervals are over prompts.",
            coverage_table(folder),
            "Workers that share a memory miss only what is drawn at the same moment. "
            "[Several GPUs and machines](scaling.md) has the simulation of up to 256 workers.",
        ]
    )


def coverage_table(folder: Path) -> str:
    """Coverage of each kind of workers, and its ratio to that of one worker."""
    rows = read_rows(folder / COVERAGE)
    lines = []
    for batch in dict.fromkeys(row["batch"] for row in rows):
        found = {kind: _of(rows, kind, batch) for kind in _NAMES}
        for kind, (coverage, precision) in found.items():
            low, high = interval(coverage)
            lines.append(
                [
                    batch if kind == next(iter(_NAMES)) else "",
                    _NAMES[kind],
                    f"{coverage.mean():.3f} ({low:.3f} to {high:.3f})",
                    "" if kind == ONE else _ratio(coverage, found[ONE][0]),
                    f"{precision.mean():.3f}",
                ]
            )
    columns = ["images at a time", "workers", "coverage", "of that of 1 worker", "precision"]
    return table(columns, lines)


def _ratio(coverage: Tensor, one: Tensor) -> str:
    """The ratio of two means over the same prompts, with its interval."""
    pairs = torch.stack([coverage, one], dim=1)
    least, most = interval(pairs, lambda drawn: drawn[..., 0].mean(1) / drawn[..., 1].mean(1))
    return f"{coverage.mean() / one.mean():.3f} ({least:.3f} to {most:.3f})"


def _of(rows: Sequence[dict[str, Any]], kind: str, batch: int) -> tuple[Tensor, Tensor]:
    """Coverage and precision of each prompt."""
    own = [row for row in rows if (row["workers"], row["batch"]) == (kind, batch)]
    own.sort(key=lambda row: row["prompt"])
    coverage = torch.tensor([row["distinct"] / row["possible"] for row in own])
    return coverage, torch.tensor([row["right"] / row["samples"] for row in own])


def cost_table(folder: Path) -> str:
    """What was measured of single operations, in milliseconds."""
    costs = json.loads((folder / COSTS).read_text("utf-8"))
    lines = []
    for numbers, found in costs["memory"].items():
        lines += [
            [f"add a batch of 8 to the memory, {numbers} numbers each", _ms(found["commit"])],
            [f"begin a batch without news, {numbers} numbers", _ms(found["begin"])],
            [f"… and for each new sample, {numbers} numbers", _ms(found["row"])],
        ]
    for size, found in costs["files"].items():
        lines.append(
            [f"write a batch of 8 images of {size} and its ledger rows", _ms(found["commit"])]
        )
    lines.append(["let Ray hand out a batch and bring back its result", _ms(costs["ray"]["batch"])])
    return table(["operation", "ms"], lines)


def simulation_table(folder: Path) -> str:
    """Throughput and staleness against the number of workers."""
    costs = json.loads((folder / COSTS).read_text("utf-8"))
    lines = []
    for load in LOADS:
        for workers in WORKERS:
            found = simulate(load, workers, costs)
            busiest = max(found.busy, key=lambda name: found.busy[name])
            lines.append(
                [
                    load.name if workers == WORKERS[0] else "",
                    workers,
                    f"{found.throughput:.0%}",
                    f"{found.mean:.1f} / {found.largest}",
                    f"{_SERVERS[busiest]} {found.busy[busiest]:.0%}",
                ]
            )
    columns = ["what is drawn", "workers", "throughput", "staleness, mean / largest", "busiest"]
    return table(columns, lines)


_SERVERS = {"disk": "memory's file", "network": "network", "run": "process of the run"}


def scaling_tables(folder: Path) -> dict[str, str]:
    """The generated parts of `docs/scaling.md`, by the names of their places."""
    return {
        "coverage": coverage_table(folder),
        "costs": cost_table(folder),
        "assumptions": assumptions(folder),
        "simulation": simulation_table(folder),
    }


def assumptions(folder: Path) -> str:
    """A sentence on what the simulation assumes, and where its costs were measured."""
    found = environment(folder)
    return (
        f"Costs were measured on {found['processor']} with {found['cores']} cores. Assumed are the "
        "seconds of a batch, which differ by "
        f"{SPREAD:.0%} from one to the next, {BANDWIDTH * 8 / 1e9:g} Gbit/s at the machine of the "
        f"run, {LATENCY * 1000:g} ms for a call of Ray, and no failures."
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f}"
