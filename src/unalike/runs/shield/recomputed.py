"""Recompute scores, changes and neighbours of a run from its images and latents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from unalike.memory import Memory
from unalike.runs.folder import RECORD, SAMPLES
from unalike.runs.record import score_summary
from unalike.runs.scoring import Diversity, change, diversity, pixel_features
from unalike.runs.shield.claims import image, same
from unalike.runs.shield.evidence import Row, read_image_file

_SCORES, _DISTANCES = 1e-6, 1e-6
"""By how much a score or a distance may differ, as a share of it: sums in another order."""


@dataclass(frozen=True)
class Measured:
    """Measurements of a finished image and the unguided one of its seed.

    Attributes:
        size: width and height.
        features: that scores are computed from.
        unguided: the same of the unguided image; None where there is none.
        change: how far both are from each other; None where there is one.
    """

    size: tuple[int, int]
    features: Tensor
    unguided: Tensor | None = None
    change: float | None = None


def measured(run: Path, row: Row, finished: Image.Image) -> Measured | str:
    """Measure a finished image; a text where its unguided image is unusable."""
    own, name = pixel_features(finished), row["unguided_image"]
    if name is None:
        return Measured(finished.size, own)
    unguided = read_image_file(run / name)
    if isinstance(unguided, str):
        return unguided
    if unguided.size != finished.size:
        return f"{name} has {unguided.size} pixels, and {row['image']} has {finished.size}"
    difference = change(finished, unguided)
    return Measured(finished.size, own, pixel_features(unguided), difference)


def differences_of_images(
    record: Mapping[str, Any], rows: Sequence[Row], found: Mapping[int, Measured]
) -> Iterator[str]:
    """Differences between recorded and recomputed changes, sizes and scores.

    Args:
        record: of the run.
        rows: of the table.
        found: what was measured, by the number of the image; those that could not be are not in it.
    """
    sizes = {own.size for own in found.values()}
    if len(sizes) > 1:
        yield f"the images have several sizes: {', '.join(map(str, sorted(sizes)))}"
    for row in rows:
        own = found.get(row["index"])
        if own is not None and not same(row["change"], own.change):
            yield (
                f"{image(row)}: change is {row['change']!r} in {SAMPLES}, and {own.change!r} "
                "computed again"
            )
    if len(found) == sum(not row["refused"] for row in rows):
        yield from _of_scores(record, rows, found)


def _of_scores(
    record: Mapping[str, Any], rows: Sequence[Row], found: Mapping[int, Measured]
) -> Iterator[str]:
    guided: dict[str, list[Tensor]] = {}
    unguided: dict[str, list[Tensor]] = {}
    for row in rows:
        own = found.get(row["index"])
        if own is not None:
            guided.setdefault(row["prompt"], []).append(own.features)
            if own.unguided is not None:
                unguided.setdefault(row["prompt"], []).append(own.unguided)
    scores = {prompt: diversity(features) for prompt, features in guided.items()}
    compared = {prompt: diversity(features) for prompt, features in unguided.items()}
    for name, own in (("guided", scores), ("unguided", compared)):
        yield from _of_summary(name, record["scores"][name], own)
    for row in rows:
        own = scores.get(row["prompt"])
        for column, true in (
            ("prompt_vendi", own.vendi if own else None),
            ("prompt_rke", own.rke if own else None),
        ):
            if not same(row[column], true, _SCORES):
                yield (
                    f"{image(row)}: {column} is {row[column]!r} in {SAMPLES}, and {true!r} "
                    "computed again"
                )


def _of_summary(
    name: str, claimed: Mapping[str, Any] | None, scores: Mapping[str, Diversity]
) -> Iterator[str]:
    if claimed is None or not scores:
        if scores or (claimed is not None and claimed["prompts"]):
            yield f"{RECORD}: the {name} images it has scores of are not those in the folder"
        return
    true = score_summary(scores)
    if set(claimed["prompts"]) != set(scores):
        yield (
            f"{RECORD}: {name} scores are of {sorted(claimed['prompts'])}, and the images of "
            f"{sorted(scores)}"
        )
        return
    rows = [("", claimed, true), *((p, claimed["prompts"][p], true["prompts"][p]) for p in scores)]
    for prompt, own, computed in rows:
        for key in ("vendi", "rke", *(("images",) if prompt else ())):
            if not same(own[key], computed[key], _SCORES):
                of = f" of {prompt!r}" if prompt else ""
                yield (
                    f"{RECORD}: {name} {key}{of} is {own[key]!r}, and {computed[key]!r} computed "
                    "again"
                )


def differences_of_neighbours(
    record: Mapping[str, Any], kept: Sequence[Row], latents: np.ndarray
) -> Iterator[str]:
    """Differences between recorded nearest neighbours and those of the final latents (m, d).

    Images of a batch see each other and what the memory held before. Without a memory file that is
    the batches before; what a file held is not known any more, so only neighbours in the batch can
    be compared.
    """
    batches = np.array([row["index"] // record["batch_size"] for row in kept])
    numbers = np.array([row["index"] for row in kept])
    known = record["memory"] is None and len(kept) <= Memory().capacity
    for i, row in enumerate(kept):
        distances = np.linalg.norm(latents - latents[i], axis=1)
        others = (batches == batches[i]) & (numbers != numbers[i])
        candidates = {("run", int(numbers[k])): distances[k] for k in np.flatnonzero(others)}
        if known:
            earlier = np.flatnonzero(batches < batches[i])
            candidates |= {("memory", k): distances[j] for k, j in enumerate(earlier)}
        yield from _of_neighbour(row, candidates, known=known)


def _of_neighbour(
    row: Row, candidates: Mapping[tuple[str, int], float], *, known: bool
) -> Iterator[str]:
    claimed = (row["nearest_source"], row["nearest_index"])
    distance, best = row["nearest_distance"], min(candidates.values(), default=None)
    remembered = claimed[0] == "memory" and not known
    if remembered and distance is not None:
        if best is None or distance <= best * (1 + _DISTANCES):
            return
    elif best is None or distance is None:
        if best is None and claimed == (None, None) and distance is None:
            return
    elif same(distance, best, _DISTANCES) and same(candidates.get(claimed), best, _DISTANCES):
        return
    nearest = min(candidates, key=lambda key: candidates[key], default=None)
    yield (
        f"{image(row)}: its nearest neighbour is {claimed} at {distance!r} in {SAMPLES}, and "
        f"{nearest} at {best!r} computed again"
    )
