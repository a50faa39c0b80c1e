"""Draw the same images by one worker and by several, and count the different right ones."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.fewstep.measure import Judged
from unalike.models import emoji
from unalike.runs.job import Outcome
from unalike.runs.run import run
from unalike.runs.run_settings import RunSettings
from unalike.runs.samples import by_prompt

UNGUIDED, ONE, SHARED, SEPARATE = "unguided", "one", "shared", "separate"
MODEL = "emoji-turbo"


@dataclass(frozen=True)
class Size:
    """How much is drawn.

    Args:
        prompts: to draw.
        num: images of each.
        batch: images at a time.
        workers: of the runs with several.
    """

    prompts: tuple[str, ...]
    num: int
    batch: int
    workers: int


def judged(kind: str, size: Size) -> list[dict[str, Any]]:
    """A row for each prompt, for one of `KINDS`.

    `distinct` counts the different right images among `samples`, `right` all right ones, and
    `seconds` are those of the whole run.
    """
    with tempfile.TemporaryDirectory() as folder:
        outcome = KINDS[kind](Path(folder), size)
        rows = []
        for prompt, samples in by_prompt(outcome.samples).items():
            paths = [outcome.folder / s.image.path for s in samples if s.image]
            found = Judged.of(torch.stack([_pixels(path) for path in paths]), prompt, 0.0)
            counts = found.row(len(emoji.truth(prompt)))
            rows.append(
                {
                    "workers": kind,
                    "prompt": prompt,
                    **{n: counts[n] for n in ("samples", "right", "distinct", "possible")},
                    "seconds": outcome.record["seconds"],
                }
            )
        return rows


def _pixels(path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        values = np.array(image.convert("RGB"))
    return torch.from_numpy(values).permute(2, 0, 1).float() / 255


def _settings(folder: Path, size: Size, **changes: Any) -> RunSettings:
    source = folder / "prompts.txt"
    source.write_text("\n".join(size.prompts) + "\n", "utf-8")
    plain = {"source": source, "model": MODEL, "num": size.num, "batch_size": size.batch}
    return RunSettings(**{**plain, "out": folder / "out", **changes})


def _unguided(folder: Path, size: Size) -> Outcome:
    return run(_settings(folder, size, strength=0.0, candidates=1))


def _one(folder: Path, size: Size) -> Outcome:
    return run(_settings(folder, size))


def _shared(folder: Path, size: Size) -> Outcome:
    return run(_settings(folder, size, devices=("cpu",) * size.workers))


def _separate(folder: Path, size: Size) -> Outcome:
    for number in range(size.workers):
        run(_settings(folder, size, shard=f"{number}/{size.workers}"))
    return run(_settings(folder, size, merge=True))


KINDS: dict[str, Callable[[Path, Size], Outcome]] = {
    UNGUIDED: _unguided,
    ONE: _one,
    SHARED: _shared,
    SEPARATE: _separate,
}
"""What draws the images: nothing but the model, one worker, several with one memory, and as many
with a memory each.
"""
