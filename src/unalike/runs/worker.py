"""A worker of a run: draws batches with one pipeline and returns the images as bytes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from unalike.attach import guide
from unalike.attach.diffusers.pipeline import GuidedPipeline
from unalike.attach.run.report import ImageReport, Nearest
from unalike.errors import RefusedError
from unalike.guidance.method import Method
from unalike.memory import Memory
from unalike.runs.about import About
from unalike.runs.folder import image_path
from unalike.runs.imagefile import encode_image
from unalike.runs.ledger import Entry
from unalike.runs.pipeline import RunPipeline, StepDone
from unalike.runs.samples import Planned, Sample, StoredImage
from unalike.runs.scoring import change, pixel_features
from unalike.runs.settings import DrawSettings, build_methods
from unalike.runs.shield.embedding import embeddings_of
from unalike.shields import Shield

THUMBNAIL = 96


@dataclass(frozen=True)
class Drawn:
    """A batch that is drawn and not yet on disk.

    Attributes:
        entries: for the ledger.
        files: path in the output folder → contents.
        thumbnails: item → WebP, for the memory.
        carried: what the guidance stored for the next batch.
        about: what the whole batch has in common: methods as they were used, and the latent space.
    """

    entries: list[Entry]
    files: dict[str, bytes]
    thumbnails: dict[str, bytes] = field(default_factory=dict)
    carried: bytes = b""
    about: dict[str, Any] = field(default_factory=dict)


class Worker:
    """Draws batches of a run with one pipeline; made by `open`.

    Attributes:
        settings: of the run.
        pipeline: that draws.
        guided: the same with its methods, its protected sets and its memory.
        run: identifies the run in the memory; empty while nothing is drawn.
        about: what the files of all images say.
    """

    def __init__(
        self,
        settings: DrawSettings,
        pipeline: RunPipeline,
        guided: GuidedPipeline,
        methods: Sequence[Method],
        shields: Sequence[Shield],
    ) -> None:
        self.settings = settings
        self.pipeline = pipeline
        self.guided = guided
        self.methods = tuple(methods)
        self.shields = tuple(shields)
        self.run = ""
        self.about = About.of(settings, pipeline, methods)

    @classmethod
    def open(cls, settings: DrawSettings, prompts: Sequence[str], memory: Memory | None) -> Self:
        """Load the model and attach the guidance.

        Args:
            settings: of the run.
            prompts: that will be drawn, for models that know classes.
            memory: to begin with; `remember` sets it later.

        Raises:
            OptionError: for a setting, model or method that is not allowed.
            StoreError: for a damaged memory, shield or model, or those of another model.
            UnsupportedError: for a pipeline or scheduler that cannot be guided.
        """
        methods = build_methods(settings)
        shields = [Shield.open(folder) for folder in settings.shields]
        embeds = embeddings_of(shields, settings.shield_space or (), device=settings.device)
        pipeline = RunPipeline.open(settings, prompts)
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
        return cls(settings, pipeline, guided, methods, shields)

    def remember(self, memory: Memory, run: str, carried: bytes | None) -> None:
        """Use a memory from now on, and go on with what an earlier process carried."""
        self.guided.memory, self.run = memory, run
        if carried:
            self.guided.carried = carried

    def draw(self, batch: Sequence[Planned], step_done: StepDone = lambda: None) -> Drawn:
        """Draw a batch. Its samples are in the memory afterwards, marked with run and items.

        Args:
            batch: images with the same arguments.
            step_done: called after each step of the scheduler.

        Raises:
            UnalikeError: for a fault of the guidance; others are those of the pipeline. The memory
                has none of the samples then.
        """
        try:
            return self._draw(batch, step_done)
        except Exception:
            self._forget(batch)
            raise

    def _forget(self, batch: Sequence[Planned]) -> None:
        """Remove what the memory has of a batch that failed, and free what it used of a GPU."""
        memory, items = self.guided.memory, {remembered_as(self.run, p.item) for p in batch}
        if memory is not None and items.intersection(memory.items(self.run)):
            memory.remove(items=items)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _draw(self, batch: Sequence[Planned], step_done: StepDone) -> Drawn:
        plain: Sequence[Image.Image | None] = [None] * len(batch)
        if self.settings.compare:
            plain = self.pipeline.draw(self.pipeline.pipe, batch, step_done)
        memory = self.guided.memory
        if any(planned.group is not None for planned in batch):
            self.guided.groups = _groups(batch)
        items = [remembered_as(self.run, planned.item) for planned in batch]
        with memory.marked(self.run, items) if memory is not None else nullcontext():
            images = self.pipeline.draw(self._with_refused, batch, step_done)
        report = self.guided.report
        assert report is not None  # of the call before
        drawn = Drawn([], {}, about={"methods_as_used": report.methods, "space": report.space})
        for place, planned in enumerate(batch):
            self._add(drawn, planned, images[place], plain[place], place, batch)
        return replace(drawn, carried=self.guided.carried)

    def _with_refused(self, **arguments: Any) -> Any:
        """Draw with the guided pipeline; images that it refuses are blank. Its report says which
        they are.
        """
        try:
            return self.guided(**arguments)
        except RefusedError as refusal:
            return refusal.output

    def _add(
        self,
        drawn: Drawn,
        planned: Planned,
        image: Image.Image,
        plain: Image.Image | None,
        place: int,
        batch: Sequence[Planned],
    ) -> None:
        """Add an image of the batch to what is drawn."""
        report_of_call = self.guided.report
        assert report_of_call is not None
        report, chosen = report_of_call.images[place], report_of_call.candidates > 1
        features, latent, stored, difference = None, None, None, None
        twin = None
        if plain is not None:
            twin = self._stored(drawn, planned, plain, guided=False)
        if chosen and report.seed is not None:
            planned = replace(planned, seed=report.seed)
        if not report.refused:
            again = planned if report.seed is None else replace(planned, seed=report.seed)
            stored, features = self._stored(drawn, again, image), pixel_features(image)
            difference = None if plain is None or chosen else change(image, plain)
            latent = self._latent(place)
            if self.settings.memory:
                name = remembered_as(self.run, planned.item)
                drawn.thumbnails[name] = _thumbnail(image)
        sample = Sample(planned, stored, _in_run(report, batch), twin, difference)
        unguided = None if plain is None else pixel_features(plain)
        drawn.entries.append(Entry(sample, features, unguided, latent))

    def _latent(self, place: int) -> Tensor | None:
        latents = self.guided.latents
        return None if self.guided.shield is None or latents is None else latents[place].clone()

    def _stored(
        self, drawn: Drawn, planned: Planned, image: Image.Image, *, guided: bool = True
    ) -> StoredImage:
        """The image as bytes among the files of the batch."""
        path = image_path(planned.index, self.settings.format, guided=guided)
        info = self.about.info(planned, image.size, guided=guided)
        data = encode_image(image, info, format=self.settings.format, quality=self.settings.quality)
        drawn.files[path] = data
        return StoredImage(path, hashlib.sha256(data).hexdigest(), image.size)


def remembered_as(run: str, item: str) -> str:
    """The name of an image in the memory. Another run may draw the same item beside other images,
    which is another image.
    """
    return f"{run}-{item}"


def _groups(batch: Sequence[Planned]) -> list[int]:
    names = [p.prompt if p.group is None else f"group {p.group}" for p in batch]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return [numbers[name] for name in names]


def _in_run(report: ImageReport, batch: Sequence[Planned]) -> ImageReport:
    """The report with the numbers of the run in place of those of the batch."""
    nearest = report.nearest
    if nearest is not None and nearest.source == "batch":
        nearest = Nearest(batch[nearest.index].index, "run", nearest.distance)
    return replace(report, index=batch[report.index].index, nearest=nearest)


def _thumbnail(image: Image.Image) -> bytes:
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()
