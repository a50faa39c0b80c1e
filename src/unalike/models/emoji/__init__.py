"""The shipped text-to-image model of 3,664 emoji: data, exact sets of right images, and judge."""

from unalike.models.emoji.data import (
    Captions,
    Entry,
    captions,
    concepts,
    entries,
    load_images,
    truth,
)
from unalike.models.emoji.judge import Match, count, features, nearest

__all__ = [
    "Captions",
    "Entry",
    "Match",
    "captions",
    "concepts",
    "count",
    "entries",
    "features",
    "load_images",
    "nearest",
    "truth",
]
