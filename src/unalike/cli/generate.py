"""`unalike generate`: draw images into an output folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unalike.cli.progress import progress_bar
from unalike.runs.settings import GenerateSettings

if TYPE_CHECKING:
    from unalike.runs.generate import Outcome


def generate(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT…", help="What to draw.")],
    num: Annotated[
        int, typer.Option("--num", "-n", help="Images of each prompt.")
    ] = GenerateSettings.num,
    model: Annotated[
        str, typer.Option(help="A name of `unalike models`, a folder, or a hub id.")
    ] = GenerateSettings.model,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="A guidance method of `unalike methods`; repeat it for several. [default: the model's]"
        ),
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="Strength of every chosen method that has one.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="METHOD.OPTION=VALUE",
            help="An option of a method; repeat it for several.",
        ),
    ] = None,
    memory: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Differ from the generations in this file, and add these to it."
        ),
    ] = None,
    shield: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Stay out of the protected set in this folder, made by `unalike shield build`.",
        ),
    ] = None,
    shield_space: Annotated[
        str | None,
        typer.Option(
            metavar="FEATURES",
            help="Where the features of that set are, as in clip:FOLDER. [default: as it says]",
        ),
    ] = None,
    on_violation: Annotated[
        str,
        typer.Option(
            metavar="POLICY",
            help="Images inside it after the last step: move them out, regenerate them, or refuse them.",
        ),
    ] = GenerateSettings.on_violation,
    attempts: Annotated[
        int,
        typer.Option(
            help="How often an image is drawn again at most, with --on-violation regenerate."
        ),
    ] = GenerateSettings.attempts,
    compare: Annotated[
        bool, typer.Option("--compare/--no-compare", help="Draw each image without guidance too.")
    ] = False,
    seed: Annotated[
        int, typer.Option(help="Image i of a prompt starts from the noise of seed + i.")
    ] = GenerateSettings.seed,
    steps: Annotated[
        int | None, typer.Option(help="Sampling steps. [default: the model's]")
    ] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(help="Weight of classifier-free guidance. [default: the model's]"),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(help="Images drawn at a time.")
    ] = GenerateSettings.batch_size,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Output folder. [default: a new one, named after the prompt]"
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the earlier run in the output folder.")
    ] = False,
    device: Annotated[
        str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:1, mps.")
    ] = GenerateSettings.device,
    dtype: Annotated[
        str, typer.Option(help="Precision of the model: auto, float32, float16, bfloat16.")
    ] = GenerateSettings.dtype,
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
        prompts=tuple(prompts),
        num=num,
        model=model,
        method=tuple(method or ()),
        strength=strength,
        set=tuple(set_ or ()),
        memory=memory,
        shield=shield,
        shield_space=shield_space,
        on_violation=on_violation,
        attempts=attempts,
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
    record, folder, there = outcome.record, outcome.folder, len(outcome.samples) - outcome.refused
    lines = []
    if there:
        guided, unguided = record["scores"]["guided"], record["scores"]["unguided"]
        without = f", without guidance {unguided['vendi']:.2f}" if unguided else ""
        lines.append(
            f"Vendi score {guided['vendi']:.2f} of {record['num']} images{without} (mean over prompts, on pixels)"
        )
        if unguided:
            lines.append(
                f"{record['images']['plainly_changed']} of {there} images look different from their unguided twin"
            )
        lines += [f"images   {folder / 'images'}", f"grid     {folder / 'grid.png'}"]
    if record["shield"] and outcome.samples:
        images = record["images"]
        counts = f"{images['moved']} moved out of it, {images['drawn_again']} drawn again, {images['refused']} refused"
        lines.insert(
            0,
            f"Protected set of {record['shield']['size']}: {there} of {len(outcome.samples)} images are outside; {counts}",
        )
        if images["decoded_inside"]:
            lines.insert(
                1,
                f"{images['decoded_inside']} of the images, encoded again, are nearer than the radius: see docs/shields.md",
            )
    if outcome.samples:
        lines.append(f"report   {folder / 'report.html'}")
    return "\n".join(lines)


def _refused(outcome: Outcome) -> str:
    count, shield = outcome.refused, outcome.record["shield"]["name"]
    what = "1 image is" if count == 1 else f"{count} images are"
    return (
        f"{what} inside the protected set {shield!r} and not written; samples.parquet says which. Draw from another --seed, use another "
        "--on-violation, or add --method spell"
    )
