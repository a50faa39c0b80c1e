"""The progress of a job."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called by a job while it works."""

    def __call__(self, share: float, note: str = "") -> None:
        """Take note of the work that is done.

        Args:
            share: of the work, from 0 to 1.
            note: what is being done, such as "12 of 40 images"; empty for no change.
        """
        ...


def silent(share: float, note: str = "") -> None:
    """Progress that nobody is told of."""


class Counter:
    """Counts things that are done and tells the progress: "12 of 40 images".

    Args:
        progress: told.
        total: how many there are.
        things: what they are.
        upto: the share of the whole work when all are done.
    """

    def __init__(self, progress: Progress, total: int, things: str, *, upto: float = 1.0) -> None:
        self._progress = progress
        self._total = total
        self._things = things
        self._upto = upto
        self._done = 0

    def add(self, count: int = 1) -> None:
        """So many more are done."""
        self._done += count
        share = self._upto * self._done / max(1, self._total)
        self._progress(share, f"{self._done} of {self._total} {self._things}")
