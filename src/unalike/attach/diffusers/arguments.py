"""The arguments of a guided call: refuse unknown names, and fill in what a model's row has."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from unalike.attach.diffusers.host import Host
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
    accepted = Host(pipe).parameters
    known = known_arguments(pipe)
    for name in kwargs:
        if known is not None and name not in known and name not in also:
            choices = sorted({*known, *also})
            raise OptionError(
                f"{name} is no argument of {type(pipe).__name__}; {did_you_mean(name, choices)}"
                f"allowed: {', '.join(choices)}"
            )
    prompt = kwargs.get("prompt", args[0] if args else None)
    usual = model_defaults(pipe, len(prompt) if isinstance(prompt, list) else None)
    free = set(accepted[len(args) :])
    return {**{name: value for name, value in usual.items() if name in free}, **kwargs}


def model_defaults(pipe: Any, prompts: int | None = None) -> dict[str, Any]:
    """The model's own arguments of a call, where the pipeline was loaded by the model's name.

    `prompts` is the length of a list of prompts; None for a single one.
    """
    row = Host(pipe).part(MODEL)
    return {} if row is None else row.call(prompts)


def known_arguments(pipe: Any) -> set[str] | None:
    """The names of all arguments that a call has a use for; None where only the call knows.

    A call that takes any keyword uses those that it reads from them by name, and those of the calls
    of its base classes, to which it may pass them on.
    """
    known = {name for name in Host(pipe).parameters if name not in ("kwargs", "args")}
    calls = [Host(pipe).call, *(vars(kind).get("__call__") for kind in type(pipe).__mro__)]
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


def unshared(value: Any) -> Any:
    """Copy a list: some pipelines write into the list of prompts that they are given.

    Example:
        >>> prompts = ["cat"]
        >>> unshared(prompts) is prompts, unshared("cat")
        (False, 'cat')
    """
    return list(value) if type(value) is list else value


def documented(
    own: Callable[..., Any],
    call: Callable[..., Any],
    name: str,
    more: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Any:
    """A function for a class's `__call__` that runs `own` and shows the arguments of `call`.

    `inspect.signature` and `help` show names and defaults, without annotations, which fill screens
    in diffusers, and without `**kwargs`, for unknown names are refused.

    Args:
        own: `(self, *args, **kwargs)`, what is run.
        call: of the pipeline's class.
        name: of that class.
        more: further arguments by their names, with their defaults.
        defaults: shown in place of those of `call`.
    """

    @functools.wraps(own, assigned=("__name__", "__module__"))
    def shown(self: Any, *args: Any, **kwargs: Any) -> Any:
        return own(self, *args, **kwargs)

    del shown.__wrapped__
    parameters = {
        p.name: p.replace(annotation=_KINDS.empty)
        for p in inspect.signature(call).parameters.values()
        if p.kind is not _KINDS.VAR_KEYWORD
    }
    for key, default in (more or {}).items():
        if key not in parameters:
            parameters[key] = _KINDS(key, _KINDS.KEYWORD_ONLY, default=default)
    for key, default in (defaults or {}).items():
        if key in parameters:
            parameters[key] = parameters[key].replace(default=default)
    vars(shown)["__signature__"] = inspect.Signature(list(parameters.values()))
    ours = f", and {', '.join(more)}" if more else ""
    shown.__qualname__ = "__call__"
    shown.__doc__ = (
        f"Draw with guidance. The arguments are those of `{name}`{ours}.\n\n"
        f"{inspect.getdoc(own) or ''}"
    )
    return shown


def _read_by_name(call: Any, mapping: str) -> set[str]:
    """The keys that a function reads from its keyword arguments."""
    try:
        source = inspect.getsource(call)
    except OSError:
        return set()
    reads = rf"""\b{mapping}(?:\.(?:pop|get)\(|\[)\s*["'](\w+)["']|["'](\w+)["'] in {mapping}\b"""
    return {first or second for first, second in re.findall(reads, source)}
