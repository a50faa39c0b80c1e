"""What `unalike run` costs beside a loop over a diffusers pipeline that saves its images."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.base import Benchmark, Progress, read_rows, table, write_rows
from training.emoji.measure import PROMPTS
from unalike.attach import guide
from unalike.memory import Memory
from unalike.pipelines.catalogue import MODELS
from unalike.runs.pipeline import RunPipeline
from unalike.runs.run import run as draw_file
from unalike.runs.run_settings import RunSettings
from unalike.runs.settings import build_methods

ROWS = "rounds.parquet"
LOOP, GUIDED, RUN = "diffusers loop", "guided loop", "unalike run"


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Args:
        models: names of the catalogue.
        prompts: of each, `images` images are drawn.
        images: of each prompt.
        batch: images drawn at a time.
        rounds: of all ways in turn, so that other work on the machine disturbs all alike.
    """

    models: tuple[str, ...] = ("emoji-turbo", "emoji")
    prompts: int = 8
    images: int = 8
    batch: int = 16
    rounds: int = 3


SMOKE = Size(models=("emoji-turbo",), prompts=2, images=1, batch=2, rounds=1)


def run(folder: Path, smoke: bool, progress: Progress) -> None:
    """Measure the rounds that the folder lacks."""
    size = SMOKE if smoke else Size()
    rows = read_rows(folder / ROWS)
    done = {(row["model"], row["round"]) for row in rows}
    todo = [(m, r) for m in size.models for r in range(size.rounds) if (m, r) not in done]
    for number, (model, count) in enumerate(todo):
        for way, seconds in _round(model, size).items():
            rows.append({"model": model, "round": count, "way": way, "seconds": seconds})
        write_rows(folder / ROWS, rows)
        progress((number + 1) / len(todo))


def _round(model: str, size: Size) -> dict[str, float]:
    """Seconds of each way to draw the same images."""
    prompts = [prompt for prompt in PROMPTS[: size.prompts] for _ in range(size.images)]
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "prompts.txt"
        source.write_text("\n".join(PROMPTS[: size.prompts]), "utf-8")
        settings = RunSettings(
            source=source,
            model=model,
            num=size.images,
            batch_size=size.batch,
            candidates=1,
            out=Path(place) / "out",
        )
        pipeline = RunPipeline.open(settings)
        guided = guide(pipeline.pipe, *build_methods(settings), memory=Memory(), candidates=1)
        found = {
            LOOP: _loop(pipeline.pipe, pipeline, prompts, size, Path(place) / "loop"),
            GUIDED: _loop(guided, pipeline, prompts, size, Path(place) / "guided"),
        }
        begun = time.perf_counter()
        outcome = draw_file(settings)
        total = time.perf_counter() - begun
        found[RUN] = outcome.record["seconds"]
        found["all of unalike run"] = total
        shutil.rmtree(settings.out or place)
    return found


def _loop(
    call: Callable[..., Any],
    pipeline: RunPipeline,
    prompts: Sequence[str],
    size: Size,
    folder: Path,
) -> float:
    folder.mkdir()
    call(**pipeline.arguments(prompts[:2]), generator=_generators(range(2)))  # warm
    begun = time.perf_counter()
    for first in range(0, len(prompts), size.batch):
        part = prompts[first : first + size.batch]
        seeds = [i % size.images for i in range(first, first + len(part))]
        images = call(**pipeline.arguments(part), generator=_generators(seeds)).images
        for i, image in enumerate(images):
            image.save(folder / f"{first + i:05}.png")
    return time.perf_counter() - begun


def _generators(seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def page(folder: Path) -> str:
    """The section of the documentation."""
    rows = read_rows(folder / ROWS)
    images = Size().prompts * Size().images
    parts = [
        "## Throughput of long runs",
        "`python -m benchmarks throughput`",
        f"{images} images in batches of {Size().batch}, drawn in turn by a loop over the diffusers "
        "pipeline that saves PNG files, by the same loop over the guided pipeline, and by `unalike "
        "run`, which besides synchronises each file, keeps ledger and memory, and stores in "
        "each file how it was made. Ratios are medians over rounds, and their range.",
        throughput_table(folder) if rows else "Not measured yet.",
    ]
    return "\n\n".join(parts)


def throughput_table(folder: Path) -> str:
    """Images per second of `unalike run`, beside those of the two loops."""
    rows = read_rows(folder / ROWS)
    images = Size().prompts * Size().images
    lines = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        seconds = {
            way: [row["seconds"] for row in own if row["way"] == way] for way in (LOOP, GUIDED, RUN)
        }
        rate = images / statistics.median(seconds[RUN])
        steps = f"{MODELS[model].steps}"
        lines.append(
            [f"`{model}`", steps, f"{rate:.3g}", *(_ratio(seconds, way) for way in (GUIDED, LOOP))]
        )
    columns = ["model", "steps", "images a second", "of the guided loop", "of the plain loop"]
    return table(columns, lines)


def _ratio(seconds: dict[str, list[float]], way: str) -> str:
    ratios = [a / b for a, b in zip(seconds[way], seconds[RUN], strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


BENCHMARK = Benchmark(name="throughput", run=run, page=page)
