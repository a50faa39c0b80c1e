"""A worker on each of several devices of this machine, in processes of their own.

The processes share the memory's file, so that each batch differs from what the others finished
before it began. A process that dies is started again and draws its batch once more.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

from unalike.errors import OptionError, WorkerError, named
from unalike.memory import Memory
from unalike.runs.description import Description
from unalike.runs.engine import Outcome, StepsDone
from unalike.runs.plan import batches
from unalike.runs.process import Member, Process
from unalike.runs.run_settings import RunSettings
from unalike.runs.samples import Planned
from unalike.runs.stopping import Stop
from unalike.runs.worker import Drawn, remembered_as

TRIES = 3
"""How often a batch is drawn whose worker dies."""


class Devices:
    """Workers in processes, one a device; see `unalike.runs.engine.Workers`.

    Args:
        processes: that were started.
    """

    def __init__(self, processes: Sequence[Process]) -> None:
        self._processes = list(processes)
        self._threads = ThreadPoolExecutor(len(processes), thread_name_prefix="device")
        self._free: SimpleQueue[Process] = SimpleQueue()
        self._told: StepsDone = lambda batch, steps: None
        self._died = 0
        self._closed = False
        self._closing = threading.Lock()

    @classmethod
    def open(
        cls, settings: RunSettings, prompts: Sequence[str], memory: Memory | None = None
    ) -> Self:
        """Start the processes, which load the model at the same time.

        Args:
            settings: of the run, with `devices`.
            prompts: that will be drawn.
            memory: that of this process, which has no use for it yet.

        Raises:
            OptionError: for a device that the machine does not have.
        """
        devices = settings.devices
        require_devices(devices)
        threads = max(1, (os.cpu_count() or 1) // len(devices))
        workers = cls(
            [
                Process(Member(replace(settings, device=name, devices=()), tuple(prompts), threads))
                for name in devices
            ]
        )
        try:
            for process in workers._processes:
                process.start()
        except BaseException:
            workers.close()
            raise
        return workers

    def describe(self, first: Sequence[Planned], command: Sequence[Any]) -> Description:
        """Describe the worker of the first device.

        Raises:
            OptionError, StoreError, UnsupportedError: as `Worker.open`.
            WorkerError: where its process died.
        """
        return self._processes[0].call("describe", list(first), list(command))

    def batches(self, plan: Sequence[Planned], size: int) -> list[list[Planned]]:
        """The images that are drawn together."""
        return batches(plan, size)

    def begin(
        self, folder: Path, memory: Memory, run: str, carried: bytes | None, told: StepsDone
    ) -> None:
        """Have all workers open the memory.

        Raises:
            OptionError: for devices that would not draw alike.
        """
        assert memory.path is not None
        self._memory, self._run, self._told = memory, run, told
        self._arguments = memory.path, folder, run, carried
        settings = list(self._threads.map(self._begun, self._processes))
        for process, own in zip(self._processes, settings, strict=True):
            different = [name for name in own if own[name] != settings[0][name]]
            if different:
                raise OptionError(
                    named(
                        "{devices} has {} and {}, which would differ in {}; give {dtype='float32'},"
                        " or devices of one kind",
                        self._processes[0].device,
                        process.device,
                        ", ".join(different),
                    )
                )
            self._free.put(process)

    def _begun(self, process: Process) -> dict[str, Any]:
        return process.call("begin", *self._arguments)

    def draw(self, batches: Iterable[list[Planned]], stop: Stop) -> Iterator[Outcome]:
        """Draw a batch on each device at a time."""
        waiting, running = iter(batches), dict[Future[Drawn], list[Planned]]()
        while True:
            while len(running) < len(self._processes):
                batch = next(waiting, None)
                if batch is None:
                    break
                running[self._threads.submit(self._drawn, batch)] = batch
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                batch, error = running.pop(future), future.exception()
                if error is not None and not isinstance(error, Exception):
                    raise error
                yield batch, future.result() if error is None else error

    def _drawn(self, batch: Sequence[Planned]) -> Drawn:
        """A batch that a free device drew; the worker is started again where it dies."""
        process, steps = self._free.get(), 0

        def told() -> None:
            nonlocal steps
            steps += 1
            self._told(batch, steps)

        try:
            for tried in range(1, TRIES + 1):
                try:
                    drawn: Drawn = process.call("draw", list(batch), told=told)
                    return replace(drawn, about={**drawn.about, "workers": self.summary})
                except WorkerError as error:
                    self._died += 1
                    died, steps = error, 0
                    self._restart(process, batch)
                    if tried == TRIES or self._closed:
                        raise WorkerError(f"{died}; it died {TRIES} times at this batch") from died
            raise AssertionError
        finally:
            self._free.put(process)

    def _restart(self, process: Process, batch: Sequence[Planned]) -> None:
        """Start a process again, and remove what it added to the memory of a batch."""
        with self._closing:
            if self._closed:
                return
            process.end()
            process.start()
        items = {remembered_as(self._run, planned.item) for planned in batch}
        self._memory.refresh()
        if items.intersection(self._memory.items(self._run)):
            self._memory.remove(items=items)
        self._begun(process)

    @property
    def summary(self) -> dict[str, Any]:
        """What the record says of the workers."""
        devices = [process.device for process in self._processes]
        return {"kind": "devices", "devices": devices, "died": self._died}

    def close(self) -> None:
        """End the processes; those that still draw are killed."""
        with self._closing:
            self._closed = True
            for process in self._processes:
                process.end()
        self._threads.shutdown()


def require_devices(devices: Sequence[str]) -> None:
    """Refuse devices that this machine does not have. None of them is used for it.

    Raises:
        OptionError: naming the first.
    """
    import torch

    for name in devices:
        try:
            device = torch.device(name)
        except RuntimeError:
            device = None
        there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": torch.mps.device_count()}
        count = 0 if device is None else there.get(device.type, 0)
        if device is None or (device.index or 0) >= count:
            kinds = [f"{kind}:{i}" for kind in ("cuda", "mps") for i in range(there[kind])]
            raise OptionError(
                named(
                    "{devices} has {!r}, which this machine or torch does not have; allowed: {}",
                    name,
                    ", ".join([*kinds, "cpu"]),
                )
            )
