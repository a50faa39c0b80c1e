"""How a pipeline is called, with its own arguments, whatever guidance it has by itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from unalike.attach.modular import input_names


def own_call(pipe: Any) -> Callable[..., Any]:
    """The call of the pipeline's class, with the pipeline as first argument.

    A class whose call is guided by itself, as those of `unalike.pipelines.guided`, has the call without as `unguided`.
    """
    kind = type(pipe)
    return getattr(kind, "unguided", kind.__call__)


def call_parameters(pipe: Any) -> list[str]:
    """The names of the arguments of the pipeline's call.

    Example:
        >>> class Pipe:
        ...     def __call__(self, prompt, steps=4): ...
        >>> call_parameters(Pipe())
        ['prompt', 'steps']
    """
    return list(inspect.signature(own_call(pipe)).parameters)[1:] + input_names(pipe)


def named_arguments(pipe: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name; TypeError, as from the call itself, for those that it has not."""
    arguments = inspect.signature(own_call(pipe)).bind(pipe, *args, **kwargs).arguments
    return {name: value for name, value in list(arguments.items())[1:] if name != "kwargs"} | arguments.get("kwargs", {})
