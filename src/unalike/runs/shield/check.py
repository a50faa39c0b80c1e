"""`unalike shield check`: distances of any images to a protected set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import unalike
from unalike.runs.folder import free_folder
from unalike.runs.progress import Progress, silent
from unalike.runs.results import ResultFolder
from unalike.runs.shield.checked import Checked, check_table, checked
from unalike.runs.shield.edited import (
    AfterEdit,
    EncoderOfEdits,
    checked_after_edits,
    checked_with_edits,
    require_images_to_edit,
)
from unalike.runs.shield.encoders import Encoder, encoder_of
from unalike.runs.shield.page import check_page
from unalike.runs.shield.reading import Skipped, encode_all
from unalike.runs.shield.settings import CheckSettings, with_model
from unalike.runs.shield.sources import find_sources
from unalike.shields import Shield
from unalike.shields.store import finished


class CheckFolder(ResultFolder):
    """An output folder claimed by a check."""

    record_name = "check.json"
    table_name = "check.parquet"


@dataclass(frozen=True)
class Outcome:
    """Result of a check.

    Attributes:
        folder: of the results.
        record: the content of `check.json`.
        checked: the images, closest first.
        edits: all of them after each edit, by its name; None where that was not asked for.
    """

    folder: Path
    record: Mapping[str, Any]
    checked: Sequence[Checked]
    edits: Mapping[str, AfterEdit] | None = None

    @property
    def inside(self) -> int:
        """The number of images inside a ball, as they are on disk."""
        return sum(c.inside for c in self.checked)

    def to_dict(self) -> dict[str, Any]:
        """The record with the folder, ready for JSON."""
        return {"out": str(self.folder), **self.record}


def check(settings: CheckSettings, progress: Progress | None = None) -> Outcome:
    """Measure how near images are to a protected set, and write check.json, check.parquet and
    report.html.

    Images are encoded as they are on disk: those that were drawn under a shield lie as far away as
    their certificates say but for what decoding and encoding change. Nothing is written before
    everything is measured.

    With `edits` every image is measured after each of `unalike.runs.shield.edits` too.

    Args:
        settings: what to do.
        progress: told the share of the work that is done.

    Raises:
        OptionError: for a setting, image or model that is not allowed.
        StoreError: for images that cannot be read, a set that is not whole or of another model, and
            an output folder in the way.
        NumericsError: where the model makes NaN or infinity of an image.
    """
    tell, settings = progress or silent, with_model(settings)
    sources = find_sources(settings.images)
    if settings.edits:
        require_images_to_edit(sources)
    finished(settings.folder)
    folder = CheckFolder.claim(
        settings.out
        or free_folder(["check", *(Path(given).stem for given in settings.images)], Path.cwd()),
        overwrite=settings.overwrite,
    )
    try:
        shield = Shield.open(settings.folder)
        encoder, measure = _encoder(settings), checked
        if settings.edits:
            encoder, measure = EncoderOfEdits(encoder), checked_with_edits
        found: list[Checked] = []

        def take(points: torch.Tensor, names: list[str]) -> None:
            found.extend(measure(shield, points, names))

        skipped = encode_all(
            sources,
            encoder,
            take,
            batch_size=settings.batch_size,
            skip_bad=settings.skip_bad,
            tell=tell,
        )
        found.sort(key=lambda c: (c.margin, c.image))
        edits = checked_after_edits(found)
        record = _record(settings, shield, found, edits, skipped)
        folder.write(record, check_table(found, shield.radius), check_page(record, found, edits))
    except BaseException:
        folder.abandon()
        raise
    return Outcome(folder.path, record, found, edits)


def _encoder(settings: CheckSettings) -> Encoder:
    return encoder_of(
        finished(settings.folder),
        settings.model,
        settings.space,
        device=settings.device,
        batch_size=settings.batch_size,
    )


def _record(
    settings: CheckSettings,
    shield: Shield,
    found: Sequence[Checked],
    edits: Mapping[str, AfterEdit] | None,
    skipped: Skipped,
) -> dict[str, Any]:
    return {
        "tool": "unalike",
        "version": unalike.__version__,
        "set": {
            "name": settings.folder.resolve().name,
            "count": len(shield),
            "space": shield.space,
            "radius": shield.radius,
            "rounding": shield.rounding,
            "checksum": shield.checksum,
        },
        "images": len(found),
        "inside": sum(c.inside for c in found),
        "edits": edits and {name: asdict(after) for name, after in edits.items()},
        "skipped": [{"image": name, "reason": why} for name, why in skipped],
        "checked": [c.to_row() for c in found],
    }
