"""The actor that owns a shard of the memory, on the machine of the run."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unalike.memory import Memory
from unalike.memory.changes import Changes, Position
from unalike.memory.samples import Batch
from unalike.runs.fence import hold_lock
from unalike.runs.ray.sharding import Sharding

TRIES = 3
"""How many workers may die at a batch."""
_LEAST_PATIENCE, _PATIENCE = 60.0, 10.0


@dataclass(frozen=True)
class Begun:
    """The answer to a worker that begins a batch.

    Attributes:
        token: tells this try from others at the batch; None where the run stops.
        changes: what the worker's copy of the shard lacks.
        died: how many workers died at the batch.
    """

    token: int | None
    changes: Changes | None = None
    died: int = 0


@dataclass(frozen=True)
class _Running:
    """A batch that is drawn: its token, the position of its worker, and when it began."""

    token: int
    position: Position
    since: float


class MemoryShard:
    """A shard of a memory: the samples of some prompts, in the file that all shards share.

    A worker begins each batch with all that was added before, and adds it when it is drawn. In
    between at most `bound` other batches are added: no further batch begins while one that is
    being drawn could miss more, and one that did is refused and drawn again. All that counts is in
    the file, so that an actor which Ray starts again goes on where the one before it ended.

    Args:
        path: of the memory's file.
        folder: the output folder of the run.
        sharding: of the memory.
        number: of this shard.
        bound: the largest staleness: how many batches are added while another is drawn.
    """

    def __init__(
        self, path: Path, folder: Path, sharding: Sharding, number: int, bound: int
    ) -> None:
        hold_lock(folder)
        self._memory = Memory.open(path, keep=lambda text: sharding.keeps(number, text))
        self._bound = bound
        self._running: dict[int, _Running] = {}
        self._begun: set[int] = set()
        self._died = Counter[int]()
        self._tokens = itertools.count(time.time_ns())
        self._changed = asyncio.Condition()
        self._stops = False
        self._longest = 0.0

    async def begin(self, batch: int, items: Sequence[str], since: Position | None) -> Begun:
        """Begin a batch, or begin it again after its worker died.

        Args:
            batch: its number.
            items: of its images; what an earlier try added of them is removed.
            since: the position of the worker's copy.
        """
        async with self._changed:
            if self._running.pop(batch, None) is not None:
                self._died[batch] += 1
            while not (self._stops or self._has_room()):
                try:
                    await asyncio.wait_for(self._changed.wait(), 1.0)
                except TimeoutError:
                    self._give_up_lost()
            if self._stops:
                return Begun(None)
            self._remove(items)
            found, token = self._memory.changes(since), next(self._tokens)
            self._running[batch] = _Running(token, found.position, time.monotonic())
            self._begun.add(batch)
            return Begun(token, found, self._died[batch])

    async def commit(self, batch: int, token: int, position: Position, rows: Batch) -> int | None:
        """Add the samples of a batch.

        Args:
            batch, token: of the try that drew them.
            position: of the worker's copy while it drew.
            rows: the samples.

        Returns:
            The staleness; None where it is too large, or another worker has begun the batch, so
            that nothing was added.
        """
        async with self._changed:
            running = self._running.get(batch)
            if running is None:  # begun with the actor before this one, or given up
                allowed = position.source != self._memory.changes(position).position.source
            else:
                allowed = running.token == token
            staleness = self._memory.commits(position)
            if not allowed or staleness > self._bound:
                if allowed:
                    self._end(batch)
                return None
            self._memory.commit(rows)
            self._end(batch)
            return staleness

    async def give_up(self, batch: int, items: Sequence[str]) -> None:
        """Forget a batch that failed, and what was added of it."""
        async with self._changed:
            self._remove(items)
            self._end(batch)

    async def stop(self) -> list[int]:
        """Let no further batch begin; returns the numbers of those that have begun."""
        async with self._changed:
            self._stops = True
            self._changed.notify_all()
            return list(self._begun)

    async def ready(self) -> None:
        """Return once the memory is open."""

    def _has_room(self) -> bool:
        """Whether one batch more keeps all that are drawn within the bound."""
        positions = [own.position for own in self._running.values()]
        oldest = min(positions, key=lambda position: position.next, default=None)
        largest = 0 if oldest is None else self._memory.commits(oldest)
        return largest + len(positions) <= self._bound

    def _end(self, batch: int) -> None:
        running = self._running.pop(batch, None)
        if running is not None:
            self._longest = max(self._longest, time.monotonic() - running.since)
        self._changed.notify_all()

    def _give_up_lost(self) -> None:
        """Wait no longer for batches whose workers seem dead; they would be refused now."""
        now, patience = time.monotonic(), max(_LEAST_PATIENCE, _PATIENCE * self._longest)
        for batch, running in list(self._running.items()):
            if now - running.since > patience:
                del self._running[batch]

    def _remove(self, items: Sequence[str]) -> None:
        there = [item for item in items if item in self._memory]
        if there:
            self._memory.remove(items=there)
