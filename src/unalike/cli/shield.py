"""`unalike shield`: protected sets on disk."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unalike.cli.command import Command, flag
from unalike.cli.progress import progress_bar
from unalike.errors import OptionError, named
from unalike.pipelines.catalogue import MODELS
from unalike.runs.numbers import counted
from unalike.runs.shield.settings import (
    AddSettings,
    BuildSettings,
    CheckSettings,
    VerifySettings,
    parse_radius,
    with_model,
)

if TYPE_CHECKING:
    from unalike.runs.shield.build import Outcome
    from unalike.runs.shield.check import Outcome as Checked
    from unalike.runs.shield.verification import Verification

shield = typer.Typer(
    name="shield",
    help="Build, extend, inspect and use sets of protected images.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_build, _add, _check, _verify = (
    partial(flag, settings)
    for settings in (BuildSettings, AddSettings, CheckSettings, VerifySettings)
)
Set = Annotated[Path, _add("folder", argument=True, metavar="DIR")]
BatchSize = Annotated[int, _add("batch_size")]
SkipBad = Annotated[bool, _add("skip_bad", "--skip-bad")]
Device = Annotated[str, _add("device")]
Model = Annotated[str | None, _add("model", autocompletion=lambda: list(MODELS))]
Space = Annotated[str | None, _add("space")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress bar, and only the folder as output.")
]


@shield.command(cls=Command)
def build(
    images: Annotated[list[str], _build("images", argument=True, metavar="IMAGES")],
    out: Annotated[Path, _build("out", metavar="DIR")],
    model: Annotated[
        str | None, _build("model", autocompletion=lambda: list(MODELS))
    ] = BuildSettings.model,
    radius: Annotated[str, _build("radius", metavar="R|auto")] = "auto",
    space: Annotated[str, _build("space")] = BuildSettings.space,
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(
            metavar="H W", help="Resize images to this. [default: the size that the model draws]"
        ),
    ] = None,
    dtype: Annotated[str, _build("dtype")] = BuildSettings.dtype,
    prompts: Annotated[list[str] | None, _build("prompts", "--prompt", metavar="TEXT")] = None,
    generations: Annotated[int | None, _build("generations")] = None,
    seed: Annotated[int, _build("seed")] = BuildSettings.seed,
    batch_size: BatchSize = BuildSettings.batch_size,
    skip_bad: SkipBad = False,
    device: Device = BuildSettings.device,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Build a protected set of images.

    What is done is on disk at once: after Ctrl-C, a full disk or a crash the same command goes on.
    Ctrl-C ends with exit code 130.
    """
    settings = BuildSettings(
        images=tuple(images),
        out=out,
        model=model,
        radius=parse_radius(radius),
        space=space,
        size=size,
        dtype=dtype,
        prompts=tuple(prompts or ()),
        generations=generations,
        seed=seed,
        batch_size=batch_size,
        skip_bad=skip_bad,
        device=device,
    )
    _run("building", settings, as_json=as_json, quiet=quiet)


@shield.command(cls=Command)
def add(
    folder: Set,
    images: Annotated[list[str] | None, _add("images", argument=True, metavar="IMAGES")] = None,
    model: Model = None,
    space: Space = None,
    discard: Annotated[
        bool, typer.Option("--discard", help="Undo an addition or a build that was interrupted.")
    ] = False,
    batch_size: BatchSize = AddSettings.batch_size,
    skip_bad: SkipBad = False,
    device: Device = AddSettings.device,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Add images to a protected set; until all are in, it stays as it was. The radius is kept.

    After Ctrl-C, a full disk or a crash the same command goes on; --discard, without images, goes
    back.
    """
    if discard:
        from unalike.runs.shield.build import discard_unfinished

        size = discard_unfinished(folder, tuple(images or ()))
        typer.echo(
            json.dumps({"out": str(folder), "discarded_bytes": size})
            if as_json
            else folder
            if quiet
            else f"{size:,} bytes discarded"
        )
        return
    settings = AddSettings(
        folder=folder,
        images=tuple(images or ()),
        model=model,
        space=space,
        batch_size=batch_size,
        skip_bad=skip_bad,
        device=device,
    )
    _run("adding", with_model(settings), as_json=as_json, quiet=quiet)


@shield.command(cls=Command)
def inspect(folder: Set, as_json: AsJson = False) -> None:
    """Show what a protected set holds, and make sure that it is whole."""
    from unalike.runs.shield.inspection import inspect as run
    from unalike.runs.shield.inspection import words

    outcome = run(folder)
    if as_json:
        typer.echo(json.dumps(outcome.to_dict(), indent=2, ensure_ascii=False))
    else:
        typer.echo("\n".join(f"{heading:9} {text}" for heading, text in words(outcome)))


@shield.command(cls=Command)
def check(
    folder: Set,
    images: Annotated[list[str], _check("images", argument=True, metavar="IMAGES")],
    model: Model = None,
    space: Space = None,
    out: Annotated[Path | None, _check("out", metavar="DIR")] = None,
    overwrite: Annotated[bool, _check("overwrite", "--overwrite")] = False,
    edits: Annotated[bool, _check("edits", "--edits")] = False,
    fail_inside: Annotated[
        bool,
        typer.Option("--fail-inside", help="End with exit code 1 when an image is inside a ball."),
    ] = False,
    batch_size: BatchSize = CheckSettings.batch_size,
    skip_bad: SkipBad = False,
    device: Device = CheckSettings.device,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure how near images are to a protected set.

    Writes check.json, check.parquet and report.html with the closest pairs side by side. What is
    inside after an edit does not change the exit code.
    """
    settings = CheckSettings(
        folder=folder,
        images=tuple(images),
        model=model,
        space=space,
        out=out,
        overwrite=overwrite,
        edits=edits,
        batch_size=batch_size,
        skip_bad=skip_bad,
        device=device,
    )
    settings = with_model(settings)  # before anything is loaded
    with progress_bar("checking", hidden=quiet or as_json) as progress:
        from unalike.pipelines.loading import quieten_hosts
        from unalike.runs.shield.check import check as run

        quieten_hosts(downloads=quiet or as_json)
        outcome = run(settings, progress)
    if as_json:
        typer.echo(json.dumps(outcome.to_dict(), indent=2, ensure_ascii=False))
    else:
        typer.echo(outcome.folder if quiet else _checked(outcome))
    if fail_inside and outcome.inside:
        raise typer.Exit(1)


@shield.command(cls=Command)
def verify(
    run: Annotated[Path, _verify("run", argument=True, metavar="RUN")],
    folder: Annotated[list[str] | None, _verify("folder", "--shield", metavar="DIR")] = None,
    model: Annotated[str | None, _verify("model", autocompletion=lambda: list(MODELS))] = None,
    space: Annotated[list[str] | None, _verify("space")] = None,
    edits: Annotated[bool, _verify("edits", "--edits")] = False,
    device: Device = CheckSettings.device,
    as_json: AsJson = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bar, and no output but what differs.")
    ] = False,
) -> None:
    """Compute all certificates of a run again, from its images, latents and protected set alone.

    Ends with exit code 1 when anything differs from what the run says, or when something certified
    is inside. Where only latents are certified, finished images inside are counted and do not
    change the exit code. Nor do edited images inside, of which no certificate speaks.
    """
    settings = VerifySettings(
        run=run,
        folder=tuple(folder or ()),
        model=model,
        space=tuple(space or ()),
        edits=edits,
        device=device,
    )
    if edits and quiet and not as_json:
        raise OptionError(
            named("{quiet} leaves out what {edits} measures; leave out one of the two")
        )
    with progress_bar("verifying", hidden=quiet or as_json) as progress:
        from unalike.pipelines.loading import quieten_hosts
        from unalike.runs.shield.evidence import recorded_sets
        from unalike.runs.shield.verify import verify as compute

        quieten_hosts(downloads=quiet or as_json)
        outcome = compute(
            settings.run,
            settings.folders or recorded_sets(settings.run),
            model=settings.model,
            space=settings.space,
            device=settings.device,
            edits=settings.edits,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(outcome.to_dict(), indent=2, ensure_ascii=False))
    elif not quiet or outcome.all_differences:
        typer.echo("\n".join(outcome.all_differences) if quiet else _verified(outcome))
    if not outcome.confirmed:
        count = len(outcome.all_differences)
        typer.echo(
            f"unalike: the certificates of {run} do not hold: {counted(count, 'difference')}",
            err=True,
        )
        raise typer.Exit(1)


def _run(what: str, settings: BuildSettings | AddSettings, *, as_json: bool, quiet: bool) -> None:
    folder = settings.out if isinstance(settings, BuildSettings) else settings.folder
    try:
        with progress_bar(what, hidden=quiet or as_json) as progress:
            from unalike.pipelines.loading import quieten_hosts
            from unalike.runs.shield.build import add as run_add
            from unalike.runs.shield.build import build as run_build

            quieten_hosts(downloads=quiet or as_json)
            outcome = (
                run_build(settings, progress)
                if isinstance(settings, BuildSettings)
                else run_add(settings, progress)
            )
    except KeyboardInterrupt:
        typer.echo(
            f"unalike: interrupted; the same command goes on with what is in {folder}", err=True
        )
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(outcome.to_dict(), indent=2, ensure_ascii=False))
    else:
        typer.echo(outcome.folder if quiet else _summary(outcome))


def _summary(outcome: Outcome) -> str:
    from unalike.runs.shield.inspection import radius_in_words

    manifest = outcome.manifest
    lines = [f"skipped  {name} ({why})" for name, why in outcome.skipped]
    lines.append(
        f"added    {outcome.added:,} vectors of {outcome.inputs:,} inputs; the set has "
        f"{manifest.count:,}"
    )
    return "\n".join(
        [
            *lines,
            f"radius   {radius_in_words(manifest.radius, manifest.radius_source)}",
            f"set      {outcome.folder}",
        ]
    )


def _verified(outcome: Verification) -> str:
    return "\n".join([*outcome.all_differences, *outcome.sentences()])


def _checked(outcome: Checked) -> str:
    from unalike.runs.numbers import number
    from unalike.runs.shield.page import check_sentence

    lines = [
        f"skipped  {entry['image']} ({entry['reason']})" for entry in outcome.record["skipped"]
    ]
    lines.append(check_sentence(outcome.record))
    lines += [after.sentence(name) for name, after in (outcome.edits or {}).items()]
    lines += [
        f"closest  {number(c.distance)} (margin {number(c.margin)}) {c.image} to {c.nearest}"
        for c in outcome.checked[:3]
    ]
    return "\n".join([*lines, f"report   {outcome.folder / 'report.html'}"])
