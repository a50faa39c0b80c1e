"""`unalike run`: a file of prompts in, an output folder out, over as many days as it takes."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unalike.pipelines.sources import find, pipeline_class
from unalike.runs.folder import free_folder
from unalike.runs.job import Job, Outcome, draw
from unalike.runs.merging import merge
from unalike.runs.parts import part_memory, part_name, part_of
from unalike.runs.plan import planned_rows
from unalike.runs.progress import Progress
from unalike.runs.rows import PromptRow, read_rows, require_arguments
from unalike.runs.run_settings import MOST_IMAGES, RunSettings
from unalike.runs.watching import Told


def run(
    settings: RunSettings, progress: Progress | None = None, told: Told | None = None
) -> Outcome:
    """Draw the images of a file of prompts into an output folder, and go on where an earlier call
    with the same settings ended, whatever ended it.

    After a kill at any moment the same call ends with the same images: none is missing, none is
    there twice, and one worker draws what it would have drawn without the kill. Images that fail
    are tried again at the end, one by one, and by the next call; they do not stop the run. When
    the memory of the device is too small for a batch, it is drawn in halves.

    Args:
        settings: what to do. With `devices` or `ray` several workers draw, and a call that goes on
            may have others than the one before it. With `devices` the script that calls this has to
            be one that Python can import: `if __name__ == "__main__":` before the call.
        progress: told the share of the work that is done.
        told: told a row for each image once it is on disk.

    Returns:
        The folder and what is in it; `finished` is false after Ctrl-C or SIGTERM.

    Raises:
        OptionError: for rows of the file (all of them at once, with their lines), a setting, model
            or method that is not allowed.
        StoreError, UnsupportedError: as `generate`; also when a disk is full.
    """
    rows = read_rows(
        settings.source,
        stdin=sys.stdin.buffer if str(settings.source) == "-" else None,
        wildcards=settings.wildcards,
        num=settings.num,
        seed=settings.seed,
        option="source",
    )
    host = pipeline_class(find(settings.model, settings.model_config))
    parameters = inspect.signature(host.__call__).parameters
    require_arguments(rows, parameters, host.__name__, option="source")
    out = settings.out or free_folder([settings.source.stem], Path.cwd())
    plan = planned_rows(rows, settings.num, settings.seed, MOST_IMAGES)
    numbers = settings.numbered_shard
    job = Job(
        settings=settings,
        plan=plan,
        out=out,
        command=_command(settings),
        resume=not settings.overwrite,
        keep_going=True,
        rows=_rows_record(settings, rows, len(plan)),
        shard_size=settings.shard_size,
        **_workers(settings),
    )
    if settings.merge:
        return merge(job, progress)
    return draw(job if numbers is None else _part(job, settings, *numbers), progress, told)


def _part(job: Job, settings: RunSettings, number: int, count: int) -> Job:
    """The job of one part of the run."""
    plan = part_of(job.plan, settings.batch_size, number, count)
    if settings.memory is not None:
        memory = part_memory(job.out, number, count, settings.memory)
        settings = replace(settings, memory=memory)
    out = job.out / part_name(number, count)
    return replace(job, settings=settings, plan=plan, out=out)


def _workers(settings: RunSettings) -> dict[str, Any]:
    """What makes other workers than one in this process, for `Job`; empty for that one."""
    if settings.devices:
        from unalike.runs.devices import Devices, require_devices

        require_devices(settings.devices)
        return {"workers": Devices.open}
    if settings.ray is not None:
        from unalike.runs.ray.workers import RayWorkers

        return {"workers": RayWorkers.open}
    return {}


def _command(settings: RunSettings) -> list[Any]:
    """The words of the command before the options that it shares with `generate`."""
    source = "-" if str(settings.source) == "-" else settings.source.resolve()
    words: list[Any] = ["run", source]
    words += ["--wildcards", settings.wildcards.resolve()] if settings.wildcards else []
    words += ["--shard-size", settings.shard_size] if settings.shard_size else []
    words += ["--devices", ",".join(settings.devices)] if settings.devices else []
    for name in ("ray", "ray_workers", "ray_gpus", "shard"):
        value = getattr(settings, name)
        words += [f"--{name.replace('_', '-')}", value] if value is not None else []
    return words


def _rows_record(settings: RunSettings, rows: Sequence[PromptRow], images: int) -> dict[str, Any]:
    text = "\n".join(repr((r.prompt, r.id, r.n, r.seed, dict(r.arguments))) for r in rows)
    return {
        "name": settings.source.name,
        "count": len(rows),
        "images": images,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
