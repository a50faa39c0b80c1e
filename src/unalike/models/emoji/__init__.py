"""The shipped text-to-image model of 3,664 emoji: its data, its ground truth, the judge of its
images, and how it was trained.
"""

from unalike.models.emoji.data import (
    Captions,
    Entry,
    captions,
    concepts,
    entries,
    load_images,
    truth,
)
from unalike.models.emoji.judge import Match, features, nearest

__all__ = [
    "Captions",
    "Entry",
    "Match",
    "captions",
    "concepts",
    "entries",
    "features",
    "load_images",
    "nearest",
    "truth",
]
