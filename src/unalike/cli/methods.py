"""`unalike methods`: the guidance methods and their options."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def methods(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the guidance methods with their options, defaults and allowed values."""
    from unalike.guidance.methods import METHODS, options
    from unalike.options import allowed

    if as_json:
        rows = [
            {
                "name": name,
                "summary": method.summary,
                "options": [
                    {
                        "name": f.name,
                        "default": f.default,
                        "allowed": allowed(f),
                        "help": f.metadata["help"],
                    }
                    for f in options(method)
                ],
            }
            for name, method in METHODS.items()
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    for name, method in METHODS.items():
        typer.echo(f"{name}  {method.summary}")
        for f in options(method):
            default = "none" if f.default is None else f.default
            typer.echo(f"    --set {name}.{f.name}={default}")
            typer.echo(f"        {f.metadata['help']}; {allowed(f)}")
        typer.echo()
