"""The options of all commands that draw images into a folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any

from unalike.cli.command import flag, method_names
from unalike.pipelines.catalogue import MODELS
from unalike.pipelines.schedulers import SCHEDULERS
from unalike.runs.settings import DrawSettings

_flag = partial(flag, DrawSettings)
_OPTIONS: dict[str, Any] = {
    "num": Annotated[int, _flag("num", "--num", "-n")],
    "model": Annotated[str, _flag("model", autocompletion=lambda: list(MODELS))],
    "model_config": Annotated[str | None, _flag("model_config", metavar="MODEL")],
    "scheduler": Annotated[
        str | None, _flag("scheduler", metavar="NAME", autocompletion=lambda: list(SCHEDULERS))
    ],
    "lora": Annotated[list[str] | None, _flag("lora", metavar="FILE[:SCALE]")],
    "negative_prompt": Annotated[str | None, _flag("negative_prompt")],
    "height": Annotated[int | None, _flag("height")],
    "width": Annotated[int | None, _flag("width")],
    "image": Annotated[Path | None, _flag("image", metavar="FILE")],
    "image_strength": Annotated[float | None, _flag("image_strength")],
    "method": Annotated[list[str] | None, _flag("method", autocompletion=method_names)],
    "strength": Annotated[float | None, _flag("strength")],
    "set_": Annotated[list[str] | None, _flag("set", "--set", metavar="METHOD.OPTION=VALUE")],
    "memory": Annotated[Path | None, _flag("memory", metavar="FILE")],
    "shield": Annotated[list[str] | None, _flag("shield", metavar="DIR")],
    "shield_space": Annotated[list[str] | None, _flag("shield_space", metavar="FEATURES")],
    "on_violation": Annotated[str, _flag("on_violation", metavar="POLICY")],
    "attempts": Annotated[int, _flag("attempts")],
    "candidates": Annotated[int | None, _flag("candidates")],
    "compare": Annotated[bool, _flag("compare", "--compare/--no-compare")],
    "seed": Annotated[int, _flag("seed")],
    "steps": Annotated[int | None, _flag("steps")],
    "guidance_scale": Annotated[float | None, _flag("guidance_scale")],
    "batch_size": Annotated[int, _flag("batch_size")],
    "out": Annotated[Path | None, _flag("out", metavar="DIR")],
    "overwrite": Annotated[bool, _flag("overwrite", "--overwrite")],
    "format": Annotated[str, _flag("format", metavar="FORMAT")],
    "quality": Annotated[int | None, _flag("quality")],
    "device": Annotated[str, _flag("device")],
    "dtype": Annotated[str, _flag("dtype")],
}
"""Name of the parameter → its type, in the order of the help."""
_DRAWING = "drawing"


def with_drawing(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of drawing in place of its parameter `drawing`, which gets them
    as arguments of `DrawSettings`.
    """
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kept = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        parameters += _shared() if parameter.name == _DRAWING else [kept]

    @wraps(command)
    def called(**given: Any) -> None:
        shared = {name.rstrip("_"): given.pop(name) for name in _OPTIONS}
        command(**given, drawing={name: _settled(name, value) for name, value in shared.items()})

    called.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]
    called.__annotations__ = {p.name: p.annotation for p in parameters}
    return called


def _shared() -> list[inspect.Parameter]:
    return [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=_default(name), annotation=annotation
        )
        for name, annotation in _OPTIONS.items()
    ]


def _default(name: str) -> Any:
    default = DrawSettings.__dataclass_fields__[name.rstrip("_")].default
    return None if default == () else default


def _settled(name: str, value: Any) -> Any:
    """Several values as a tuple, none as an empty one."""
    return tuple(value or ()) if DrawSettings.__dataclass_fields__[name].default == () else value
