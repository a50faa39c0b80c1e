"""The `unalike` command: its sub-commands, and how errors end it.

Exit codes: 0 done, 1 failed, 2 invalid usage, 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

import unalike
from unalike.cli.cite import cite
from unalike.cli.command import INTERRUPTED, INVALID_USAGE, BadValue, Command, UsageError
from unalike.cli.generate import generate
from unalike.cli.memory import memory
from unalike.cli.methods import methods
from unalike.cli.models import models
from unalike.cli.run import run
from unalike.cli.score import score
from unalike.cli.seeds import seeds
from unalike.cli.shield import shield

app = typer.Typer(
    name="unalike",
    help="Draw images unlike each other and unlike a protected set, with any diffusion model.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (generate, run, seeds, score, models, methods, cite):
    app.command(cls=Command)(command)
app.add_typer(shield)
app.add_typer(memory)


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
    group = typer.main.get_command(app)
    try:
        code = group.main(prog_name="unalike", standalone_mode=False)
    except UsageError as error:
        code = _refused(error)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("unalike: interrupted", err=True)
        code = INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)


def _refused(error: Any) -> int:
    """Say what is wrong with a command line that names no command, option or value of it."""
    context, text = error.ctx, " ".join(error.format_message().split())
    if text.startswith("Usage:"):  # nothing was given, and the message is the help
        typer.echo(error.format_message(), err=True)
        return INVALID_USAGE
    if isinstance(error, BadValue) and error.param is not None:
        text = f"{max(error.param.opts, key=len)} is {error.message}"
    path = context.command_path if context is not None else "unalike"
    typer.echo(f"unalike: {text.rstrip('.')}; see `{path} --help`", err=True)
    return INVALID_USAGE


if __name__ == "__main__":
    main()
