"""`unalike cite`: what to cite."""

from __future__ import annotations

from typing import Annotated

import typer


def cite(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[METHOD]…", help="Methods; all of them if none is named."),
    ] = None,
) -> None:
    """Print the BibTeX entries of guidance methods."""
    from unalike.guidance.methods import METHODS, build

    for name in names or METHODS:
        typer.echo(type(build(name)).citation + "\n")
