"""Counts of right and of distinct right images of one prompt."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Counts:
    """Counts of the samples of one prompt.

    Attributes:
        samples: how many there are.
        right: how many show a right image.
        distinct: how many different right images are among them.
        possible: the most that could be: the smaller of the samples and the right images there
            are.
    """

    samples: int
    right: int
    distinct: int
    possible: int
