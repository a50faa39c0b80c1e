"""What a step costs at the size of SDXL's latents, 65,536 numbers, of which the rest of the
benchmark says nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.base import read_rows, write_rows
from benchmarks.shield_search.latents import SHAPE
from benchmarks.shield_search.results import OURS, STEPS, WIDE
from benchmarks.shield_search.trajectories import Recorded
from unalike.shields.indexing import build
from unalike.shields.layered import Layered
from unalike.shields.trajectory import Trajectory
from unalike.shields.vectors import TENSOR, Mapped, Vectors

SCALE = 4
"""How often each value is repeated both ways: 16×16×16 become 16×64×64, as many as 4×128×128. All
distances grow by just this factor.
"""
SDXL_STEP = 3.315 / 30
"""Seconds of a step of SDXL, batch 1, bfloat16 with scaled dot product attention on an A100: 30
steps in 3.315 s, from the results of huggingface/diffusion-fast, which the documentation of
diffusers quotes.
"""
_SHARD = 2_500


def measure_wide(folder: Path, data: Path, vectors: Mapped, count: int, recorded: Recorded) -> None:
    """A row a dimension, trajectory and step: ours along the recorded trajectories, among `count`
    vectors as they are and enlarged.
    """
    if read_rows(folder / WIDE):
        return
    narrow = _written(data / f"narrow-{count}", vectors, count, 1)
    wide = _written(data / f"wide-{count}", vectors, count, SCALE)
    rows = []
    for scale, own in ((1, narrow), (SCALE, wide)):
        radius = scale * recorded.radius
        search = Layered(own, build(own, radius))
        for t, x0 in enumerate(recorded.x0.double().numpy()):
            run = Trajectory(search, radius)
            for step, x in enumerate(x0):
                x = enlarged(x, scale)
                before, start = dict(search.counts), time.perf_counter()
                run.within(x)
                seconds = time.perf_counter() - start
                counts = {
                    tier: search.counts[tier] - before.get(tier, 0)
                    for tier in ("first", "second", "full")
                }
                row = {
                    "dimension": own.dimension,
                    "vectors": count,
                    "trajectory": t,
                    "step": step,
                    "images": len(x),
                }
                rows.append(
                    {**row, "seconds": seconds, "resident_bytes": search.resident_bytes, **counts}
                )
    write_rows(folder / WIDE, rows)


def enlarged(rows: np.ndarray, scale: int) -> np.ndarray:
    """Latents (m, 4096) with each value repeated `scale` times both ways, flattened.

    Example:
        >>> enlarged(np.arange(4096.0)[None], 4).shape
        (1, 65536)
    """
    return (
        rows.reshape(-1, *SHAPE).repeat(scale, axis=2).repeat(scale, axis=3).reshape(len(rows), -1)
    )


def _written(folder: Path, vectors: Vectors, count: int, scale: int) -> Mapped:
    """The first vectors of the set, enlarged, in files of their own."""
    folder.mkdir(exist_ok=True)
    files = []
    for path, rows in _parts(folder, count):
        if not path.is_file():
            partial = path.with_suffix(".partial")
            save_file({TENSOR: torch.from_numpy(enlarged(vectors.rows(rows), scale))}, partial)
            partial.replace(path)
        files.append((path, len(rows)))
    return Mapped(files, vectors.dimension * scale**2, "float16")


def _parts(folder: Path, count: int) -> Iterator[tuple[Path, np.ndarray]]:
    for first in range(0, count, _SHARD):
        yield (
            folder / f"vectors-{first:06d}.safetensors",
            np.arange(first, min(count, first + _SHARD)),
        )


def projection(folder: Path) -> str:
    """A paragraph: the share of SDXL's published time of a step that the search takes, from what
    was measured.
    """
    rows, all_steps = (
        read_rows(folder / WIDE),
        [row for row in read_rows(folder / STEPS) if row["search"] == OURS],
    )
    if not rows or not all_steps:
        return ""
    narrow, wide = min(row["dimension"] for row in rows), max(row["dimension"] for row in rows)
    seconds = {
        d: _mean(row["seconds"] for row in rows if row["dimension"] == d) for d in (narrow, wide)
    }
    largest = max(row["vectors"] for row in all_steps)
    measured = _mean(row["seconds"] for row in all_steps if row["vectors"] == largest)
    images = all_steps[0]["images"]
    projected = (measured + seconds[wide] - seconds[narrow]) / images
    return (
        f"Projected for SDXL. Its latents have {wide:,} numbers. A step of a batch of {images} "
        f"takes {1e3 * seconds[narrow]:.1f} ms among {rows[0]['vectors']:,} of these vectors as "
        f"they are, and {1e3 * seconds[wide]:.1f} ms where each value is repeated {SCALE} times "
        f"both ways, for {wide:,} numbers of {narrow:,} and distances {SCALE} times as large. "
        f"What that adds to the {1e3 * measured:.1f} ms among {largest:,} vectors gives "
        f"{1e3 * projected:.1f} ms an image and step on one core of a CPU, "
        f"{projected / SDXL_STEP:.1%} of the {1e3 * SDXL_STEP:.0f} ms that a step of SDXL takes "
        "on an A100 (bfloat16, one image; [published with "
        "diffusion-fast](https://huggingface.co/docs/diffusers/tutorials/fast_diffusion))."
    )


def _mean(values: Iterator[Any]) -> float:
    found = list(values)
    return sum(found) / len(found)
