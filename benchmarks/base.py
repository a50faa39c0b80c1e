"""What a benchmark is, the folder that it measures into, and what all of them write: rows, the
machine, tables, intervals.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

import unalike
from unalike.errors import StoreError

ENVIRONMENT = "environment.json"
S = TypeVar("S", bound=Any)
Progress = Callable[[float], None]
"""Told the share of the work that is done, from 0 to 1."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Args:
        name: what the command line and the folder of its results call it.
        run: `run(folder, smoke, progress)` measures what the folder lacks, at a size of seconds
            with `smoke`, and draws the figures anew.
        page: `page(folder)` is its section of the documentation in Markdown, from what is in the
            folder alone.
        only: `only(models)` is the benchmark of these models alone, for one that measures each of
            several models by itself; raises OptionError for an unknown one.
    """

    name: str
    run: Callable[[Path, bool, Progress], None]
    page: Callable[[Path], str]
    only: Callable[[Sequence[str]], Benchmark] | None = None


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, threads, versions. No names of hosts or users.

    Example:
        >>> sorted(machine())
        ['cores', 'processor', 'python', 'system', 'threads', 'torch', 'unalike']
    """
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "unalike": unalike.__version__,
    }


def claim(folder: Path, name: str, *, smoke: bool) -> None:
    """Make sure that this benchmark may measure into the folder, and say in `environment.json` that
    it does.

    Args:
        folder: made with its parents if it is not there. One with an earlier run of the same
            benchmark and size is gone on with.
        name: the benchmark's.
        smoke: whether this run is of the small size.

    Raises:
        StoreError: for a folder that has files of something else, holds another benchmark or a run
            of the other size, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        filled = any(folder.iterdir())
    except OSError as error:
        raise StoreError(
            f"folder {str(folder)!r} cannot be written: {error.strerror or error}; choose another "
            "with --out"
        ) from error
    if not filled:
        _write_environment(
            folder, {"benchmark": name, "smoke": smoke, "finished": False, **machine()}
        )
        return
    earlier = environment(folder)
    if earlier["benchmark"] != name:
        raise StoreError(
            f"folder {str(folder)!r} holds the benchmark {earlier['benchmark']!r}, not {name!r}; "
            "choose another with --out"
        )
    if earlier["smoke"] != smoke:
        size, call = ("smoke", "with --smoke") if earlier["smoke"] else ("full", "without --smoke")
        raise StoreError(
            f"folder {str(folder)!r} holds a run of {size} size; go on with it {call}, or choose "
            "another with --out"
        )


def finish(folder: Path) -> None:
    """Say in `environment.json` that the run in the folder is complete."""
    _write_environment(folder, {**environment(folder), "finished": True})


def environment(folder: Path) -> dict[str, Any]:
    """What `environment.json` says: the benchmark, `smoke`, `finished`, and the machine that the
    run began on (see `machine`).

    Raises:
        StoreError: where there is none, or something else wrote it.
    """
    try:
        found = json.loads((folder / ENVIRONMENT).read_text("utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or not {"benchmark", "smoke", "finished"} <= found.keys():
        raise StoreError(
            f"folder {str(folder)!r} has files that no benchmark wrote; choose another with --out"
        )
    return found


def _write_environment(folder: Path, contents: Mapping[str, Any]) -> None:
    partial = folder / f"{ENVIRONMENT}.partial"
    partial.write_text(json.dumps(contents, indent=1) + "\n", "utf-8")
    partial.replace(folder / ENVIRONMENT)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the same keys as Parquet, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    partial = path.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), partial, compression="zstd")
    partial.replace(path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows that `write_rows` wrote; none where there is no such file, as before a run.

    Raises:
        StoreError: for a file that is no Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        return []
    try:
        return pq.ParquetFile(path).read().to_pylist()
    except pa.ArrowInvalid as error:
        raise StoreError(
            f"{str(path)!r} is damaged ({error}); remove it to measure again"
        ) from error


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table.

    Example:
        >>> print(table(["method", "time"], [["SPELL", "1.2 s"]]))
        | method | time |
        |---|---|
        | SPELL | 1.2 s |
    """
    lines = ["| " + " | ".join(map(str, cells)) + " |" for cells in (columns, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(columns), *lines[1:]])


def brute_force_table(path: Path, digits: int) -> str:
    """What `benchmarks/brute_force.py` wrote to a file, with so many digits after the point; empty
    where it was not run.
    """
    if not path.exists():
        return ""
    found = json.loads(path.read_text("utf-8"))
    return table(
        ["setting", "images", "inside", "smallest distance", "radius"],
        [
            [name, r["images"], r["inside"], f"{r['nearest']:.{digits}f}", f"{r['radius']:g}"]
            for name, r in found.items()
        ],
    )


@dataclass(frozen=True)
class PromptJob(Generic[S]):
    """A prompt beside one setting: what is drawn at a time, and how many images."""

    setting: S
    prompt: str
    images: int

    @property
    def key(self) -> tuple[Any, ...]:
        """The values of the setting and the prompt, which tell it from the others."""
        return (*asdict(self.setting).values(), self.prompt)


def interval(
    units: Tensor,
    statistic: Callable[[Tensor], Tensor] = lambda drawn: drawn.mean(dim=1),
    draws: int = 2000,
) -> tuple[float, float]:
    """The 95% interval of a statistic by the percentile bootstrap: units (prompts, seeds) are drawn
    anew with replacement.

    Args:
        units: (n, …), what was measured of each unit.
        statistic: from drawn units (draws, n, …) to the statistic of each draw (draws,); the mean
            by default.
        draws: how many; they are the same at each call.

    Source: Efron 1979, "Bootstrap Methods: Another Look at the Jackknife".

    Example:
        >>> low, high = interval(torch.arange(100.0))
        >>> 43 < low < 46 and 53 < high < 56  # 49.5 ± 1.96 · 28.9 / 10
        True
    """
    chosen = torch.randint(
        len(units), (draws, len(units)), generator=torch.Generator().manual_seed(0)
    )
    low, high = (
        statistic(units[chosen]).quantile(torch.tensor([0.025, 0.975], dtype=units.dtype)).tolist()
    )
    return low, high
