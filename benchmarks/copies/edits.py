"""What becomes of images that were returned, and of protected ones, when they are edited."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.base import read_rows, table, write_rows
from benchmarks.copies.draw import descriptors, known, returned
from benchmarks.copies.settings import FINISHED, MODELS, Setting, protected
from unalike.images import stacked
from unalike.models.emoji.copies import COPY
from unalike.models.emoji.data import load_images
from unalike.runs.shield.edits import EDITS

EDITED = "edits.parquet"
_SAMPLED = 20
"""Of all protected images every so many are edited."""


def edited(images: Tensor, name: str) -> Tensor:
    """Images (n, 3, 64, 64) in [0, 1] after an edit of `unalike.runs.shield.edits`."""
    return stacked([EDITS[name](image) for image in images])


def measure_edits(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write `edits.parquet`: for each model, protected set and edit how many returned images are
    inside as copies afterwards, and how many protected images are still known.
    """
    found = []
    jobs = {(r["model"], r["protected"], r["prompt"]) for r in rows if r["guard"] == FINISHED}
    for model in MODELS:
        for name in dict.fromkeys(r["protected"] for r in rows):
            prompts = [p for m, s, p in sorted(jobs) if (m, s) == (model, name)]
            if not prompts:
                continue
            job = Setting(model, name, FINISHED).name
            kept = torch.cat([returned(job, prompt, folder) for prompt in prompts])
            own = load_images()[protected(name)[:: _SAMPLED if name == "all" else 1]] / 255
            for edit in EDITS:
                inside, recognised = (
                    _inside(edited(x, edit), name) if len(x) else 0 for x in (kept, own)
                )
                found.append(
                    {
                        "model": model,
                        "protected": name,
                        "edit": edit,
                        "images": len(kept),
                        "inside": inside,
                        "known": len(own),
                        "recognised": recognised,
                    }
                )
    write_rows(folder / EDITED, found)


def _inside(images: Tensor, name: str) -> int:
    distance = torch.cdist(descriptors(images).double(), known("copies", name)).amin(dim=1)
    return int((distance < COPY).sum())


def edits_section(folder: Path) -> str:
    """The table of the documentation; empty before it was measured."""
    rows = read_rows(folder / EDITED)
    if not rows:
        return ""
    lines = []
    for edit in dict.fromkeys(row["edit"] for row in rows):
        own = [row for row in rows if row["edit"] == edit]
        once = {row["protected"]: row for row in own}.values()  # the same for both models
        inside, images = (sum(row[name] for row in own) for name in ("inside", "images"))
        seen, asked = (sum(row[name] for row in once) for name in ("recognised", "known"))
        lines.append(
            [
                f"{EDITS[edit].words} (`{edit}`)",
                f"{inside} of {images} ({inside / max(1, images):.1%})",
                f"{seen} of {asked} ({seen / max(1, asked):.1%})",
            ]
        )
    head = ["edit", "returned images that are inside then", "protected images that are known then"]
    return (
        "Edited afterwards, as `unalike shield verify --edits` does it, with the shield of "
        "finished images and by copy-detection descriptors:\n\n" + table(head, lines)
    )
