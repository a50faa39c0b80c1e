"""What Ray runs on each worker: it opens a model and draws batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unalike.errors import StoreError
from unalike.runs.description import Description
from unalike.runs.identity import image_settings
from unalike.runs.ray.memory import SharedMemory, StaleError
from unalike.runs.run_settings import RunSettings
from unalike.runs.samples import Planned
from unalike.runs.worker import Drawn, Worker, remembered_as

_STALE_TRIES = 5


@dataclass(frozen=True)
class Orders:
    """What all workers of a run are told.

    Args:
        settings: of the run.
        prompts: that will be drawn.
        run: marks the samples in the memory.
        carried: what the guidance stored in an earlier process.
        expected: what the images of each worker have to depend on.
        shards: the actors of the memory.
    """

    settings: RunSettings
    prompts: tuple[str, ...]
    run: str
    carried: bytes | None
    expected: Mapping[str, Any]
    shards: Sequence[Any]


@dataclass(frozen=True)
class Result:
    """What came of a batch: what was drawn, an error, or None where the run stops."""

    outcome: Drawn | Exception | None


class Drawer:
    """Draws the rows of a Ray dataset, each of which is a batch. An error becomes a row too.

    Args:
        orders: what to draw with.
    """

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._failure: Exception | None = None
        self._memory = SharedMemory(orders.shards)
        try:
            self._worker = opened(orders.settings, orders.prompts)
            self._require_same()
            self._worker.remember(self._memory, orders.run, orders.carried)
        except Exception as error:
            self._failure = error

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The number of the batch, and its result."""
        number, batch = int(row["number"]), list(row["batch"])
        outcome: Drawn | Exception | None
        try:
            if self._failure is not None:
                raise self._failure
            outcome = self._drawn(number, int(row["shard"]), batch)
        except Exception as error:
            outcome = error
        return {"number": number, "result": Result(outcome)}

    def _drawn(self, number: int, shard: int, batch: list[Planned]) -> Drawn | None:
        items = [remembered_as(self._orders.run, planned.item) for planned in batch]
        for tried in range(1, _STALE_TRIES + 1):
            if not self._memory.begin(number, shard, items):
                return None
            try:
                drawn = self._worker.draw(batch)
                own = {"staleness": self._memory.staleness, "drawn_again": tried - 1}
                return replace(drawn, about={**drawn.about, **own})
            except StaleError:
                if tried == _STALE_TRIES:
                    self._memory.give_up(items)
                    raise
            except Exception:
                self._memory.give_up(items)
                raise
        raise AssertionError

    def _require_same(self) -> None:
        own, expected = image_settings(self._worker), self._orders.expected
        different = [name for name in own if own[name] != expected.get(name)]
        if different:
            import ray

            raise StoreError(
                f"the worker on {ray.util.get_node_ip_address()} would draw other images, since "
                f"it has another {' and '.join(different)}; give all machines the same files"
            )


def opened(settings: RunSettings, prompts: Sequence[str]) -> Worker:
    """A worker on what Ray gave this process."""
    from unalike.pipelines.loading import quieten_hosts

    quieten_hosts(downloads=True)
    return Worker.open(settings, prompts, None)


def described(
    settings: RunSettings,
    prompts: Sequence[str],
    first: Sequence[Planned],
    command: Sequence[Any],
) -> Description | Exception:
    """The description of a worker, or the error where it cannot be opened."""
    try:
        return Description.of(opened(settings, prompts), first, command)
    except Exception as error:
        return error
