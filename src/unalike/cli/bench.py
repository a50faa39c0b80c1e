"""`unalike bench`: the benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from unalike.cli.progress import progress_bar


def bench(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Which benchmark; without it they are listed."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder to measure into. [default: bench-NAME]"),
    ] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="A size of seconds that only shows that it runs.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document and nothing else.")
    ] = False,
) -> None:
    """Measure what the methods do and what they cost.

    The folder gets the measurements as Parquet, the figures, and environment.json. Ctrl-C ends with
    exit code 130; the same command goes on from what was measured.
    """
    from unalike.bench.table import BENCHMARKS, available, measure

    if name is None:
        questions = {known: BENCHMARKS[known].question for known in available()}
        typer.echo(
            json.dumps(questions, indent=2, ensure_ascii=False)
            if as_json
            else "\n".join(f"{n}  {q}" for n, q in questions.items())
        )
        return
    folder = Path(f"bench-{name}") if out is None else out
    try:
        with progress_bar("measuring", hidden=as_json) as progress:
            page = measure(name, folder, smoke=smoke, progress=progress)
    except KeyboardInterrupt:
        typer.echo(
            f"unalike: interrupted; the same command goes on with what is in {folder}", err=True
        )
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(
            json.dumps(
                {"benchmark": name, "smoke": smoke, "folder": str(folder), "page": page},
                indent=2,
                ensure_ascii=False,
            )
        )
    else:
        typer.echo(f"{page}\n\nmeasurements and figures are in {folder}")
