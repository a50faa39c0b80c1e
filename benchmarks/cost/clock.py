"""Time and peak memory of a step, on a processor or a GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.cost.rivals import Step


@dataclass(frozen=True)
class Taken:
    """What one way to a step took.

    Attributes:
        first_seconds: of the first step, which prepares what the later ones of a run share.
        seconds: median of the later ones.
        rounds: how many those were.
        extra_bytes: how far one step raised the peak of memory; None where the system cannot tell.
    """

    first_seconds: float
    seconds: float
    rounds: int
    extra_bytes: int | None


def interleaved(
    steps: Mapping[str, Step], device: str, *, rounds: int, budget: float
) -> dict[str, Taken]:
    """Up to `rounds` repetitions in turns, so that a busy moment hits all alike; a step that has
    used `budget` seconds sits out.
    """
    first = {name: seconds(step, device) for name, step in steps.items()}
    second = {name: _with_peak(step, device) for name, step in steps.items()}
    times = {name: [taken] for name, (taken, _) in second.items()}
    for _ in range(rounds - 1):
        for name, step in steps.items():
            if sum(times[name]) < budget:
                times[name].append(seconds(step, device))
    return {
        name: Taken(first[name], statistics.median(t), len(t), second[name][1])
        for name, t in times.items()
    }


def seconds(step: Step, device: str) -> float:
    """How long the step takes, its work on a GPU included."""
    _wait(device)
    start = time.perf_counter()
    step()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _with_peak(step: Step, device: str) -> tuple[float, int | None]:
    """The time of a step, and how far it raised the peak of memory: on Linux of the process, on a
    GPU of what torch holds there.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        return seconds(step, device), torch.cuda.max_memory_allocated() - before
    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to the present size
    except OSError:
        return seconds(step, device), None
    before = _status("VmRSS")
    return seconds(step, device), max(0, _status("VmHWM") - before)


def _status(key: str) -> int:
    line = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(f"{key}:")
    )
    return int(line.split()[1]) * 1024


def free_bytes(device: str) -> int:
    """How much memory a measurement may use on the device: 20 GB, or nine tenths of what is free
    where that is less.
    """
    if device == "cuda":
        return min(20 * 10**9, int(0.9 * torch.cuda.mem_get_info()[0]))
    info = Path("/proc/meminfo")
    available = (
        [
            int(line.split()[1]) * 1024
            for line in info.read_text().splitlines()
            if line.startswith("MemAvailable")
        ]
        if info.exists()
        else []
    )
    return min([20 * 10**9, *(int(0.9 * a) for a in available)])
