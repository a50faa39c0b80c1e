"""The tables and pages of a run, from its ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from unalike.images import read_image
from unalike.runs.about import About
from unalike.runs.datasets import metadata_row, write_metadata
from unalike.runs.folder import IMAGES, RunFolder
from unalike.runs.grid import IMAGES_SHOWN, PROMPTS_SHOWN, Band, Cell, Panel, draw_grid
from unalike.runs.ledger import Ledger
from unalike.runs.page import report_page
from unalike.runs.record import last_record
from unalike.runs.samples import Sample, StoredImage, by_prompt, returned, sample_table
from unalike.runs.scoring import PLAINLY_CHANGED, Diversity, diversity

Read = Callable[[str], Image.Image]


def finish(
    folder: RunFolder,
    ledger: Ledger,
    record: Mapping[str, Any],
    about: About,
    *,
    finished: bool,
    seconds: float,
) -> tuple[dict[str, Any], list[Sample]]:
    """Write everything about the images that are there, and the record last.

    Args:
        folder: of the run.
        ledger: of the run.
        record: as the run began.
        about: what its images have in common.
        finished: whether all images were drawn.
        seconds: that were spent on drawing.

    Returns:
        The record as it was written, and the images.

    Raises:
        StoreError: where something cannot be written.
    """
    samples = list(ledger.samples())
    scores = {prompt: diversity(rows) for prompt, rows in ledger.features()}
    unguided = {prompt: diversity(rows) for prompt, rows in ledger.features(unguided=True)}
    failures = ledger.failures()
    record = last_record(
        {**record, **{name: ledger.get(name) for name in ("methods_as_used", "workers")}},
        samples,
        scores,
        unguided,
        finished=finished,
        seconds=seconds,
        failed=len(failures),
    )
    _write_latents(folder, ledger)
    if samples:
        _write_pages(folder, record, about, samples, scores, unguided)
    folder.write_record(record)
    return record, samples


def _write_pages(
    folder: RunFolder,
    record: Mapping[str, Any],
    about: About,
    samples: Sequence[Sample],
    scores: Mapping[str, Diversity],
    unguided: Mapping[str, Diversity],
) -> None:
    shared = {name: record[name] for name in ("steps", "guidance_scale", "batch_size")}
    shared |= {
        "model": record["model"]["name"],
        "methods": ", ".join(m["name"] for m in record["methods"]),
    }
    folder.write_samples(sample_table(samples, scores, shared))
    images = returned(samples)
    if images and images[0].image and "#" not in images[0].image.path:
        if record["rows"]:  # `unalike run`
            write_metadata(folder.path / IMAGES, _metadata(about, images))
        folder.write_grid(
            draw_grid(_bands(images, lambda path: _read(folder, path)), _legend(images))
        )
    folder.write_report(report_page(record, samples, scores, unguided))


def _metadata(about: About, images: Sequence[Sample]) -> Iterator[dict[str, Any]]:
    """The rows of the table that `datasets` reads."""
    for sample in images:
        if sample.image is not None:
            name = Path(sample.image.path).name
            yield metadata_row(name, about.info(sample.planned, sample.image.size))


def _write_latents(folder: RunFolder, ledger: Ledger) -> None:
    """Write the final latents of the images that are there, where there is a protected set."""
    from unalike.attach.spaces import Space

    index, latents = ledger.latents()
    if latents is not None:
        space = str(Space.parse(ledger.get("space")).of_latents)
        folder.write_latents(latents, index, space)


def _read(folder: RunFolder, path: str) -> Image.Image:
    with Image.open(folder.path / path) as image:
        return read_image(image)


def _bands(samples: Sequence[Sample], read: Read) -> list[Band]:
    """The images that the sheet has room for, prompt by prompt; the others are empty cells, which
    it counts.
    """
    blank = Image.new("RGB", (1, 1))

    def cell(stored: StoredImage, shown: bool, framed: bool = False) -> Cell:
        return Cell(read(stored.path) if shown else blank, framed)

    bands = []
    for number, (prompt, group) in enumerate(by_prompt(samples).items()):
        shown = [number < PROMPTS_SHOWN and i < IMAGES_SHOWN for i in range(len(group))]
        pairs = list(zip(group, shown, strict=True))
        plain = [cell(s.unguided, there) for s, there in pairs if s.unguided]
        guided = [cell(s.image, there, s.plainly_changed) for s, there in pairs if s.image]
        panels = [Panel("without guidance", plain)] if plain else []
        bands.append(Band(prompt, [*panels, Panel("guided", guided)]))
    return bands


def _legend(samples: Sequence[Sample]) -> list[str]:
    if all(s.unguided is None for s in samples):
        return []
    if all(s.change is None for s in samples):
        return ["Without guidance: the seeds in their order. Guided: chosen out of more seeds."]
    changed = sum(s.plainly_changed for s in samples)
    return [
        f"Both sides start from the same noise. Framed: {changed} of {len(samples)} images look "
        "different from the unguided image of the same seed",
        f"(root mean square difference of pixels above {PLAINLY_CHANGED:.0%} of the full range).",
    ]
