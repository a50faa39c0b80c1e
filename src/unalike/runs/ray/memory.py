"""The memory of a worker on Ray: a copy of the shard that its batch belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unalike.errors import WorkerError
from unalike.memory import Memory
from unalike.memory.changes import Position
from unalike.memory.samples import Batch
from unalike.runs.ray.shard import TRIES, Begun


class StaleError(WorkerError):
    """A batch was drawn beside too many others, and has to be drawn again."""


class SharedMemory(Memory):
    """Copies of the shards that this worker has drawn for, one of which is in use.

    What is compared with stays the same from `begin` on; `add` sends the batch to the shard.

    Args:
        shards: the actors.
    """

    def __init__(self, shards: Sequence[Any]) -> None:
        super().__init__()
        self._shards = shards
        self._copies: dict[int, Memory] = {}
        self._positions: dict[int, Position] = {}
        self._shard = self._batch = self._token = 0
        self.staleness = 0

    def begin(self, batch: int, shard: int, items: Sequence[str]) -> bool:
        """Begin a batch with the newest samples of its shard.

        Args:
            batch: its number.
            shard: the number of its shard.
            items: of its images.

        Returns:
            False where the run stops.

        Raises:
            WorkerError: where the batch has cost too many workers their lives.
        """
        import ray

        since = self._positions.get(shard)
        begun: Begun = ray.get(self._shards[shard].begin.remote(batch, list(items), since))
        if begun.token is None or begun.changes is None:
            return False
        copy = self._copies.setdefault(shard, Memory())
        copy.follow(begun.changes)
        self._positions[shard] = begun.changes.position
        self._banks = copy._banks  # another memory of this class, which nobody else uses
        self._batch, self._shard, self._token = batch, shard, begun.token
        if begun.died >= TRIES:
            self.give_up(items)
            raise WorkerError(f"{begun.died} workers died while they drew these images")
        return True

    def give_up(self, items: Sequence[str]) -> None:
        """Have the shard forget the batch, which failed."""
        import ray

        ray.get(self._shards[self._shard].give_up.remote(self._batch, list(items)))

    def commit(self, batch: Batch) -> None:
        """Have the shard add the samples of the batch."""
        import ray

        commit = self._shards[self._shard].commit
        position = self._positions[self._shard]
        staleness = ray.get(commit.remote(self._batch, self._token, position, batch))
        if staleness is None:
            raise StaleError("too many other batches were added while this one was drawn")
        self.staleness = staleness
