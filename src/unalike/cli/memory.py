"""`unalike memory`: look into the files of earlier generations, and change them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from unalike.cli.command import Command, flag
from unalike.runs.memory.settings import (
    ExportSettings,
    InspectSettings,
    MergeSettings,
    RemoveSettings,
    SearchSettings,
)
from unalike.runs.numbers import counted

memory = typer.Typer(
    name="memory",
    help="Inspect, search, clean, merge and export memories of earlier generations.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_search, _remove, _merge, _export = (
    partial(flag, settings)
    for settings in (SearchSettings, RemoveSettings, MergeSettings, ExportSettings)
)
File = Annotated[Path, flag(InspectSettings, "file", argument=True, metavar="FILE")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


@memory.command(cls=Command)
def inspect(file: File, as_json: AsJson = False) -> None:
    """Show what a memory holds.

    All of it is read, to make sure that it is whole.
    """
    settings = InspectSettings(file=file)
    from unalike.runs.memory.inspection import inspect as run

    found = run(settings.file)
    _print(found.to_dict()) if as_json else typer.echo("\n".join(found.lines()))


@memory.command(cls=Command)
def search(
    file: File,
    text: Annotated[str, _search("text", argument=True, metavar="TEXT")],
    num: Annotated[int, _search("num", "--num", "-n")] = SearchSettings.num,
    as_json: AsJson = False,
) -> None:
    """Find samples by words of their prompts.

    The words may be in any case and order; the newest samples come first.
    """
    settings = SearchSettings(file=file, text=text, num=num)
    from unalike.runs.memory.search import search as run

    hits = run(settings)
    if as_json:
        _print({"found": hits.found, "samples": [hit.to_dict() for hit in hits.shown]})
        return
    lines = [line for hit in hits.shown for line in hit.lines()]
    shown = "" if len(hits.shown) == hits.found else f", of which {len(hits.shown):,} are shown"
    typer.echo("\n".join([*lines, f"{counted(hits.found, 'sample')} found{shown}"]))


@memory.command(cls=Command)
def remove(
    file: File,
    text: Annotated[list[str] | None, _remove("text")] = None,
    seed: Annotated[list[str] | None, _remove("seed", metavar="INTEGER")] = None,
    run: Annotated[str | None, _remove("run")] = None,
    item: Annotated[list[str] | None, _remove("item")] = None,
    as_json: AsJson = False,
) -> None:
    """Remove samples for good.

    Those that fit all that is given are removed.
    """
    settings = RemoveSettings(
        file=file, text=tuple(text or ()), seed=tuple(seed or ()), run=run, item=tuple(item or ())
    )
    from unalike.runs.memory.search import remove as run_remove

    count = run_remove(settings)
    _print({"removed": count}) if as_json else typer.echo(f"{counted(count, 'sample')} removed")


@memory.command(cls=Command)
def merge(
    out: Annotated[Path, _merge("out", argument=True, metavar="OUT")],
    files: Annotated[list[str], _merge("files", argument=True, metavar="FILE...")],
    as_json: AsJson = False,
) -> None:
    """Put memories together in a new one.

    Samples come in the order of time, and those that are in several memories once.
    """
    settings = MergeSettings(out=out, files=tuple(files))
    from unalike.memory.merging import merge as run

    count = run(settings.out, [Path(path) for path in settings.files])
    if as_json:
        _print({"out": str(settings.out), "samples": count})
    else:
        typer.echo(f"{counted(count, 'sample')} in {settings.out}")


@memory.command(cls=Command)
def export(
    file: File,
    out: Annotated[Path, _export("out", metavar="DIR|FILE.parquet")],
    thumbnails: Annotated[bool, _export("thumbnails", "--thumbnails")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the samples as Parquet tables.

    A table a space, with prompts, seeds, runs, times and latents.
    """
    settings = ExportSettings(file=file, out=out, thumbnails=thumbnails)
    from unalike.runs.memory.export import export as run

    files = run(settings)
    if as_json:
        _print({"out": str(settings.out), "files": [str(path) for path in files]})
    else:
        typer.echo("\n".join(map(str, files)))


def _print(document: object) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
