"""One worker, in the process of the run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from unalike.memory import Memory
from unalike.runs.description import Description
from unalike.runs.engine import Outcome, StepsDone
from unalike.runs.plan import batches
from unalike.runs.samples import Planned
from unalike.runs.settings import DrawSettings
from unalike.runs.stopping import Stop
from unalike.runs.worker import Worker


class Alone:
    """A worker in this process, which draws a batch whenever it is asked for the next; see
    `unalike.runs.engine.Workers`.

    Args:
        worker: that draws.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._told: StepsDone = lambda batch, steps: None

    @classmethod
    def open(cls, settings: DrawSettings, prompts: Sequence[str], memory: Memory | None) -> Self:
        """Load the model, see `Worker.open`."""
        return cls(Worker.open(settings, prompts, memory))

    def describe(self, first: Sequence[Planned], command: Sequence[Any]) -> Description:
        """Describe the worker."""
        return Description.of(self._worker, first, command)

    def batches(self, plan: Sequence[Planned], size: int) -> list[list[Planned]]:
        """The images that are drawn together."""
        return batches(plan, size)

    def begin(
        self, folder: Path, memory: Memory, run: str, carried: bytes | None, told: StepsDone
    ) -> None:
        """Use the memory from now on."""
        self._worker.remember(memory, run, carried)
        self._told = told

    def draw(self, batches: Iterable[list[Planned]], stop: Stop) -> Iterator[Outcome]:
        """Draw batches one after another. KeyboardInterrupt is raised here."""
        for batch in batches:
            try:
                yield batch, self._worker.draw(batch, self._counting(batch))
            except Exception as error:
                yield batch, error

    def _counting(self, batch: Sequence[Planned]) -> Any:
        steps = 0

        def step_done() -> None:
            nonlocal steps
            steps += 1
            self._told(batch, steps)

        return step_done

    def close(self) -> None:
        """Nothing ends: the worker is part of this process."""
