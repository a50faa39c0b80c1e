"""Draws and judges the samples of a trial, on several cores at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from benchmarks.pareto.tasks import TASKS, Task, Unit, open_pipeline
from benchmarks.pareto.trials import Trial
from unalike.attach import guide
from unalike.guidance.method import Method
from unalike.guidance.methods import build
from unalike.memory import Memory
from unalike.metrics import frechet_distance, in_batch_similarity, manifolds
from unalike.pipelines.loading import quieten_hosts
from unalike.scores import vendi

J = TypeVar("J")
R = TypeVar("R")
NEIGHBOURS = 3
MEMORY_BATCH = 8
_PROMPTS, _CALIBRATION = (
    4,
    8,
)  # validation prompts, and samples of each, that a radius is measured on


@dataclass(frozen=True)
class Job:
    """A trial on some units: what one process does at a time."""

    task: str
    trial: Trial
    units: tuple[Unit, ...]
    samples: int


@dataclass(frozen=True)
class Measured:
    """What came of a job: a row for each unit, and what only all samples together have."""

    units: list[dict[str, Any]]
    pooled: dict[str, Any]


@contextmanager
def workers() -> Iterator[ProcessPoolExecutor]:
    """A process for each core, with one thread each, so that times compare and no core waits. They
    end with the block, also on Ctrl-C.
    """
    pool = ProcessPoolExecutor(
        os.cpu_count(), mp_context=multiprocessing.get_context("spawn"), initializer=_prepare_worker
    )
    try:
        yield pool
    except BaseException:
        for worker in multiprocessing.active_children():
            worker.terminate()  # a job takes minutes
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def finished(
    pool: ProcessPoolExecutor, do: Callable[[J], R], jobs: Sequence[J]
) -> Iterator[tuple[J, R]]:
    """Each job with what came of it, in the order in which they are finished."""
    waiting = {pool.submit(do, job): job for job in jobs}
    for done in as_completed(waiting):
        yield waiting[done], done.result()


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits
    quieten_hosts(downloads=True)
    torch.set_num_threads(1)


def measure(job: Job) -> Measured:
    """Draw the samples of a job and judge them."""
    task, pipe = TASKS[job.task], _pipeline(job.task)
    methods = _ready(task, job.trial)
    rows, generated, real = [], [], []
    for unit in job.units:
        images = draw(task, pipe, job.trial, methods, unit, job.samples)
        features, truth = task.features(pipe, images), task.real(pipe, unit.prompt)
        rows.append(
            {"unit": str(unit), **asdict(task.count(images, unit.prompt)), **near(features, truth)}
        )
        generated.append(features)
        real.append(truth)
    return Measured(rows, pooled(task, pipe, generated, real))


def draw(
    task: Task, pipe: Any, trial: Trial, methods: Sequence[Method], unit: Unit, samples: int
) -> Tensor:
    """The samples of a unit, all at once or, with memory, in batches that know the earlier ones."""
    memory = Memory() if trial.memory else None
    call = guide(pipe, *methods, memory=memory) if methods else pipe
    return task.draw(
        call,
        unit,
        samples,
        guidance_scale=trial.guidance_scale,
        batch=MEMORY_BATCH if trial.memory else samples,
    )


def ready_methods(trial: Trial, unguided: Callable[[], tuple[Tensor, Tensor]]) -> list[Method]:
    """The methods of a trial, with what they measure on unguided samples measured.

    Args:
        trial: of any model.
        unguided: returns final latents of unguided samples, and the numbers of their prompts; only
            called where a method needs them.
    """
    methods = [build(name, **options) for name, options in trial.methods.items()]
    if not any(method.needs_calibration for method in methods):
        return methods
    latents, groups = unguided()
    return [
        method.calibrated(latents, groups) if method.needs_calibration else method
        for method in methods
    ]


def _ready(task: Task, trial: Trial) -> list[Method]:
    """The methods of a trial, measured once, on validation prompts."""
    return ready_methods(trial, lambda: _unguided(task.name, trial.guidance_scale))


def near(features: Tensor, real: Tensor) -> dict[str, float]:
    """How near the samples of a unit come to the right images of its prompt, and how unlike each
    other they are.
    """
    sets = asdict(manifolds(real, features, k=min(NEIGHBOURS, len(real) - 1, len(features) - 1)))
    return {f"manifold_{name}": value for name, value in sets.items()} | {
        "vendi": vendi(features - real.mean(dim=0)),
        "similarity": in_batch_similarity(features - real.mean(dim=0)),
    }


def pooled(
    task: Task, pipe: Any, generated: Sequence[Tensor], real: Sequence[Tensor]
) -> dict[str, Any]:
    """The Fréchet distance of all samples to as many right images of each prompt.

    It has no interval: drawn anew, the same samples come more than once, which makes every such
    distance larger.
    """
    basis = task.principal(pipe)
    wanted = min(len(part) for part in generated)
    right = [(part @ basis)[torch.arange(wanted) % len(part)] for part in real]
    return {
        "frechet": frechet_distance(
            torch.cat(right), torch.cat([part @ basis for part in generated])
        )
    }


def clock(job: Job) -> float:
    """Seconds that an image of the first unit of a job takes."""
    task, pipe = TASKS[job.task], _pipeline(job.task)
    methods, unit = _ready(task, job.trial), job.units[0]
    draw(task, pipe, job.trial, methods, unit, 2)  # the first steps after another model are slower
    begun = time.perf_counter()
    draw(task, pipe, job.trial, methods, unit, job.samples)
    return (time.perf_counter() - begun) / job.samples


@cache
def _pipeline(task: str) -> Any:
    return open_pipeline(task)


@cache
def _unguided(name: str, guidance_scale: float) -> tuple[Tensor, Tensor]:
    """Final latents of unguided samples of the first validation prompts, and the numbers of their
    prompts.
    """
    task, pipe, memory = TASKS[name], _pipeline(name), Memory()
    for unit in task.validation[:_PROMPTS]:
        task.draw(
            guide(pipe, memory=memory),
            unit,
            _CALIBRATION,
            guidance_scale=guidance_scale,
            batch=_CALIBRATION,
        )
    (space,) = memory.spaces()
    view = memory.view(space)
    assert view is not None  # these samples are in it
    return view.latents, torch.arange(_PROMPTS).repeat_interleave(_CALIBRATION)


@dataclass(frozen=True)
class Search:
    """How long a trial takes to find most right images of a prompt."""

    task: str
    trial: Trial
    prompt: str
    limit: int


def search(job: Search) -> dict[str, Any]:
    """Draw samples eight at a time until nine tenths of the right images are found, or the limit
    is reached.

    Returns:
        `possible`, how many right images there are; `needed`, how many samples found nine tenths
        of them, or None; `found`, how many were found in the end.
    """
    task, pipe = TASKS[job.task], _pipeline(job.task)
    methods, memory = _ready(task, job.trial), Memory() if job.trial.memory else None
    call = guide(pipe, *methods, memory=memory) if methods else pipe
    wanted = len(task.real(pipe, job.prompt))
    seen: set[int] = set()
    for begin in range(0, job.limit, MEMORY_BATCH):
        images = task.draw(
            call,
            Unit(job.prompt, begin),
            MEMORY_BATCH,
            guidance_scale=job.trial.guidance_scale,
            batch=MEMORY_BATCH,
        )
        for i, picture in enumerate(task.shown(images, job.prompt).tolist()):
            seen |= {picture} - {-1}
            if len(seen) >= 0.9 * wanted:
                return {
                    "prompt": job.prompt,
                    "possible": wanted,
                    "needed": begin + i + 1,
                    "found": len(seen),
                }
    return {"prompt": job.prompt, "possible": wanted, "needed": None, "found": len(seen)}
