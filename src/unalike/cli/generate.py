"""`unalike generate`: draw images into an output folder."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unalike.cli.command import flag, method_names
from unalike.cli.progress import progress_bar
from unalike.pipelines.catalogue import MODELS
from unalike.pipelines.schedulers import SCHEDULERS
from unalike.runs.settings import GenerateSettings

if TYPE_CHECKING:
    from unalike.runs.generate import Outcome


_flag = partial(flag, GenerateSettings)


def generate(
    prompts: Annotated[
        list[str] | None, _flag("prompts", argument=True, metavar="PROMPT", show_default=False)
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT", help="A PROMPT too, also one that begins with a dash; can be repeated."
        ),
    ] = None,
    num: Annotated[int, _flag("num", "--num", "-n")] = GenerateSettings.num,
    model: Annotated[
        str, _flag("model", autocompletion=lambda: list(MODELS))
    ] = GenerateSettings.model,
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
    method: Annotated[list[str] | None, _flag("method", autocompletion=method_names)] = None,
    strength: Annotated[float | None, _flag("strength")] = None,
    set_: Annotated[list[str] | None, _flag("set", "--set", metavar="METHOD.OPTION=VALUE")] = None,
    memory: Annotated[Path | None, _flag("memory", metavar="FILE")] = None,
    shield: Annotated[list[str] | None, _flag("shield", metavar="DIR")] = None,
    shield_space: Annotated[list[str] | None, _flag("shield_space", metavar="FEATURES")] = None,
    on_violation: Annotated[
        str, _flag("on_violation", metavar="POLICY")
    ] = GenerateSettings.on_violation,
    attempts: Annotated[int, _flag("attempts")] = GenerateSettings.attempts,
    candidates: Annotated[int | None, _flag("candidates")] = None,
    compare: Annotated[bool, _flag("compare", "--compare/--no-compare")] = False,
    seed: Annotated[int, _flag("seed")] = GenerateSettings.seed,
    steps: Annotated[int | None, _flag("steps")] = None,
    guidance_scale: Annotated[float | None, _flag("guidance_scale")] = None,
    batch_size: Annotated[int, _flag("batch_size")] = GenerateSettings.batch_size,
    out: Annotated[Path | None, _flag("out", metavar="DIR")] = None,
    overwrite: Annotated[bool, _flag("overwrite", "--overwrite")] = False,
    device: Annotated[str, _flag("device")] = GenerateSettings.device,
    dtype: Annotated[str, _flag("dtype")] = GenerateSettings.dtype,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document and nothing else.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bar, and only the folder as output.")
    ] = False,
) -> None:
    """Draw images that differ from each other, from earlier ones and from a protected set.

    The output folder gets images/, run.json, samples.parquet, grid.png and report.html. Ctrl-C
    keeps the images that are finished, leaves the memory file as it was, and ends with exit code
    130. Images that are inside the protected set and could not be brought out are not written; the
    others are, and the exit code is 1.
    """
    settings = GenerateSettings(
        prompts=(*(prompts or ()), *(prompt or ())),
        num=num,
        model=model,
        model_config=model_config,
        scheduler=scheduler,
        lora=tuple(lora or ()),
        negative_prompt=negative_prompt,
        height=height,
        width=width,
        image=image,
        image_strength=image_strength,
        method=tuple(method or ()),
        strength=strength,
        set=tuple(set_ or ()),
        memory=memory,
        shield=tuple(shield or ()),
        shield_space=tuple(shield_space or ()),
        on_violation=on_violation,
        attempts=attempts,
        candidates=candidates,
        compare=compare,
        seed=seed,
        steps=steps,
        guidance_scale=guidance_scale,
        batch_size=batch_size,
        out=out,
        overwrite=overwrite,
        device=device,
        dtype=dtype,
    )
    with progress_bar("drawing", hidden=quiet or as_json) as progress:
        from unalike.pipelines.loading import quieten_hosts
        from unalike.runs.generate import generate as draw

        quieten_hosts(downloads=quiet or as_json)
        outcome = draw(settings, progress)
    if as_json:
        typer.echo(json.dumps(outcome.to_dict(), indent=2, ensure_ascii=False))
    elif quiet:
        typer.echo(outcome.folder)
    else:
        typer.echo(_summary(outcome))
    if not outcome.finished:
        there = len(outcome.samples) - outcome.refused
        typer.echo(
            f"unalike: interrupted; {there} of {settings.total} images are in {outcome.folder}",
            err=True,
        )
        raise typer.Exit(130)
    if outcome.refused:
        typer.echo(f"unalike: {_refused(outcome)}", err=True)
        raise typer.Exit(1)


def _summary(outcome: Outcome) -> str:
    from unalike.runs.summary import diversity_sentence, protection_sentences

    record, folder, there = outcome.record, outcome.folder, len(outcome.samples) - outcome.refused
    lines = list(protection_sentences(record))
    if there:
        diversity = diversity_sentence(record)
        lines += [diversity] if diversity else []
        if record["compare"] and record["candidates"] == 1:
            lines.append(
                f"{record['images']['plainly_changed']} of {there} images look different from the "
                "unguided image of the same seed"
            )
        lines += [f"images   {folder / 'images'}", f"grid     {folder / 'grid.png'}"]
    if outcome.samples:
        lines.append(f"report   {folder / 'report.html'}")
        lines.append(f"again    {record['command']}")
    return "\n".join(lines)


def _refused(outcome: Outcome) -> str:
    sets = [outcome.record["shield"], *outcome.record["further_shields"]]
    count, shield = outcome.refused, " or ".join(repr(own["name"]) for own in sets)
    what = "1 image is" if count == 1 else f"{count} images are"
    return (
        f"{what} inside the protected set {shield} and not written; samples.parquet says which. "
        "Draw from another --seed, ask for something else, or give the set a smaller radius"
    )
