"""The arguments of a guided call: refuse unknown names, and fill in what a model's row has."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any

from unalike.attach.diffusers.calls import call_parameters, own_call
from unalike.errors import OptionError, did_you_mean

MODEL = "_unalike_model"
"""The attribute of a loaded pipeline that has its row of the catalogue."""

_KINDS = inspect.Parameter


def completed(
    pipe: Any, args: Sequence[Any], kwargs: dict[str, Any], also: Iterable[str] = ()
) -> dict[str, Any]:
    """The keyword arguments of a call, with the model's own for those that are left out.

    A pipeline loaded by the name of a model has steps, guidance scale and other arguments of its
    row in the catalogue; other pipelines have their class's defaults.

    Args:
        pipe: a diffusers pipeline.
        args, kwargs: of the call.
        also: further names that are allowed.

    Raises:
        OptionError: for a name that is no argument; many pipelines accept any and ignore it.
    """
    accepted = call_parameters(pipe)
    known = known_arguments(pipe)
    for name in kwargs:
        if known is not None and name not in known and name not in also:
            choices = sorted({*known, *also})
            raise OptionError(
                f"{name} is no argument of {type(pipe).__name__}; {did_you_mean(name, choices)}"
                f"allowed: {', '.join(choices)}"
            )
    row = getattr(pipe, MODEL, None)
    if row is None:
        return kwargs
    prompt = kwargs.get("prompt", args[0] if args else None)
    usual = row.call(len(prompt) if isinstance(prompt, list) else None)
    free = set(accepted[len(args) :])
    return {**{name: value for name, value in usual.items() if name in free}, **kwargs}


def known_arguments(pipe: Any) -> set[str] | None:
    """The names of all arguments that a call has a use for; None where only the call knows.

    A call that takes any keyword uses those that it reads from them by name, and those of the calls
    of its base classes, to which it may pass them on.
    """
    known = {name for name in call_parameters(pipe) if name not in ("kwargs", "args")}
    calls = [own_call(pipe), *(vars(kind).get("__call__") for kind in type(pipe).__mro__)]
    takes_any = False
    for call in filter(inspect.isfunction, calls):
        any_name = None
        for parameter in list(inspect.signature(call).parameters.values())[1:]:
            if parameter.kind is _KINDS.VAR_KEYWORD:
                any_name = parameter.name
            elif parameter.kind is not _KINDS.VAR_POSITIONAL:
                known.add(parameter.name)
        if any_name is None:
            return known
        takes_any = True
        known |= _read_by_name(call, any_name)
        known.discard(any_name)
        if call.__module__.startswith("diffusers."):
            return known
    return None if takes_any else known


def _read_by_name(call: Any, mapping: str) -> set[str]:
    """The keys that a function reads from its keyword arguments."""
    try:
        source = inspect.getsource(call)
    except OSError:
        return set()
    reads = rf"""\b{mapping}(?:\.(?:pop|get)\(|\[)\s*["'](\w+)["']|["'](\w+)["'] in {mapping}\b"""
    return {first or second for first, second in re.findall(reads, source)}
