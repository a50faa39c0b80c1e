"""Workers on a Ray cluster: a dataset of batches, drawn by a pool of actors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from unalike.errors import WorkerError
from unalike.memory import Memory
from unalike.runs.description import Description
from unalike.runs.engine import Outcome, StepsDone
from unalike.runs.ray.cluster import Room, connected
from unalike.runs.ray.drawer import Drawer, Orders, described
from unalike.runs.ray.shard import MemoryShard
from unalike.runs.ray.sharding import Sharding
from unalike.runs.run_settings import RunSettings
from unalike.runs.samples import Planned
from unalike.runs.stopping import Stop
from unalike.runs.worker import Drawn

BOUND = 4
"""The largest staleness of a batch, in batches for each worker."""
_WORKERS_OF_A_SHARD, _MOST_SHARDS = 8, 16


class RayWorkers:
    """Workers that Ray places, feeds and starts again; see `unalike.runs.engine.Workers`.

    Args:
        ray: the package, connected to a cluster.
        settings: of the run.
        prompts: that will be drawn.
        room: of the workers.
    """

    def __init__(self, ray: Any, settings: RunSettings, prompts: Sequence[str], room: Room) -> None:
        self._ray, self._settings, self._room = ray, settings, room
        self._prompts = tuple(prompts)
        self._open = ExitStack()
        self._sharding = Sharding()
        self._shards: list[Any] = []
        self._staleness: list[int] = []
        self._again = 0

    @classmethod
    def open(
        cls, settings: RunSettings, prompts: Sequence[str], memory: Memory | None = None
    ) -> Self:
        """Connect to the cluster of the settings; no model is loaded yet.

        Args:
            settings: of the run, with `ray`.
            prompts: that will be drawn.
            memory: that of this process, which has no use for it yet.

        Raises:
            OptionError: where there is no such cluster, or it has too little room.
            UnsupportedError: where Ray is not installed.
        """
        assert settings.ray is not None
        with ExitStack() as stack:
            ray = stack.enter_context(connected(settings.ray))
            room = Room.of(settings, ray.cluster_resources())
            workers = cls(
                ray, replace(settings, ray=None, ray_workers=None, ray_gpus=None), prompts, room
            )
            workers._open = stack.pop_all()
        return workers

    def describe(self, first: Sequence[Planned], command: Sequence[Any]) -> Description:
        """Describe a worker, which Ray starts for it.

        Raises:
            OptionError, StoreError, UnsupportedError: as `Worker.open`.
        """
        task = self._ray.remote(max_calls=1, **self._room.options)(described)
        settings, prompts = self._settings, self._prompts
        found = self._got(task.remote(settings, prompts, list(first), list(command)))
        if isinstance(found, Exception):
            raise found
        self._found: Description = found
        return found

    def batches(self, plan: Sequence[Planned], size: int) -> list[list[Planned]]:
        """The images that are drawn together: those of one shard of the memory."""
        self._sharding = Sharding.of_plan(plan, shards_for(self._room.workers))
        return self._sharding.batches(plan, size)

    def begin(
        self, folder: Path, memory: Memory, run: str, carried: bytes | None, told: StepsDone
    ) -> None:
        """Start the actors of the memory, on this machine, which has its file."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(
            self._ray.get_runtime_context().get_node_id(), soft=False
        )
        actor = self._ray.remote(MemoryShard).options(
            num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here
        )
        assert memory.path is not None
        self._shards = [
            actor.remote(memory.path, folder.resolve(), self._sharding, number, self._bound)
            for number in range(self._sharding.count)
        ]
        self._got([shard.ready.remote() for shard in self._shards])
        expected = self._found.image_settings
        self._orders = Orders(
            self._settings, self._prompts, run, carried, expected, tuple(self._shards)
        )

    def draw(self, batches: Iterable[list[Planned]], stop: Stop) -> Iterator[Outcome]:
        """Draw all batches by one Ray dataset, and yield them as they are drawn."""
        given = {batch[0].index: batch for batch in batches}
        begun: set[int] | None = None
        received: set[int] = set()
        for number, outcome in self._results(given):
            if stop.asked and begun is None:
                numbers = self._got([shard.stop.remote() for shard in self._shards])
                begun = {n for own in numbers for n in own} & given.keys()
            received.add(number)
            if isinstance(outcome, Drawn):
                yield given[number], self._counted(outcome)
            elif outcome is not None:
                yield given[number], outcome
            if begun is not None and begun <= received:
                return

    def _results(
        self, given: Mapping[int, list[Planned]]
    ) -> Iterator[tuple[int, Drawn | Exception | None]]:
        data, room = self._ray.data, self._room
        context = data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        rows = [
            {"number": number, "shard": self._sharding.of(batch[0].prompt), "batch": batch}
            for number, batch in given.items()
        ]
        # a block a batch, so that Ray draws no more than one again where a worker dies
        drawn = data.from_items(rows, override_num_blocks=len(rows)).map(
            Drawer,
            fn_constructor_args=(self._orders,),
            compute=data.ActorPoolStrategy(
                size=min(room.workers, len(rows)), max_tasks_in_flight_per_actor=2
            ),
            **room.options,
        )
        found = iter(drawn.iter_batches(batch_size=1, prefetch_batches=0, batch_format="numpy"))
        while True:
            with self._telling():
                row = next(found, None)
            if row is None:
                return
            yield int(row["number"][0]), row["result"][0].outcome

    def _counted(self, drawn: Drawn) -> Drawn:
        """The batch, with what the record says of the workers so far."""
        about = dict(drawn.about)
        self._staleness.append(about.pop("staleness"))
        self._again += about.pop("drawn_again")
        workers = {
            "kind": "ray",
            "workers": self._room.workers,
            "gpus": self._room.gpus,
            "shards": self._sharding.count,
            "staleness": {
                "bound": self._bound,
                "largest": max(self._staleness),
                "mean": round(sum(self._staleness) / len(self._staleness), 3),
                "batches": len(self._staleness),
                "drawn_again": self._again,
            },
        }
        return replace(drawn, about={**about, "workers": workers})

    @property
    def _bound(self) -> int:
        return BOUND * self._room.workers

    def _got(self, found: Any) -> Any:
        """The values of what Ray promised."""
        with self._telling():
            return self._ray.get(found)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except self._ray.exceptions.RayError as error:
            last = [type(error).__name__, *str(error).strip().splitlines()][-1]
            raise WorkerError(
                f"Ray ended the run: {last}; the same command goes on with it"
            ) from error

    def close(self) -> None:
        """End all that runs for this run, and leave the cluster."""
        for shard in self._shards:
            self._ray.kill(shard)
        self._shards = []
        self._open.close()


def shards_for(workers: int) -> int:
    """How many shards the memory of so many workers has, if there are as many prompts.

    Example:
        >>> [shards_for(workers) for workers in (1, 8, 64, 256)]
        [1, 1, 8, 16]
    """
    return min(_MOST_SHARDS, -(-workers // _WORKERS_OF_A_SHARD))
