"""The `unalike` command: what its sub-commands are, and how errors end it.

Exit codes: 0, done; 1, failed; 2, something given is not allowed; 130, interrupted with Ctrl-C.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import unalike
from unalike.cli.cite import cite
from unalike.cli.generate import generate
from unalike.cli.methods import methods
from unalike.cli.models import models
from unalike.cli.score import score
from unalike.cli.shield import shield
from unalike.errors import OptionError, StoreError, UnalikeError, UnsupportedError

app = typer.Typer(
    name="unalike",
    help="Draw images that are unlike each other and unlike a protected set, with any diffusion model.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(generate)
app.command()(score)
app.add_typer(shield)
app.command()(models)
app.command()(methods)
app.command()(cite)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unalike {unalike.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; errors become one sentence on the standard error stream."""
    try:
        app()
    except (OptionError, StoreError, UnsupportedError) as error:
        _end(str(error), 2)
    except (UnalikeError, OSError, MemoryError) as error:
        _end(str(error) or type(error).__name__, 1)
    except KeyboardInterrupt:
        _end("interrupted", 130)


def _end(message: str, code: int) -> None:
    typer.echo(f"unalike: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
