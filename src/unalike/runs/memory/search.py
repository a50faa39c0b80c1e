"""`unalike memory search` and `remove`: find samples by what is known of them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unalike.memory import creation
from unalike.memory.database import Database
from unalike.memory.labels import Label, matching
from unalike.memory.place import Found, absolute, look
from unalike.memory.reading import opened_rows
from unalike.runs.memory.inspection import time_text
from unalike.runs.memory.settings import RemoveSettings, SearchSettings


@dataclass(frozen=True)
class Hit:
    """A sample that was found.

    Attributes:
        label: its text, seed, item, run and time.
        space: that of its latent.
        thumbnail: a WebP image, or None.
    """

    label: Label
    space: str
    thumbnail: bytes | None

    def to_dict(self) -> dict[str, Any]:
        """What is known of it, ready for JSON; the thumbnail as a URL that holds it."""
        label, image = self.label._asdict(), self.thumbnail
        label["time"] = time_text(label.pop("created"))
        encoded = None if image is None else base64.b64encode(image).decode()
        url = None if encoded is None else f"data:image/webp;base64,{encoded}"
        return {**label, "space": self.space, "thumbnail": url}

    def lines(self) -> list[str]:
        """What is known of it, for people."""
        label = self.label
        seed = "no seed" if label.seed is None else f"seed {label.seed}"
        run = "" if label.run is None else f"run {label.run}, "
        text = " ".join((label.text or "").split()) or "(no text)"
        return [
            f"{time_text(label.created)}  {seed}  {text}",
            f"    {run}item {label.item}, space {self.space}",
        ]


@dataclass(frozen=True)
class Hits:
    """The newest samples that were found, and how many there are in all."""

    shown: Sequence[Hit]
    found: int


def search(settings: SearchSettings) -> Hits:
    """Find samples by the words of their prompts.

    Raises:
        StoreError: where there is no memory, or it is damaged.

    Cost: one pass over the labels; latents are not read.
    """
    words = settings.text.casefold().split()
    shown: list[Hit] = []
    found = 0
    with opened_rows(settings.file) as rows:
        for key, space, label in rows.labels(after=rows.pushed_out(), newest_first=True):
            text = (label.text or "").casefold()
            if all(word in text for word in words):
                found += 1
                if len(shown) < settings.num:
                    shown.append(Hit(label, space, rows.thumbnail(key)))
    return Hits(shown, found)


def remove(settings: RemoveSettings) -> int:
    """Remove the samples that fit all of the settings, and return how many.

    A memory of an earlier release becomes a database, where any sample is removed.

    Raises:
        StoreError: where there is no memory, it is damaged, or cannot be written.
    """
    matches = matching(
        items=settings.item or None,
        texts=settings.text or None,
        seeds=settings.seeds,
        run=settings.run,
    )
    with opened_rows(settings.file) as rows:
        if not any(matches(label) for _, _, label in rows.labels()):
            return 0
    place: Path = absolute(settings.file)
    if look(place) is Found.OTHER:
        creation.migrate(place)
    database = Database.open(place)
    try:
        with database.writing() as rows:
            return rows.remove([key for key, _, label in rows.labels() if matches(label)])
    finally:
        database.close()
