"""What a run has to know of its workers' model, without the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from unalike.attach.diffusers.picking import suggested
from unalike.guidance.methods import described
from unalike.runs.about import About
from unalike.runs.identity import image_settings
from unalike.runs.record import command_line, model_name, pipeline_record
from unalike.runs.samples import Planned
from unalike.runs.settings import AGAIN
from unalike.runs.summary import certified_of
from unalike.runs.worker import Worker


@dataclass(frozen=True)
class Description:
    """A worker as the process that writes the run sees it. Plain values, which another process or
    machine can send.

    Attributes:
        image_settings: all that an image depends on besides its row, see `image_settings`.
        model: name, class, scheduler, device and precision.
        pipeline: what was asked of the pipeline, see `pipeline_record`.
        steps: of the scheduler.
        guidance_scale: None where the pipeline has none.
        candidates: seeds that an image is chosen from.
        methods: names and options.
        shields: the entries of the record, one for each protected set.
        command: that repeats the run.
        about: what the files of all images say.
    """

    image_settings: Mapping[str, Any]
    model: Mapping[str, Any]
    pipeline: Mapping[str, Any]
    steps: int
    guidance_scale: float | None
    candidates: int
    methods: tuple[Mapping[str, Any], ...]
    shields: tuple[Mapping[str, Any], ...]
    command: str
    about: About

    @classmethod
    def of(cls, worker: Worker, first: Sequence[Planned], command: Sequence[Any]) -> Self:
        """Describe a worker.

        Args:
            worker: that will draw.
            first: the first batch of the run.
            command: words before the options of the command that repeats it.
        """
        settings, pipeline = worker.settings, worker.pipeline
        arguments = pipeline.arguments([planned.prompt for planned in first])
        remembering = settings.memory is not None
        found = suggested(pipeline.pipe, worker.methods, arguments, remembering=remembering)
        return cls(
            image_settings=image_settings(worker),
            model={"name": model_name(settings.model, pipeline.source), **pipeline.describe()},
            pipeline=pipeline_record(settings, pipeline),
            steps=pipeline.steps,
            guidance_scale=pipeline.guidance_scale,
            candidates=settings.candidates or found.count,
            methods=tuple(described(method) for method in worker.methods),
            shields=tuple(_shield_records(worker)),
            command=command_line(command, settings, pipeline, worker.methods),
            about=worker.about,
        )


def _shield_records(worker: Worker) -> list[dict[str, Any]]:
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
