"""Settings that identify a run in its ledger, and an image among others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unalike.guidance.methods import described
from unalike.runs.ledger import ITEMS
from unalike.runs.record import model_name
from unalike.runs.samples import Planned
from unalike.runs.settings import DrawSettings
from unalike.runs.worker import Worker

_OF_FILES = ("compare", "format", "quality")


def image_settings(worker: Worker) -> dict[str, Any]:
    """All that an image depends on besides its prompt, its seed and its row's arguments."""
    settings, pipeline = worker.settings, worker.pipeline
    told = pipeline.describe()
    shields = [shield.checksum for shield in worker.shields]
    return {
        "model": model_name(settings.model, pipeline.source),
        "weights": pipeline.fingerprint(),
        "pipeline": told["pipeline"],
        "scheduler": told["scheduler"],
        "dtype": told["dtype"],
        "steps": pipeline.steps,
        "guidance_scale": pipeline.guidance_scale,
        "methods": [described(method) for method in worker.methods],
        "candidates": settings.candidates,
        "batch_size": settings.batch_size,
        "shield": shields,
        "on_violation": settings.on_violation if shields else None,
        "attempts": settings.attempts if shields else None,
        "negative_prompt": settings.negative_prompt,
        "options": dict(pipeline.options),
        "image": _digest(settings.image),
    }


def run_settings(
    settings: DrawSettings, images: Mapping[str, Any], plan: Sequence[Planned]
) -> dict[str, Any]:
    """All that a run depends on, by the names of its settings.

    Args:
        settings: of the run.
        images: the `image_settings` of its workers.
        plan: all images, with their items.
    """
    return {
        **images,
        "memory": settings.memory.name if settings.memory else None,
        **{name: getattr(settings, name) for name in _OF_FILES},
        **plan_settings(plan),
    }


def plan_settings(plan: Sequence[Planned]) -> dict[str, Any]:
    """The settings that stand for the images of a run."""
    texts = "\n".join(planned.item for planned in plan)
    checksum = hashlib.sha256(texts.encode()).hexdigest()[:12]
    return {"images": len(plan), ITEMS: checksum}


def whole_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The `image_settings` that are among `run_settings`, and those of the files."""
    others = {*_OF_FILES, "memory", "images", ITEMS}
    images = {name: value for name, value in settings.items() if name not in others}
    return images, {name: settings.get(name) for name in _OF_FILES}


def identity(images: Mapping[str, Any]) -> str:
    """A text that is the same for the same `image_settings`."""
    text = json.dumps(dict(images), ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(file: Path | None) -> str | None:
    if file is None:
        return None
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
