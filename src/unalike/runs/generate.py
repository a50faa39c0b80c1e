"""`unalike generate`: prompts in, an output folder out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unalike.attach import guide
from unalike.attach.run.report import ImageReport, Nearest
from unalike.attach.spaces import Space
from unalike.errors import RefusedError
from unalike.memory import Memory
from unalike.runs.folder import RunFolder, free_folder, require_writable
from unalike.runs.grid import Band, Cell, Panel, draw_grid
from unalike.runs.page import report_page
from unalike.runs.pipeline import RunPipeline
from unalike.runs.progress import Progress, silent
from unalike.runs.record import file_record, first_record, last_record
from unalike.runs.samples import (
    Planned,
    Sample,
    StoredImage,
    by_prompt,
    planned_images,
    prompt_scores,
    returned,
    sample_table,
)
from unalike.runs.scoring import PLAINLY_CHANGED, change
from unalike.runs.settings import AGAIN, GenerateSettings, build_methods
from unalike.runs.shield.embedding import embeddings_of
from unalike.runs.summary import certified_of
from unalike.shields import Shield


@dataclass(frozen=True)
class Outcome:
    """The results of a run.

    Attributes:
        folder: the output folder.
        record: what its `run.json` holds.
        samples: the finished images, refused ones included.
    """

    folder: Path
    record: Mapping[str, Any]
    samples: Sequence[Sample] = field(repr=False)

    @property
    def finished(self) -> bool:
        """Whether all images were drawn; false after Ctrl-C."""
        return self.record["finished"]

    @property
    def refused(self) -> int:
        """The number of images that were refused, because they are inside the protected set."""
        return len(self.samples) - len(returned(self.samples))

    def to_dict(self) -> dict[str, Any]:
        """The record with the folder and the paths of its files, ready for JSON."""
        files = [s.image.path for s in self.samples if s.image]
        return {"out": str(self.folder), "files": files, **self.record}


def generate(settings: GenerateSettings, progress: Progress | None = None) -> Outcome:
    """Draw the images of the settings into an output folder.

    Images are on disk as soon as their batch is finished. On Ctrl-C, and when a batch fails, the
    tables and pages are written for the images that are finished, and `run.json` says `"finished":
    false`. The memory file is replaced only when all images are there, so that an interrupted run
    can be repeated as it was.

    Args:
        settings: what to do.
        progress: told the share of the work that is done.

    Returns:
        The folder and what is in it; `finished` is false after Ctrl-C.

    Raises:
        OptionError: for a setting, model or method that is not allowed.
        StoreError: for an output folder that is in the way or cannot be written, and for a damaged
            memory, shield or model, or those of another model.
        UnsupportedError: for a pipeline or scheduler that cannot be guided, or a pipeline whose
            images cannot be drawn again or withheld.
        NumericsError: when the model returns NaN or infinity.
    """
    methods = build_methods(settings)
    if settings.memory:
        require_writable("memory", settings.memory)
    memory = (
        Memory.open(settings.memory) if settings.memory and settings.memory.exists() else Memory()
    )
    shields = [Shield.open(folder) for folder in settings.shields]
    embeds = embeddings_of(shields, settings.shield_space or (), device=settings.device)
    folder = RunFolder.claim(
        settings.out or free_folder(settings.prompts, Path.cwd()), overwrite=settings.overwrite
    )
    try:
        pipeline = RunPipeline.open(settings)
        guided = guide(
            pipeline.pipe,
            *methods,
            memory=memory,
            shield=shields or None,
            embed=embeds or None,
            on_violation=settings.on_violation,
            attempts=settings.attempts,
            candidates=settings.candidates,
        )
    except BaseException:
        folder.abandon()
        raise
    record = first_record(
        settings,
        pipeline,
        methods,
        memory=_memory_record(memory, settings),
        shields=_shield_records(shields, settings),
    )
    folder.start(record)
    job = _Job(settings, pipeline, guided, folder, progress or silent)
    started, finished = time.perf_counter(), False
    try:
        job.draw_all()
        if settings.memory:
            memory.save(settings.memory)
        finished = True
    except KeyboardInterrupt:
        pass
    finally:
        if guided.report is not None:
            record["methods_as_used"] = guided.report.methods
        job.write_latents()
        record = _finish(
            folder, record, job.samples, finished=finished, seconds=time.perf_counter() - started
        )
    return Outcome(folder.path, record, job.samples)


class _Job:
    """The drawing itself, batch by batch; `samples` are the images that are on disk."""

    def __init__(
        self,
        settings: GenerateSettings,
        pipeline: RunPipeline,
        guided: Any,
        folder: RunFolder,
        progress: Progress,
    ) -> None:
        self.settings = settings
        self.pipeline = pipeline
        self.guided = guided
        self.folder = folder
        self.samples: list[Sample] = []
        self._latents: list[Tensor] = []
        self._progress = progress
        self._work = settings.total * pipeline.steps * (2 if settings.compare else 1)
        self._done = 0

    def draw_all(self) -> None:
        """Draw all batches. The unguided images of a batch come first, so that whatever is on disk
        is complete.
        """
        plan = planned_images(self.settings.prompts, self.settings.num, self.settings.seed)
        for start in range(0, len(plan), self.settings.batch_size):
            self._draw_batch(plan[start : start + self.settings.batch_size])

    def write_latents(self) -> None:
        """Write the final latents of the images that are there, where there is a protected set."""
        index = [s.planned.index for s in returned(self.samples)]
        if index and self.guided.shield is not None:
            self.folder.write_latents(
                torch.stack(self._latents),
                index,
                str(Space.parse(self.guided.report.space).of_latents),
            )

    def _draw_batch(self, batch: Sequence[Planned]) -> None:
        unguided = (
            self._draw(self.pipeline.pipe, batch) if self.settings.compare else [None] * len(batch)
        )
        images = self._draw(self._with_refused, batch)
        for i, (planned, image, plain, report) in enumerate(
            zip(batch, images, unguided, self.guided.report.images, strict=True)
        ):
            stored_plain, stored, difference = None, None, None
            if plain is not None:
                stored_plain = StoredImage.of(
                    plain, self.folder.write_image(planned.index, plain, guided=False).as_posix()
                )
            chosen = self.guided.report.candidates > 1
            if chosen and report.seed is not None:
                planned = replace(planned, seed=report.seed)
            if not report.refused:
                path = self.folder.write_image(planned.index, image)
                stored = StoredImage.of(
                    image, path.as_posix(), file_record(self.folder.path / path)["sha256"]
                )
                difference = None if plain is None or chosen else change(image, plain)
                if self.guided.shield is not None:
                    self._latents.append(self.guided.latents[i])
            self.samples.append(
                Sample(planned, stored, _in_run(report, batch), stored_plain, difference)
            )

    def _with_refused(self, **arguments: Any) -> Any:
        """Draw with the guided pipeline; images that it refuses are blank.

        Its report says which they are.
        """
        try:
            return self.guided(**arguments)
        except RefusedError as refusal:
            return refusal.output

    def _draw(self, call: Any, batch: Sequence[Planned]) -> list[Any]:
        end = self._done + len(batch) * self.pipeline.steps

        def step_done() -> None:
            # images that are drawn again take more steps
            self._advance_to(min(self._done + len(batch), end), batch)

        images = self.pipeline.draw(call, batch, step_done)
        self._advance_to(end, batch)
        return images

    def _advance_to(self, done: int, batch: Sequence[Planned]) -> None:
        self._done = done
        counted = f"{len(self.samples)} of {self.settings.total} images"
        note = f"{counted} · {batch[-1].prompt} · {self.folder.path.name}"
        self._progress(min(1.0, done / self._work), note)


def _in_run(report: ImageReport, batch: Sequence[Planned]) -> ImageReport:
    """The report with the numbers of the run in place of those of the batch."""
    nearest = report.nearest
    if nearest is not None and nearest.source == "batch":
        nearest = Nearest(batch[nearest.index].index, "run", nearest.distance)
    return replace(report, index=batch[report.index].index, nearest=nearest)


def _shield_records(shields: Sequence[Shield], settings: GenerateSettings) -> list[dict[str, Any]]:
    """The entries of the record, one for each protected set."""
    return [
        {
            "name": folder.name,
            "certified": certified_of(settings.on_violation, embedded=shield.embedding is not None),
            **shield.summary(),
            "on_violation": settings.on_violation,
            "attempts": settings.attempts if settings.on_violation in AGAIN else None,
        }
        for shield, folder in zip(shields, settings.shields, strict=True)
    ]


def _memory_record(memory: Memory, settings: GenerateSettings) -> dict[str, Any] | None:
    if settings.memory is None:
        return None
    if not settings.memory.exists():
        return {"name": settings.memory.name, "sha256": None, "samples_before": 0}
    return file_record(settings.memory, samples_before=len(memory))


def _finish(
    folder: RunFolder,
    record: Mapping[str, Any],
    samples: Sequence[Sample],
    *,
    finished: bool,
    seconds: float,
) -> dict[str, Any]:
    """Write everything about the finished images, and the record last."""
    scores, unguided_scores = prompt_scores(samples), prompt_scores(samples, unguided=True)
    record = last_record(
        record, samples, scores, unguided_scores, finished=finished, seconds=seconds
    )
    if samples:
        shared = {name: record[name] for name in ("steps", "guidance_scale", "batch_size")}
        shared |= {
            "model": record["model"]["name"],
            "methods": ", ".join(m["name"] for m in record["methods"]),
        }
        folder.write_samples(sample_table(samples, scores, shared))
        images = returned(samples)
        if images:
            folder.write_grid(draw_grid(_bands(images), _legend(images)))
        folder.write_report(report_page(record, samples, scores, unguided_scores))
    folder.write_record(record)
    return record


def _bands(samples: Sequence[Sample]) -> list[Band]:
    bands = []
    for prompt, group in by_prompt(samples).items():
        plain = [Cell(s.unguided.thumbnail) for s in group if s.unguided]
        unguided = Panel("without guidance", plain)
        guided = Panel(
            "guided", [Cell(s.image.thumbnail, s.plainly_changed) for s in group if s.image]
        )
        bands.append(Band(prompt, [unguided, guided] if plain else [guided]))
    return bands


def _legend(samples: Sequence[Sample]) -> list[str]:
    if all(s.unguided is None for s in samples):
        return []
    if all(s.change is None for s in samples):
        return ["Without guidance: the seeds in their order. Guided: chosen out of more seeds."]
    changed = sum(s.plainly_changed for s in samples)
    return [
        f"Both sides start from the same noise. Framed: {changed} of {len(samples)} images look "
        "different from the unguided image of the same seed",
        f"(root mean square difference of pixels above {PLAINLY_CHANGED:.0%} of the full range).",
    ]
