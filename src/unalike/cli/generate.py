"""`unalike generate`: draw images into an output folder."""

from __future__ import annotations

import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unalike.cli.command import flag, is_given, path_of
from unalike.cli.drawing import with_drawing
from unalike.cli.progress import progress_bar
from unalike.errors import Option, OptionError, StoreError, named
from unalike.runs.settings import GenerateSettings

if TYPE_CHECKING:
    from unalike.runs.generate import Outcome


_flag = partial(flag, GenerateSettings)


@with_drawing
def generate(
    ctx: typer.Context,
    prompts: Annotated[
        list[str] | None, _flag("prompts", argument=True, metavar="PROMPT", show_default=False)
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT", help="A PROMPT too, also one that begins with a dash; can be repeated."
        ),
    ] = None,
    prompts_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=path_of,
            help="A PROMPT in each line, or - for standard input; `unalike run` takes tables.",
        ),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGE",
            parser=path_of,
            help="Draw this image again; options that are given change that.",
        ),
    ] = None,
    resume: Annotated[bool, _flag("resume", "--resume")] = False,
    *,
    drawing: dict[str, Any],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document and nothing else.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bar, and only the folder as output.")
    ] = False,
) -> None:
    """Draw images that differ from each other, from earlier ones and from a protected set.

    The output folder gets images/, run.json, samples.parquet, grid.png and report.html. Ctrl-C
    finishes the batch, a second one stops at once; the exit code is 130, and --resume goes on.
    Images that are inside the protected set and could not be brought out are not written; the
    others are, and the exit code is 1.
    """
    named = (*(prompts or ()), *(prompt or ()), *_prompts_of(prompts_file))
    settings = GenerateSettings(
        **{**drawing, "prompts": named, "resume": resume, **_like(ctx, like, drawing, named)}
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
            f"unalike: interrupted; {there} of {settings.total} images are in {outcome.folder}; go "
            f"on with: {outcome.record['command']} --out {shlex.quote(str(outcome.folder))} "
            "--resume",
            err=True,
        )
        raise typer.Exit(130)
    if outcome.refused:
        typer.echo(f"unalike: {_refused(outcome)}", err=True)
        raise typer.Exit(1)


def _prompts_of(file: Path | None) -> tuple[str, ...]:
    """The prompts in the lines of a file."""
    if file is None:
        return ()
    from unalike.runs.rows import read_rows

    stdin = sys.stdin.buffer if str(file) == "-" else None
    return tuple(row.prompt for row in read_rows(file, stdin=stdin, option="prompts_file"))


def _like(
    ctx: typer.Context, image: Path | None, drawing: dict[str, Any], prompts: tuple[str, ...]
) -> dict[str, Any]:
    """The settings that drew an image, less the options that are given."""
    if image is None:
        return {}
    from unalike.runs.imagefile import read_info
    from unalike.runs.parameters import settings_like

    try:
        found = settings_like(read_info(image))
    except (OptionError, StoreError) as error:
        raise OptionError(named("{} is {!r}: {}", Option("like"), str(image), error)) from error
    given = {name for name in drawing for spelled in (name, f"{name}_") if is_given(ctx, spelled)}
    given |= {"prompts"} if prompts else set()
    return {name: value for name, value in found.items() if name not in given}


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
