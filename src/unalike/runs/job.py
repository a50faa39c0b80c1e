"""A run from its plan to its folder: what `unalike generate` and `unalike run` have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from unalike.errors import StoreError, named
from unalike.memory import Memory
from unalike.memory.place import Found, absolute, look, require_local
from unalike.runs.committing import Committer
from unalike.runs.engine import Alone, Engine, Pool
from unalike.runs.finishing import finish
from unalike.runs.folder import LOCK, OWN_MEMORY, RunFolder, require_writable
from unalike.runs.identity import identity, run_settings
from unalike.runs.ledger import Failure, Ledger
from unalike.runs.output import Files, Output, Shards
from unalike.runs.plan import batches, with_items
from unalike.runs.progress import Progress, silent
from unalike.runs.record import first_record
from unalike.runs.samples import Planned, Sample, returned
from unalike.runs.settings import AGAIN, SUFFIXES, DrawSettings
from unalike.runs.stopping import Stop, stop_on_signals
from unalike.runs.summary import certified_of
from unalike.runs.watching import Told, Watch
from unalike.runs.worker import Worker, remembered_as


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
        pool: makes other workers than one in this process, from the settings, the memory's file,
            the run, and what it carried.
    """

    settings: DrawSettings
    plan: Sequence[Planned]
    out: Path
    command: Sequence[Any]
    resume: bool = False
    keep_going: bool = False
    rows: Mapping[str, Any] | None = None
    shard_size: int | None = None
    pool: Callable[[Worker, Path, str], Pool] | None = None


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
        with _only_one(folder):
            run = _begun(job, folder, Worker.open(settings, prompts, memory))
            return run.draw(progress or silent, told)
    except BaseException:
        folder.abandon()
        raise


def _begun(job: Job, folder: RunFolder, worker: Worker) -> _Run:
    """The run, with the ledger of an earlier process where there is one."""
    plan = with_items(job.plan, identity(worker))
    settings = run_settings(worker, plan)
    folder.remove_partial_files()
    if job.resume and folder.ledger.exists():
        ledger = Ledger.open(folder.ledger)
        ledger.require_same(settings)
        return _Run(job, folder, ledger, worker, plan, ledger.get("record"))
    record = first_record(
        job.settings,
        worker.pipeline,
        worker.methods,
        plan,
        command=job.command,
        memory=_memory_record(worker.guided.memory, job.settings),
        shields=_shield_records(worker),
        rows=job.rows,
    )
    folder.start(record)
    return _Run(job, folder, Ledger.create(folder.ledger, settings, record), worker, plan, record)


class _Run:
    """A run whose folder, model and ledger are ready."""

    def __init__(
        self,
        job: Job,
        folder: RunFolder,
        ledger: Ledger,
        worker: Worker,
        plan: Sequence[Planned],
        record: Mapping[str, Any],
    ) -> None:
        self.job, self.folder, self.ledger = job, folder, ledger
        self.worker, self.plan, self.record = worker, plan, record

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
            ledger.put(seconds=seconds)
            record, samples = finish(
                self.folder,
                ledger,
                self.record,
                self.worker.about,
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
            for batch in batches(self.plan, self.job.settings.batch_size)
            if (rest := [planned for planned in batch if planned.item not in done])
        ]
        if not missing:
            return True
        place = self.job.settings.memory or self.folder.path / OWN_MEMORY
        memory = self.worker.guided.memory
        if memory is None or memory.path is None:
            memory = Memory.open(place, create=True)
        with memory:
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
                work=self.worker.pipeline.steps * twice,
                name=self.folder.path.name,
            )
            return self._draw_with(memory, place, missing, stop, watch)

    def _draw_with(
        self,
        memory: Memory,
        place: Path,
        missing: Sequence[Sequence[Planned]],
        stop: Stop,
        watch: Watch,
    ) -> bool:
        job, ledger = self.job, self.ledger
        self.worker.remember(memory, ledger.run, ledger.carried)
        pool: Pool = (
            Alone(self.worker, watch.steps_done)
            if job.pool is None
            else job.pool(self.worker, place, ledger.run)
        )
        output = self._output()
        committer = Committer(
            output, ledger, memory if job.settings.memory else None, watch.committed, watch.failed
        )
        engine = Engine(pool, committer, stop, keep_going=job.keep_going)
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
        suffix, about = SUFFIXES[settings.format], self.worker.about
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


@contextmanager
def _only_one(folder: RunFolder) -> Iterator[None]:
    """Within the block no other process can draw into the folder.

    Raises:
        StoreError: where one does.
    """
    lock = FileLock(folder.path / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise StoreError(
            named(
                "another process draws into {!r}; wait for it, or choose another folder, as in "
                "{out=DIR}",
                str(folder.path),
            )
        ) from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _shield_records(worker: Worker) -> list[dict[str, Any]]:
    """The entries of the record, one for each protected set."""
    settings = worker.settings
    return [
        {
            "name": folder.name,
            "certified": certified_of(settings.on_violation, embedded=shield.embedding is not None),
            **shield.summary(),
            "on_violation": settings.on_violation,
            "attempts": settings.attempts if settings.on_violation in AGAIN else None,
        }
        for shield, folder in zip(worker.shields, settings.shields, strict=True)
    ]


def _memory_record(memory: Memory | None, settings: DrawSettings) -> dict[str, Any] | None:
    if settings.memory is None:
        return None
    held = 0 if memory is None else len(memory)
    fingerprint = None if memory is None else memory.fingerprint()
    return {"name": settings.memory.name, "fingerprint": fingerprint, "samples_before": held}
