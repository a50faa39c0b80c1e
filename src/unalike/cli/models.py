"""`unalike models`: the catalogue."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from unalike.pipelines.catalogue import MODELS, Model


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the models that go by a name; folders and hub ids work too."""
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(model) for model in MODELS.values()], indent=2))
        return
    for model in MODELS.values():
        typer.echo(f"{model.name}  {model.summary}")
        for line in _details(model):
            typer.echo(f"    {line}")
    typer.echo(
        "\nAny other model: --model FOLDER (written by save_pretrained) or --model OWNER/NAME "
        "(from the Hugging Face hub)."
    )


def _details(model: Model) -> list[str]:
    files = (
        " + ".join(part for part in (model.checkpoint, model.controlnet) if part)
        or "comes with the package"
    )
    call = ", ".join(
        f"{name} {value!r}"
        for name, value in {model.guidance: model.guidance_scale, **model.arguments}.items()
    )
    lines = [
        f"{model.pipeline}: {files}",
        f"{model.steps} steps, {call}, {model.size[0]}×{model.size[1]}, {model.dtype} on a GPU",
    ]
    guided = [f"guided by {', '.join(model.methods)} if no method is named"]
    for method, options in model.published.items():
        listed = ", ".join(f"{name} {value}" for name, value in options.items())
        guided.append(f"{method} as published: {listed}")
    return [*lines, "; ".join(guided), f"settings: {model.source}"]
