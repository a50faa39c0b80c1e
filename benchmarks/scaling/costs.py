"""Measure what one operation of a run costs: of the memory's actor, and of the process of the run.

Everything is the code of a run itself, on the disk that the folder is on, without Ray in between.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch

from unalike.attach.run.report import ImageReport
from unalike.memory import Memory
from unalike.memory.samples import Batch
from unalike.runs.folder import RunFolder, image_path
from unalike.runs.ledger import Entry, Ledger
from unalike.runs.output import Files
from unalike.runs.plan import planned_images
from unalike.runs.ray.cluster import connected
from unalike.runs.ray.shard import MemoryShard
from unalike.runs.ray.sharding import Sharding
from unalike.runs.run_settings import LOCAL
from unalike.runs.samples import Planned, Sample, StoredImage

T = TypeVar("T")
BATCH = 8
NUMBERS = {"16,384": 16_384, "65,536": 65_536}
"""Numbers of a latent: of 512×512 images with Stable Diffusion, of 1024×1024 with SDXL."""
BYTES = {"0.5 MB": 500_000, "1.6 MB": 1_600_000}
"""Of an image file: PNG of 512×512 and of 1024×1024 pixels."""


def measure_costs(path: Path, repeats: int) -> None:
    """Write the medians of some repeats, in seconds, as JSON."""
    found: dict[str, Any] = {"batch": BATCH, "repeats": repeats}
    found["memory"] = {name: _memory_costs(path.parent, n, repeats) for name, n in NUMBERS.items()}
    found["files"] = {name: _file_costs(path.parent, n, repeats) for name, n in BYTES.items()}
    found["ray"] = {"batch": _ray_cost(5 * repeats)}
    path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def _memory_costs(parent: Path, numbers: int, repeats: int) -> dict[str, float]:
    """Seconds of a commit of a batch, of a begin without news, and of a begin for each new row."""
    with tempfile.TemporaryDirectory(dir=parent) as name:
        folder = Path(name)
        Memory.open(folder / "bank", create=True).close()
        shard = MemoryShard(folder / "bank", folder, Sharding(), 0, 4 * repeats)
        commits, begins, news = [], [], []
        position = None
        for number in range(repeats):
            rows = _rows(numbers, number)
            items = [label.item for label in rows.labels]
            seconds, begun = _timed(shard.begin(number, items, position))
            assert begun.changes is not None
            assert begun.token is not None
            if position is not None:  # the batch before is new
                news.append(seconds)
            position = begun.changes.position
            seconds, _ = _timed(shard.commit(number, begun.token, position, rows))
            commits.append(seconds)
            newest = (
                asyncio.run(shard.begin(-1 - number, [], None)).changes or begun.changes
            ).position
            seconds, _ = _timed(shard.begin(-1 - number, ["none"], newest))
            begins.append(seconds)
            asyncio.run(shard.give_up(-1 - number, []))
        return {
            "commit": median(commits),
            "begin": median(begins),
            "row": max(0.0, median(news) - median(begins)) / BATCH,
        }


def _ray_cost(batches: int) -> float:
    """Seconds of Ray for a batch, in the process of the run and in two workers that do nothing."""
    with connected(LOCAL) as ray:
        rows = [{"number": n, "batch": planned_images(["heart"], BATCH, n)} for n in range(batches)]
        drawn = ray.data.from_items(rows, override_num_blocks=batches).map(
            _Idle, compute=ray.data.ActorPoolStrategy(size=2), num_cpus=0.5
        )
        found = iter(drawn.iter_batches(batch_size=1, prefetch_batches=0, batch_format="numpy"))
        next(found)
        began = time.perf_counter()
        return sum(1 for _ in found) and (time.perf_counter() - began) / (batches - 1)


class _Idle:
    """Draws nothing."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"number": row["number"]}


class _Labelled(Memory):
    """Keeps the samples that `add` would store, with their labels."""

    def commit(self, batch: Batch) -> None:
        self.rows = batch


def _rows(numbers: int, number: int) -> Batch:
    memory = _Labelled()
    latents = torch.randn(BATCH, numbers, generator=torch.Generator().manual_seed(number))
    memory.add("model/1", latents, texts=["red heart"] * BATCH)
    return memory.rows


def _file_costs(parent: Path, size: int, repeats: int) -> dict[str, float]:
    """Seconds of writing the images of a batch and their rows in the ledger."""
    with tempfile.TemporaryDirectory(dir=parent) as name:
        folder = RunFolder(Path(name), created=False)
        ledger, output = Ledger.create(folder.ledger, {}, {}), Files(folder)
        seconds = []
        for number in range(repeats):
            plan = [
                Planned(number * BATCH + i, "red heart", 0, i, item=str(i)) for i in range(BATCH)
            ]
            plan = [replace(p, item=f"{number}-{p.index}") for p in plan]
            files = {image_path(p.index): os.urandom(size) for p in plan}
            entries = [_entry(p) for p in plan]

            began = time.perf_counter()
            ledger.commit(output.write(entries, files), b"x" * 1000)
            seconds.append(time.perf_counter() - began)
        ledger.close()
        return {"commit": median(seconds)}


def _entry(planned: Planned) -> Entry:
    report = ImageReport(0, planned.prompt, 0, {}, {}, {}, None, None)
    stored = StoredImage(image_path(planned.index), "0" * 64, (512, 512))
    return Entry(Sample(planned, stored, report), torch.zeros(3072))


def _timed(call: Coroutine[Any, Any, T]) -> tuple[float, T]:
    """The seconds of a call of the actor, and its result."""
    began = time.perf_counter()
    result = asyncio.run(call)
    return time.perf_counter() - began, result
