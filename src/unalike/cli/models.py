"""`unalike models`: the catalogue."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from unalike.pipelines.catalogue import MODELS


def models(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """List the models that come with the package; folders and hub ids work too."""
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(model) for model in MODELS.values()], indent=2))
        return
    for model in MODELS.values():
        methods = ", ".join(model.methods)
        typer.echo(f"{model.name}  {model.summary}")
        typer.echo(
            f"    {model.pipeline}, {model.steps} steps, guidance scale {model.guidance_scale:g}; guided by {methods} if no method is named"
        )
    typer.echo("\nAny other model: --model FOLDER (written by save_pretrained) or --model OWNER/NAME (from the Hugging Face hub).")
