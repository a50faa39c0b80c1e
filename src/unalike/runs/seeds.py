"""`unalike seeds`: prompts in, seeds of unlike images out."""

from __future__ import annotations

from typing import Any

from unalike.attach import choose
from unalike.memory import Memory
from unalike.runs.pipeline import RunPipeline
from unalike.runs.progress import Progress, silent
from unalike.runs.record import pipeline_record
from unalike.runs.seeds_settings import SeedsSettings
from unalike.runs.shield.embedding import embeddings_of
from unalike.shields import Shield


def seeds(settings: SeedsSettings, progress: Progress | None = None) -> dict[str, Any]:
    """Choose seeds for the prompts of the settings.

    Args:
        settings: what to do.
        progress: told the share of the candidates that are done.

    Returns:
        The choice (see `unalike.Choice.to_dict`) with the model, the steps and the guidance scale,
        ready for JSON.

    Raises:
        OptionError: for a setting, model or class that is not allowed.
        StoreError: for a damaged memory, shield or model, or those of another model.
        UnsupportedError: for a pipeline whose images cannot be told apart early.
        ShieldError: where too few candidates stay out of the shield.
    """
    memory = Memory.open(settings.memory) if settings.memory else None
    shields = [Shield.open(folder) for folder in settings.shields]
    embeds = embeddings_of(shields, settings.shield_space or (), device=settings.device)
    pipeline = RunPipeline.open(settings, settings.prompts)
    told = progress or silent

    def tell(done: int, total: int) -> None:
        told(done / total, f"{done} of {total} seeds")

    choice = choose(
        pipeline.pipe,
        num=settings.num,
        candidates=settings.candidates,
        seed=settings.seed,
        memory=memory,
        shield=shields or None,
        embed=embeds or None,
        step=settings.step,
        objective=settings.objective,
        quality=settings.quality,
        weight=settings.weight,
        batch_size=settings.batch_size,
        progress=tell,
        **pipeline.arguments(settings.prompts),
    )
    model = {"model": settings.model, "guidance_scale": pipeline.guidance_scale}
    model |= pipeline_record(settings, pipeline)
    return {**model, **choice.to_dict()}
