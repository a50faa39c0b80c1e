"""`unalike seeds`: print seeds of unlike images."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from unalike.cli.command import flag
from unalike.cli.progress import progress_bar
from unalike.pipelines.catalogue import MODELS
from unalike.pipelines.schedulers import SCHEDULERS
from unalike.runs.seeds_settings import SeedsSettings

_flag = partial(flag, SeedsSettings)


def seeds(
    prompts: Annotated[
        list[str] | None, _flag("prompts", argument=True, metavar="PROMPT", show_default=False)
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT", help="A PROMPT too, also one that begins with a dash; can be repeated."
        ),
    ] = None,
    num: Annotated[int, _flag("num", "--num", "-n")] = SeedsSettings.num,
    candidates: Annotated[int, _flag("candidates")] = SeedsSettings.candidates,
    model: Annotated[
        str, _flag("model", autocompletion=lambda: list(MODELS))
    ] = SeedsSettings.model,
    model_config: Annotated[str | None, _flag("model_config", metavar="MODEL")] = None,
    scheduler: Annotated[
        str | None, _flag("scheduler", metavar="NAME", autocompletion=lambda: list(SCHEDULERS))
    ] = None,
    lora: Annotated[list[str] | None, _flag("lora", metavar="FILE[:SCALE]")] = None,
    negative_prompt: Annotated[str | None, _flag("negative_prompt")] = None,
    height: Annotated[int | None, _flag("height")] = None,
    width: Annotated[int | None, _flag("width")] = None,
    image: Annotated[Path | None, _flag("image", metavar="FILE")] = None,
    image_strength: Annotated[float | None, _flag("image_strength")] = None,
    memory: Annotated[Path | None, _flag("memory", metavar="FILE")] = None,
    shield: Annotated[list[str] | None, _flag("shield", metavar="DIR")] = None,
    shield_space: Annotated[list[str] | None, _flag("shield_space", metavar="FEATURES")] = None,
    seed: Annotated[int, _flag("seed")] = SeedsSettings.seed,
    steps: Annotated[int | None, _flag("steps")] = None,
    guidance_scale: Annotated[float | None, _flag("guidance_scale")] = None,
    step: Annotated[str, _flag("step", metavar="INTEGER", parser=str)] = str(SeedsSettings.step),
    objective: Annotated[str, _flag("objective")] = SeedsSettings.objective,
    quality: Annotated[str | None, _flag("quality")] = None,
    weight: Annotated[float, _flag("weight")] = SeedsSettings.weight,
    batch_size: Annotated[int, _flag("batch_size")] = SeedsSettings.batch_size,
    device: Annotated[str, _flag("device")] = SeedsSettings.device,
    dtype: Annotated[str, _flag("dtype")] = SeedsSettings.dtype,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document and nothing else.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bar, and only the seeds as output.")
    ] = False,
) -> None:
    """Print seeds whose images are unlike each other, to draw with any tool.

    Each candidate is evaluated by the model once or twice; no image is drawn. A line for each
    prompt.
    """
    settings = SeedsSettings(
        prompts=(*(prompts or ()), *(prompt or ())),
        num=num,
        candidates=candidates,
        model=model,
        model_config=model_config,
        scheduler=scheduler,
        lora=tuple(lora or ()),
        negative_prompt=negative_prompt,
        height=height,
        width=width,
        image=image,
        image_strength=image_strength,
        memory=memory,
        shield=tuple(shield or ()),
        shield_space=tuple(shield_space or ()),
        seed=seed,
        steps=steps,
        guidance_scale=guidance_scale,
        step=int(step) if step.isdecimal() and len(step) <= 9 else step,
        objective=objective,
        quality=quality,
        weight=weight,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
    )
    with progress_bar("choosing", hidden=quiet or as_json) as progress:
        from unalike.pipelines.loading import quieten_hosts
        from unalike.runs.seeds import seeds as chosen

        quieten_hosts(downloads=quiet or as_json)
        found = chosen(settings, progress)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for row in found["prompts"]:
        numbers = " ".join(map(str, row["seeds"]))
        typer.echo(
            numbers if quiet or len(found["prompts"]) == 1 else f"{row['prompt']}: {numbers}"
        )
