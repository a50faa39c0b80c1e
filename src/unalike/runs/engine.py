"""The engine of long runs: batches are drawn, committed, and after any end gone on with."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from unalike.errors import StoreError
from unalike.memory import Memory
from unalike.runs.committing import Committer
from unalike.runs.description import Description
from unalike.runs.samples import Planned
from unalike.runs.stopping import Stop
from unalike.runs.worker import Drawn

MOST_FAILURES = 5
"""Batches that fail one after another, and none before them finished, before a run gives up."""

StepsDone = Callable[[Sequence[Planned], int], None]
"""Told a batch and how many of its steps are done."""
Outcome = tuple[list[Planned], Drawn | Exception]
"""A batch with what was drawn, or with the error where it could not be."""


class Workers(Protocol):
    """What draws the batches of a run: one worker or several, here or elsewhere."""

    def describe(self, first: Sequence[Planned], command: Sequence[Any]) -> Description:
        """Describe the workers, which are alike.

        Args:
            first: the first batch of the run.
            command: words before the options of the command that repeats it.
        """
        ...

    def batches(self, plan: Sequence[Planned], size: int) -> list[list[Planned]]:
        """The images that are drawn together, see `unalike.runs.plan.batches`."""
        ...

    def begin(
        self, folder: Path, memory: Memory, run: str, carried: bytes | None, told: StepsDone
    ) -> None:
        """Get ready to draw.

        Args:
            folder: the output folder, for the lock of those that write to the memory.
            memory: with a file, where every batch is added.
            run: marks its samples in the memory.
            carried: what the guidance stored at the end of an earlier process.
            told: after each step, where the workers can tell.
        """
        ...

    def draw(self, batches: Iterable[list[Planned]], stop: Stop) -> Iterator[Outcome]:
        """Draw batches, and yield each once it is drawn, in any order.

        Args:
            batches: taken as workers become free, or all at once.
            stop: once it is asked for, no further batch is begun; those are not yielded.
        """
        ...

    def close(self) -> None:
        """End the workers, also those that are drawing."""
        ...


class Engine:
    """Draws what a ledger lacks.

    Args:
        workers: that draw; they have begun.
        committer: brings batches to the disk.
        stop: asked after each batch.
        keep_going: whether images that fail are noted and tried again at the end, one by one;
            otherwise the first error ends the run.

    Attributes:
        failed: how many images could not be drawn so far.
        largest: the most images that fit the device at a time, once memory ran out; None before.
    """

    def __init__(
        self, workers: Workers, committer: Committer, stop: Stop, *, keep_going: bool = False
    ) -> None:
        self._workers, self._committer, self._stop = workers, committer, stop
        self._keep_going = keep_going
        self._finished_any = False
        self._in_a_row = 0
        self.failed = 0
        self.largest: int | None = None

    def draw_all(self, batches: Iterable[Sequence[Planned]]) -> bool:
        """Draw and commit the batches.

        Returns:
            Whether nothing was left because of a stop.

        Raises:
            StoreError: where something could not be written; the images before are complete.
            UnalikeError: where images failed, unless it keeps going; others are those of the
                pipeline.
        """
        pending = deque(list(batch) for batch in batches)
        with self._committer.running():
            failures = self._draw(pending)
            self.failed = len(failures)
            if failures and not self._stop.asked:
                self.failed = 0
                again = deque([planned] for planned in failures)
                self.failed = len(self._draw(again, last=True))
            else:
                pending.extend([planned] for planned in failures)
        return not (self._stop.asked and pending)

    def _draw(self, pending: deque[list[Planned]], *, last: bool = False) -> list[Planned]:
        """Draw all that is pending, and return what could not be drawn.

        Args:
            pending: batches; empty at the end, unless a stop was asked for.
            last: whether these are tried for the last time.
        """
        failures: list[Planned] = []
        while pending and not self._stop.asked:
            given: dict[int, list[Planned]] = {}
            for batch, outcome in self._workers.draw(self._taken(pending, given), self._stop):
                del given[batch[0].index]
                if isinstance(outcome, Drawn):
                    self._committer.commit(outcome)
                    self._finished_any, self._in_a_row = True, 0
                elif _out_of_memory(outcome) and len(batch) > 1:
                    self.largest = min(self.largest or len(batch), (len(batch) + 1) // 2)
                    pending.appendleft(batch)
                else:
                    self._note(batch, outcome, last=last)
                    failures += batch
            pending.extendleft(given.values())
        return failures

    def _taken(
        self, pending: deque[list[Planned]], given: dict[int, list[Planned]]
    ) -> Iterator[list[Planned]]:
        """Take batches off `pending`, and note them as given to a worker."""
        while pending and not self._stop.asked:
            batch = self._next(pending)
            given[batch[0].index] = batch
            yield batch

    def _next(self, pending: deque[list[Planned]]) -> list[Planned]:
        batch = pending.popleft()
        if self.largest is not None and len(batch) > self.largest:
            pending.appendleft(batch[self.largest :])
            batch = batch[: self.largest]
        return batch

    def _note(self, batch: Sequence[Planned], error: Exception, *, last: bool) -> None:
        """Note images that failed; raises the error where the run cannot go on."""
        self._in_a_row += 1
        hopeless = not self._finished_any and self._in_a_row >= MOST_FAILURES and not last
        if not self._keep_going or hopeless or _of_the_machine(error):
            raise error
        self._committer.fail(batch, _sentence(error))


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _of_the_machine(error: BaseException) -> bool:
    """Whether a disk failed, so that no other image can be written either."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return True
    cause = error if isinstance(error, OSError) else error.__cause__
    full = isinstance(cause, OSError) and cause.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
    )
    return full or isinstance(error, StoreError)
