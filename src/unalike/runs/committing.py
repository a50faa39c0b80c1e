"""Brings drawn batches to the disk: files, then the ledger, in a thread beside the drawing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from unalike.memory import Memory
from unalike.runs.ledger import Entry, Ledger
from unalike.runs.output import Output
from unalike.runs.samples import Planned
from unalike.runs.worker import Drawn


class Committer:
    """Commits batches in their order, one at a time. The next batch is drawn meanwhile, so that
    no GPU waits for a disk.

    Args:
        output: writes the files.
        ledger: knows what is done.
        memory: takes thumbnails; None for one that takes none.
        told: called with the entries of a batch once it is committed.
        told_of_failure: called with images that could not be drawn, and the error.
    """

    def __init__(
        self,
        output: Output,
        ledger: Ledger,
        memory: Memory | None,
        told: Callable[[Sequence[Entry]], None],
        told_of_failure: Callable[[Sequence[Planned], str], None],
    ) -> None:
        self._output, self._ledger, self._memory = output, ledger, memory
        self._told, self._told_of_failure = told, told_of_failure
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._last: Future[None] | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within the block batches can be committed; at its end all are.

        Raises:
            StoreError: where the last could not be.
        """
        try:
            yield
        finally:
            try:
                self.wait()
            finally:
                self._thread.shutdown()

    def commit(self, drawn: Drawn) -> None:
        """Have a batch committed, after the one before it.

        Raises:
            StoreError: where the one before could not be.
        """
        self._submit(self._commit, drawn)

    def fail(self, batch: Sequence[Planned], error: str) -> None:
        """Have the ledger note that images could not be drawn."""
        self._submit(self._ledger.fail, batch, error)
        self._told_of_failure(batch, error)

    def wait(self) -> None:
        """Wait for what was given.

        Raises:
            StoreError: where it could not be committed.
        """
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def _submit(self, work: Callable[..., None], *arguments: Any) -> None:
        self.wait()
        self._last = self._thread.submit(work, *arguments)

    def _commit(self, drawn: Drawn) -> None:
        entries = self._output.write(drawn.entries, drawn.files)
        if self._memory is not None and drawn.thumbnails:
            self._memory.add_thumbnails(drawn.thumbnails)
        self._ledger.commit(entries, drawn.carried, output=self._output.state, **drawn.about)
        self._told(entries)
