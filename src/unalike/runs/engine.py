"""The engine of long runs: batches are drawn, committed, and after any end gone on with."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing
from typing import Protocol

import torch

from unalike.errors import StoreError
from unalike.runs.committing import Committer
from unalike.runs.samples import Planned
from unalike.runs.stopping import Stop
from unalike.runs.worker import Drawn, Worker

MOST_FAILURES = 5
"""Batches that fail one after another, and none before them finished, before a run gives up."""

StepsDone = Callable[[Sequence[Planned], int], None]
"""Told a batch and how many of its steps are done."""


class Pool(Protocol):
    """Workers that draw batches."""

    @property
    def size(self) -> int:
        """The number of batches that are drawn at a time."""
        ...

    def draw(self, batch: Sequence[Planned]) -> Future[Drawn]:
        """Have a batch drawn."""
        ...

    def close(self) -> None:
        """End the workers."""
        ...


class Alone:
    """A worker in this process, which draws while it is asked.

    Args:
        worker: that draws.
        told: after each step.
    """

    size = 1

    def __init__(self, worker: Worker, told: StepsDone) -> None:
        self._worker, self._told = worker, told

    def draw(self, batch: Sequence[Planned]) -> Future[Drawn]:
        """Draw a batch; what comes back is done already, with the images or the error.

        KeyboardInterrupt is raised here.
        """
        steps = 0

        def step_done() -> None:
            nonlocal steps
            steps += 1
            self._told(batch, steps)

        future: Future[Drawn] = Future()
        try:
            future.set_result(self._worker.draw(batch, step_done))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Nothing ends: the worker belongs to the caller."""


class Engine:
    """Draws what a ledger lacks.

    Args:
        pool: of the workers.
        committer: brings batches to the disk.
        stop: asked after each batch.
        keep_going: whether images that fail are noted and tried again at the end, one by one;
            otherwise the first error ends the run.

    Attributes:
        failed: how many images could not be drawn so far.
        largest: the most images that fit the device at a time, once memory ran out; None before.
    """

    def __init__(
        self, pool: Pool, committer: Committer, stop: Stop, *, keep_going: bool = False
    ) -> None:
        self._pool, self._committer, self._stop = pool, committer, stop
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
        with self._committer.running(), closing(self._pool):
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
        running: dict[Future[Drawn], list[Planned]] = {}
        while running or (pending and not self._stop.asked):
            while pending and len(running) < self._pool.size and not self._stop.asked:
                batch = self._next(pending)
                running[self._pool.draw(batch)] = batch
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                batch = running.pop(future)
                error = future.exception()
                if error is None:
                    self._committer.commit(future.result())
                    self._finished_any, self._in_a_row = True, 0
                elif _out_of_memory(error) and len(batch) > 1:
                    self.largest = min(self.largest or len(batch), (len(batch) + 1) // 2)
                    pending.appendleft(batch)
                    _free()
                else:
                    self._note(batch, error, last=last)
                    failures += batch
        return failures

    def _next(self, pending: deque[list[Planned]]) -> list[Planned]:
        batch = pending.popleft()
        if self.largest is not None and len(batch) > self.largest:
            pending.appendleft(batch[self.largest :])
            batch = batch[: self.largest]
        return batch

    def _note(self, batch: Sequence[Planned], error: BaseException, *, last: bool) -> None:
        """Note images that failed; raises the error where the run cannot go on."""
        self._in_a_row += 1
        hopeless = not self._finished_any and self._in_a_row >= MOST_FAILURES and not last
        if not self._keep_going or hopeless or _of_the_machine(error):
            raise error
        self._committer.fail(batch, _sentence(error))


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _free() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
