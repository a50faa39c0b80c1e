"""`unalike run`: draw a file of prompts, over as many days as it takes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unalike.cli.command import flag
from unalike.cli.drawing import with_drawing
from unalike.cli.progress import progress_bar
from unalike.runs.numbers import counted
from unalike.runs.run_settings import RunSettings

if TYPE_CHECKING:
    from unalike.runs.job import Outcome
    from unalike.runs.ledger import Failure

_flag = partial(flag, RunSettings)
_SHOWN = 5


@with_drawing
def run(
    source: Annotated[Path, _flag("source", argument=True, metavar="PROMPTS")],
    wildcards: Annotated[Path | None, _flag("wildcards", metavar="DIR")] = None,
    shard_size: Annotated[int | None, _flag("shard_size", metavar="BYTES")] = None,
    devices: Annotated[str | None, _flag("devices", metavar="DEVICE,DEVICE")] = None,
    ray: Annotated[str | None, _flag("ray", metavar="ADDRESS")] = None,
    ray_workers: Annotated[int | None, _flag("ray_workers")] = None,
    ray_gpus: Annotated[float | None, _flag("ray_gpus")] = None,
    shard: Annotated[str | None, _flag("shard", metavar="I/K")] = None,
    merge: Annotated[bool, _flag("merge", "--merge")] = False,
    *,
    drawing: dict[str, Any],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON for each image.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bar, and only the folder as output.")
    ] = False,
) -> None:
    """Draw the images of a file of prompts, and go on where an earlier call ended.

    Columns: prompt, and if you want id, n, seed, negative_prompt, group, and any argument of the
    pipeline. The same command goes on after Ctrl-C, a kill or a power cut; no image is lost or
    drawn twice. Images that fail are tried again at the end and by the next call; while there are
    some, the exit code is 1.
    """
    settings = RunSettings(
        source=source,
        wildcards=wildcards,
        shard_size=shard_size,
        devices=() if devices is None else devices,
        ray=ray,
        ray_workers=ray_workers,
        ray_gpus=ray_gpus,
        shard=shard,
        merge=merge,
        **drawing,
    )
    with progress_bar("drawing", hidden=quiet or as_json) as progress:
        from unalike.pipelines.loading import quieten_hosts
        from unalike.runs.run import run as draw

        quieten_hosts(downloads=quiet or as_json)
        outcome = draw(settings, progress, _print_line if as_json else None)
    if quiet:
        typer.echo(outcome.folder)
    elif not as_json:
        typer.echo(_summary(outcome))
    if not outcome.finished and not merge:
        typer.echo(
            f"unalike: interrupted; {_count(outcome)} are in {outcome.folder}; go on with: "
            f"{outcome.record['command']} --out {shlex.quote(str(outcome.folder))}",
            err=True,
        )
        raise typer.Exit(130)
    if outcome.failures:
        typer.echo(f"unalike: {_failures(outcome.failures, merged=merge)}", err=True)
        raise typer.Exit(1)


def _failures(failures: Sequence[Failure], *, merged: bool) -> str:
    """A sentence on the images that are not there, and why."""
    reasons: dict[str, list[int]] = {}
    for failure in failures:
        reasons.setdefault(failure.error, []).append(failure.number)
    told = "; ".join(
        f"number {', '.join(map(str, numbers[:_SHOWN]))}{', …' * (len(numbers) > _SHOWN)}: {reason}"
        for reason, numbers in list(reasons.items())[:_SHOWN]
    )
    more = "; …" if len(reasons) > _SHOWN else ""
    what, how = "could not be drawn", "the same command tries them again"
    if merged:
        what = "are missing"
        how = "merge again when they are there, or draw them by the same command without --merge"
    return f"{counted(len(failures), 'image')} {what} ({told}{more}); {how}"


def _print_line(row: Any) -> None:
    typer.echo(json.dumps(dict(row), ensure_ascii=False))


def _count(outcome: Outcome) -> str:
    there, planned = len(outcome.samples), outcome.record["images"]["planned"]
    return f"{there:,} of {planned:,} images"


def _summary(outcome: Outcome) -> str:
    from unalike.runs.summary import diversity_sentence, protection_sentences

    record, folder = outcome.record, outcome.folder
    lines = [_count(outcome), *protection_sentences(record)]
    diversity = diversity_sentence(record)
    lines += [diversity] if diversity else []
    lines += [f"images   {folder / ('images' if (folder / 'images').is_dir() else 'shards')}"]
    lines += [f"report   {folder / 'report.html'}", f"again    {record['command']}"]
    return "\n".join(lines)
