"""A run from its plan to its folder: what `unalike generate` and `unalike run` have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unalike.memory import Memory
from unalike.memory.place import Found, absolute, look, require_local
from unalike.runs.alone import Alone
from unalike.runs.committing import Committer
from unalike.runs.description import Description
from unalike.runs.engine import Engine, Workers
from unalike.runs.fence import remove_lock, require_no_writers
from unalike.runs.finishing import finish
from unalike.runs.folder import OWN_MEMORY, RunFolder, only_one, require_writable
from unalike.runs.identity import identity, run_settings
from unalike.runs.ledger import Failure, Ledger
from unalike.runs.output import Files, Output, Shards
from unalike.runs.plan import batches, with_items
from unalike.runs.progress import Progress, silent
from unalike.runs.record import first_record
from unalike.runs.samples import Planned, Sample, returned
from unalike.runs.settings import SUFFIXES, DrawSettings
from unalike.runs.stopping import Stop, stop_on_signals
from unalike.runs.watching import Told, Watch
from unalike.runs.worker import remembered_as


@dataclass(frozen=True)
class Outcome:
    """The results of a run.

    Attributes:
        folder: the output folder.
        record: what its `run.json` holds.
        samples: the finished images, refused ones included.
        failures: the images that could not be drawn.
    """

    folder: Path
    record: Mapping[str, Any]
    samples: Sequence[Sample] = field(repr=False)
    failures: Sequence[Failure] = ()

    @property
    def finished(self) -> bool:
        """Whether all images were drawn or tried; false after Ctrl-C."""
        return self.record["finished"]

    @property
    def refused(self) -> int:
        """The number of images that were refused, because they are inside the protected set."""
        return len(self.samples) - len(returned(self.samples))

    def to_dict(self) -> dict[str, Any]:
        """The record with the folder and the paths of its files, ready for JSON."""
        files = [s.image.path for s in self.samples if s.image]
        return {"out": str(self.folder), "files": files, **self.record}


@dataclass(frozen=True)
class Job:
    """What a run is asked for.

    Args:
        settings: how images are drawn.
        plan: all images, without their items.
        out: the output folder.
        command: words before the options of the command that repeats it.
        resume: go on with a run that is in the folder.
        keep_going: try images that fail again at the end, and finish without them.
        rows: what the record says of the file of the prompts.
        shard_size: bytes of a WebDataset shard; None for a file an image.
        workers: makes those that draw, from the settings, the prompts and the memory.
    """

    settings: DrawSettings
    plan: Sequence[Planned]
    out: Path
    command: Sequence[Any]
    resume: bool = False
    keep_going: bool = False
    rows: Mapping[str, Any] | None = None
    shard_size: int | None = None
    workers: Callable[[DrawSettings, Sequence[str], Memory | None], Workers] = Alone.open


def draw(job: Job, progress: Progress | None = None, told: Told | None = None) -> Outcome:
    """Draw what the output folder lacks, and write its tables and pages.

    Raises:
        OptionError, StoreError, UnsupportedError, NumericsError: see `generate`.
    """
    settings = job.settings
    memory = _open_memory(settings)
    prompts = list(dict.fromkeys(planned.prompt for planned in job.plan))
    folder = RunFolder.claim(job.out, overwrite=settings.overwrite, resume=job.resume)
    try:
        with only_one(folder.path):
            with closing(job.workers(settings, prompts, memory)) as workers:
                run = _begun(job, folder, workers, memory)
                outcome = run.draw(progress or silent, told)
            remove_lock(folder.path)
            return outcome
    except BaseException:
        folder.abandon()
        raise


def _begun(job: Job, folder: RunFolder, workers: Workers, memory: Memory | None) -> _Run:
    """The run, with the ledger of an earlier process where there is one."""
    size = job.settings.batch_size
    first = batches(job.plan[:size], size)[0]
    found = workers.describe(first, job.command)
    plan = with_items(job.plan, identity(found.image_settings))
    settings = run_settings(job.settings, found.image_settings, plan)
    folder.remove_partial_files()
    if job.resume and folder.ledger.exists():
        ledger = Ledger.open(folder.ledger)
        ledger.require_same(settings)
        return _Run(job, folder, ledger, workers, found, memory, plan, ledger.get("record"))
    record = first_record(
        job.settings, found, plan, memory=_memory_record(memory, job.settings), rows=job.rows
    )
    folder.start(record)
    ledger = Ledger.create(folder.ledger, settings, record, asdict(found.about.shared))
    return _Run(job, folder, ledger, workers, found, memory, plan, record)


@dataclass(frozen=True)
class _Run:
    """A run whose folder, workers and ledger are ready."""

    job: Job
    folder: RunFolder
    ledger: Ledger
    workers: Workers
    found: Description
    memory: Memory | None
    plan: Sequence[Planned]
    record: Mapping[str, Any]

    def draw(self, progress: Progress, told: Told | None) -> Outcome:
        """Draw what is missing, and finish the folder."""
        ledger, job = self.ledger, self.job
        spent, began = float(ledger.get("seconds") or 0.0), time.perf_counter()
        finished = False
        try:
            with stop_on_signals(lambda sentence: progress(0.0, sentence)) as stop:
                finished = self._draw(stop, progress, told)
        except KeyboardInterrupt:
            pass
        finally:
            seconds = spent + time.perf_counter() - began
            ledger.put(seconds=seconds, finished=finished)
            record, samples = finish(
                self.folder,
                ledger,
                self.record,
                self.found.about,
                finished=finished,
                seconds=seconds,
            )
            failures = ledger.failures()
            ledger.close()
            if finished and not failures and job.settings.memory is None:
                self.folder.remove_own_memory()
        return Outcome(self.folder.path, record, samples, failures)

    def _draw(self, stop: Stop, progress: Progress, told: Told | None) -> bool:
        done = self.ledger.done()
        missing = [
            rest
            for batch in self.workers.batches(self.plan, self.job.settings.batch_size)
            if (rest := [planned for planned in batch if planned.item not in done])
        ]
        if not missing:
            return True
        require_no_writers(self.folder.path)
        memory = self.memory
        if memory is None or memory.path is None:
            place = self.job.settings.memory or self.folder.path / OWN_MEMORY
            memory = Memory.open(place, create=True)
        with memory:
            memory.refresh()
            known = {remembered_as(self.ledger.run, item) for item in done}
            left = set(memory.items(self.ledger.run)) - known
            if left:  # of a batch that was not committed
                memory.remove(items=left)
            twice = 2 if self.job.settings.compare else 1
            watch = Watch(
                progress,
                told,
                total=len(self.plan),
                before=len(done),
                work=self.found.steps * twice,
                name=self.folder.path.name,
            )
            return self._draw_with(memory, missing, stop, watch)

    def _draw_with(
        self,
        memory: Memory,
        missing: Sequence[Sequence[Planned]],
        stop: Stop,
        watch: Watch,
    ) -> bool:
        job, ledger = self.job, self.ledger
        path, run, carried = self.folder.path, ledger.run, ledger.carried
        self.workers.begin(path, memory, run, carried, watch.steps_done)
        output = self._output()
        committer = Committer(
            output, ledger, memory if job.settings.memory else None, watch.committed, watch.failed
        )
        engine = Engine(self.workers, committer, stop, keep_going=job.keep_going)
        finished = False
        try:
            finished = engine.draw_all(missing)
        finally:
            output.close(finished=finished)
        return finished

    def _output(self) -> Output:
        settings = self.job.settings
        if self.job.shard_size is None:
            return Files(self.folder)
        suffix, about = SUFFIXES[settings.format], self.found.about
        state = self.ledger.get("output")
        return Shards(self.folder.path, about, suffix, self.job.shard_size, state)


def _open_memory(settings: DrawSettings) -> Memory | None:
    """The memory of the settings, if its file is there; that it can be written is made sure of."""
    if settings.memory is None:
        return None
    require_writable("memory", settings.memory)
    place = absolute(settings.memory)
    require_local(place)
    return None if look(place) is Found.NOTHING else Memory.open(place)


def _memory_record(memory: Memory | None, settings: DrawSettings) -> dict[str, Any] | None:
    if settings.memory is None:
        return None
    held = 0 if memory is None else len(memory)
    fingerprint = None if memory is None else memory.fingerprint()
    return {"name": settings.memory.name, "fingerprint": fingerprint, "samples_before": held}
