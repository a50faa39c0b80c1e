"""`run.json`: what a run was asked to do and everything needed to do it again.

Only the command that repeats the run holds paths of the machine.
"""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import unalike
from unalike.guidance.method import Method
from unalike.guidance.methods import described
from unalike.pipelines.sources import Source
from unalike.runs.libraries import library_versions
from unalike.runs.pipeline_settings import PipelineSettings
from unalike.runs.samples import Planned, Sample, returned, usual_steps
from unalike.runs.scoring import BASIS, Diversity
from unalike.runs.settings import AGAIN, FORMATS, DrawSettings, assigned, build_methods

if TYPE_CHECKING:
    from unalike.runs.description import Description
    from unalike.runs.pipeline import RunPipeline


def first_record(
    settings: DrawSettings,
    found: Description,
    plan: Sequence[Planned],
    *,
    memory: Mapping[str, Any] | None,
    rows: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The record of a run that has not drawn anything yet.

    Args:
        settings: of the run.
        found: what a worker says of itself.
        plan: all images.
        memory: what is known of the memory's file.
        rows: the file that the prompts come from; None for prompts of the command line.
    """
    seeds = [settings.seed + i for i in range(settings.num)]
    return {
        "version": unalike.__version__,
        "command": found.command,
        "finished": False,
        "model": dict(found.model),
        "prompts": list(dict.fromkeys(planned.prompt for planned in plan)),
        "rows": dict(rows) if rows else None,
        "num": settings.num,
        "seed": settings.seed,
        "seeds": None if found.candidates > 1 or rows else seeds,
        "candidates": found.candidates,
        "steps": found.steps,
        "guidance_scale": found.guidance_scale,
        **found.pipeline,
        "batch_size": settings.batch_size,
        "methods": [dict(method) for method in found.methods],
        "memory": dict(memory) if memory else None,
        "shield": dict(found.shields[0]) if found.shields else None,
        "further_shields": [dict(shield) for shield in found.shields[1:]],
        "compare": settings.compare,
        "format": settings.format,
        "quality": settings.quality,
        "images": {"planned": len(plan), "finished": 0},
        "libraries": library_versions(),
    }


def pipeline_record(settings: PipelineSettings, pipeline: RunPipeline) -> dict[str, Any]:
    """What was asked of the pipeline; null where nothing was."""
    start = settings.image
    return {
        "scheduler": settings.scheduler,
        "lora": [file_record(lora.file, scale=lora.scale) for lora in pipeline.loras],
        "negative_prompt": settings.negative_prompt,
        "height": settings.height,
        "width": settings.width,
        "image": file_record(start) if start else None,
        "image_strength": pipeline.options.get("strength"),
    }


def last_record(
    record: Mapping[str, Any],
    samples: Sequence[Sample],
    scores: Mapping[str, Diversity],
    unguided_scores: Mapping[str, Diversity],
    *,
    finished: bool,
    seconds: float,
    failed: int = 0,
) -> dict[str, Any]:
    """The same record with what came out."""
    images = returned(samples)
    return {
        **record,
        "finished": finished,
        "seconds": round(seconds, 2),
        "images": {
            **record["images"],
            "finished": len(images),
            "failed": failed,
            "plainly_changed": sum(s.plainly_changed for s in images)
            if record["compare"]
            else None,
            **(_shielded(samples) if record["shield"] else {}),
        },
        "scores": {
            "basis": BASIS,
            "guided": score_summary(scores),
            "unguided": score_summary(unguided_scores) if unguided_scores else None,
        },
        "guidance": [
            _guidance_summary(name, images)
            for name in dict.fromkeys(m for s in images for m in s.report.corrections)
        ],
    }


def _shielded(samples: Sequence[Sample]) -> dict[str, int | None]:
    """Count the images that are inside the protected set, moved out, drawn again and refused.

    `decoded_inside` counts finished images, encoded again; None where that could not be measured.
    """
    kept = [[c.decoded for c in s.report.certificates] for s in samples if not s.report.refused]
    known = all(decoded is not None for own in kept for decoded in own)
    inside = [any(d is not None and d.inside for d in own) for own in kept]
    return {
        "decoded_inside": sum(inside) if known else None,
        "moved": sum(any(c.moved for c in s.report.certificates) for s in samples),
        "restarted": sum(s.report.restarts > 0 for s in samples),
        "drawn_again": sum(s.report.attempts > 1 for s in samples),
        "refused": sum(s.report.refused for s in samples),
    }


def score_summary(scores: Mapping[str, Diversity]) -> dict[str, Any]:
    """The scores of each prompt and their means, ready for JSON; the means are None where nothing
    was scored.
    """
    values = list(scores.values())
    return {
        "vendi": _mean([s.vendi for s in values]),
        "rke": _mean([s.rke for s in values]),
        "prompts": {prompt: s.to_dict() for prompt, s in scores.items()},
    }


def command_line(
    command: Sequence[Any],
    settings: DrawSettings,
    pipeline: RunPipeline,
    methods: Sequence[Method],
) -> str:
    """The command that repeats the run: everything spelled out but the defaults of methods.

    What is drawn comes first, so that options can be appended; files and folders have their whole
    paths, so that it can be run from any folder.

    Args:
        command: the words before the options, such as "generate" and the prompts.
        settings, pipeline, methods: of the run.
    """
    words: list[Any] = ["unalike", *command]
    words += ["--num", settings.num]
    words += ["--model", _model_word(settings.model, pipeline.source)]
    words += _pipeline_words(settings, pipeline)
    words += ["--seed", settings.seed]
    words += ["--steps", pipeline.steps]
    words += ["--batch-size", settings.batch_size]
    if pipeline.guidance_scale is not None:
        words += ["--guidance-scale", pipeline.guidance_scale]
    for method in methods:
        words += ["--method", method.name]
    plain = build_methods(DrawSettings(model=settings.model, method=tuple(m.name for m in methods)))
    for method, default in zip(methods, plain, strict=True):
        usual = described(default)["options"]
        for name, value in described(method)["options"].items():
            if value != usual[name]:
                words += ["--set", f"{method.name}.{name}={assigned(value)}"]
    words += ["--memory", settings.memory.resolve()] if settings.memory else []
    for folder in settings.shields:
        words += ["--shield", folder.resolve()]
    for space in settings.shield_space or ():
        words += ["--shield-space", resolved_features(space)]
    words += ["--on-violation", settings.on_violation] if settings.shield else []
    words += (
        ["--attempts", settings.attempts]
        if settings.shield and settings.on_violation in AGAIN
        else []
    )
    words += ["--candidates", settings.candidates] if settings.candidates else []
    words += ["--compare"] if settings.compare else []
    words += ["--format", settings.format] if settings.format != FORMATS[0] else []
    words += ["--quality", settings.quality] if settings.quality else []
    words += ["--dtype", settings.dtype]
    return shlex.join(str(word) for word in words)


def _pipeline_words(settings: PipelineSettings, pipeline: RunPipeline) -> list[Any]:
    words: list[Any] = []
    if settings.model_config is not None:
        config = pipeline.source.config if pipeline.source else None
        words += ["--model-config", _model_word(settings.model_config, config)]
    words += ["--scheduler", settings.scheduler] if settings.scheduler else []
    for lora in pipeline.loras:
        words += ["--lora", f"{lora.file.resolve()}:{lora.scale}"]
    if settings.negative_prompt is not None:
        words += [f"--negative-prompt={settings.negative_prompt}"]
    for name in ("height", "width"):
        words += [f"--{name}", getattr(settings, name)] if getattr(settings, name) else []
    if settings.image is not None:
        words += ["--image", settings.image.resolve()]
        strength = pipeline.options.get("strength")
        words += ["--image-strength", strength] if strength is not None else []
    return words


def _on_disk(source: Source | None) -> bool:
    """Whether a model was given by its folder or file, and not by its name."""
    return source is not None and source.row is None and isinstance(source.place, Path)


def model_name(name: str, source: Source | None) -> str:
    """The name of a model as records have it: of a folder or a file the last part of its path."""
    return Path(name).name if _on_disk(source) else name


def _model_word(name: str, source: Source | None) -> Path | str:
    return Path(name).resolve() if _on_disk(source) else name


def prompt_words(prompts: Sequence[str]) -> list[str]:
    """The prompts as arguments; as options where one begins with a dash."""
    if any(prompt.startswith("-") for prompt in prompts):
        return [f"--prompt={prompt}" for prompt in prompts]
    return list(prompts)


def resolved_features(space: str) -> str:
    """The spelling of features, with the whole path of a folder in it."""
    kind, colon, source = space.partition(":")
    return f"{kind}:{Path(source).resolve()}" if colon and Path(source).is_dir() else space


def file_record(path: Path, **facts: Any) -> dict[str, Any]:
    """Name and SHA-256 of a file as it is now, so that a repeated run can tell whether it begins
    from the same one.
    """
    with path.open("rb") as f:
        return {"name": path.name, "sha256": hashlib.file_digest(f, "sha256").hexdigest(), **facts}


def _guidance_summary(name: str, samples: Sequence[Sample]) -> dict[str, Any]:
    """Mean size of a method's correction at each step, as two shares, and over all steps; and the
    share of steps in which it acted.
    """
    own, usual = [s for s in samples if name in s.report.corrections], usual_steps(samples, name)
    return {
        "method": name,
        "share_of_predicted_image": _means([s.report.corrections_of_x0[name] for s in usual]),
        "share_of_denoiser_step": _means([s.report.corrections[name] for s in usual]),
        "size": _mean([_mean(s.report.corrections_of_x0[name]) or 0.0 for s in own]),
        "active": _mean([s.report.active[name] for s in own]),
    }


def _means(rows: Sequence[Sequence[float]]) -> list[float | None]:
    return [_mean(column) for column in zip(*rows, strict=True)]


def _mean(values: Sequence[float]) -> float | None:
    mean = sum(values) / len(values) if values else math.nan
    return mean if math.isfinite(mean) else None
