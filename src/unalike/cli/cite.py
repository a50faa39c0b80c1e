"""`unalike cite`: what to cite."""

from __future__ import annotations

from typing import Annotated

import typer

from unalike.cli.command import method_names


def cite(
    method: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="METHOD",
            help="Methods; all of them if none is named.",
            autocompletion=method_names,
        ),
    ] = None,
) -> None:
    """Print the BibTeX entries of guidance methods, each once."""
    from unalike.guidance.methods import METHODS, build

    for entry in dict.fromkeys(type(build(name)).citation for name in method or METHODS):
        typer.echo(entry + "\n")
