"""A command of the command line: its errors are one sentence, which names options as flags."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from unalike.errors import (
    Literal,
    Message,
    Option,
    OptionError,
    RowsError,
    StoreError,
    UnalikeError,
    UnsupportedError,
    shown,
)

FAILED, INVALID_USAGE, INTERRUPTED = 1, 2, 130
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


# typer carries a click of its own in some releases
UsageError: Any = typer.BadParameter.__mro__[1]


class Command(TyperCommand):
    """A command that ends with one sentence and an exit code where it fails."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for argument in _arguments(self):
            # typer's help has the Python type behind the name, as in `PROMPT <list[str]>`
            vars(argument)["display_type_rich"] = lambda ctx: None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line; errors know the command, which the parser's own do not."""
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run the command; 1 failed, 2 invalid usage, 130 interrupted."""
        try:
            return super().invoke(ctx)
        except RowsError as error:
            end(in_flags(error, ctx), INVALID_USAGE, lines=True)
        except (OptionError, StoreError, UnsupportedError) as error:
            end(in_flags(error, ctx), FAILED if _of_the_machine(error) else INVALID_USAGE)
        except KeyboardInterrupt:
            end("interrupted", INTERRUPTED)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            end(in_flags(error, ctx), FAILED)
        except (UnalikeError, MemoryError) as error:
            end(in_flags(error, ctx), FAILED)


def _of_the_machine(error: BaseException) -> bool:
    """Whether the disk or the network failed, and nothing is wrong with what was asked for."""
    cause = error.__cause__
    if isinstance(error, OptionError) or not isinstance(cause, OSError):
        return False
    return isinstance(cause, ConnectionError) or cause.errno in _FULL


def end(sentence: str, code: int, *, lines: bool = False) -> None:
    """Print why the command ends, in one line unless `lines`, and end it with the exit code."""
    text = sentence if lines else " ".join(sentence.split())
    typer.echo(f"unalike: {text}", err=True)
    raise typer.Exit(code)


def in_flags(error: BaseException, ctx: Any) -> str:
    """The message of an error with its options spelled as the flags of this command."""
    message = error.args[0] if error.args else None
    if isinstance(message, Message):
        return message.spelled(flag_speller(ctx))
    return str(error) or type(error).__name__


def flag_speller(ctx: Any) -> Callable[[Option], str]:
    """A function that spells options as on the command line of `ctx`."""
    return partial(_spelled, ctx, {p.name.rstrip("_"): p for p in ctx.command.params})


def _spelled(ctx: Any, known: dict[str, Any], option: Option) -> str:
    if not option.name:
        return _word(option.value)
    if option.owner is not None:
        return _spelled_of_method(ctx.params, option)
    parameter = known.get(option.name)
    if parameter is None:
        return str(option)
    if parameter.param_type_name == "argument":
        if not option.has_value:
            return str(parameter.metavar)
        names = [p.name for p in _arguments(ctx.command)]
        before = [ctx.params[name] for name in names[: names.index(parameter.name)]]
        return f"`{' '.join([ctx.command_path, *map(_word, before), _word(option.value)])}`"
    name = max(parameter.opts, key=len)
    if not option.has_value or option.value is True:
        return name
    if option.value is False:
        return parameter.secondary_opts[0] if parameter.secondary_opts else f"no {name}"
    return f"{name} {_word(option.value)}"


def _arguments(command: Any) -> list[Any]:
    return [p for p in command.params if p.param_type_name == "argument"]


def _spelled_of_method(given: dict[str, Any], option: Option) -> str:
    """An option of a method: `--set METHOD.OPTION`, or `--strength` where that was given."""
    from unalike.guidance.methods import METHODS

    names = {method.__name__: name for name, method in METHODS.items()}
    place = f"{names.get(str(option.owner), option.owner)}.{option.name}"
    assigned = any(str(text).startswith(f"{place}=") for text in given.get("set_") or ())
    if isinstance(option.value, tuple):
        return f"--set {place}={','.join(map(_word, option.value))}"
    if option.name == "strength" and given.get("strength") is not None and not assigned:
        return f"--strength {_word(option.value)}" if option.has_value else "--strength"
    return f"--set {place}={_word(option.value)}" if option.has_value else f"--set {place}"


def _word(value: Any) -> str:
    """A value as it stands on the command line."""
    if isinstance(value, Literal):
        return str(value)
    if isinstance(value, list | tuple):
        return " ".join(_word(v) for v in value)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return shlex.quote(str(value))


def is_given(ctx: Any, name: str) -> bool:
    """Whether a parameter of this name stands on the command line or in the environment."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")


def method_names() -> list[str]:
    """The names of the guidance methods, for shell completion."""
    from unalike.guidance.methods import METHODS

    return list(METHODS)


def flag(settings: type, name: str, *names: str, **rest: Any) -> Any:
    """The option or, with `argument=True`, the argument for a field of the settings.

    Its help is that of the field.
    """
    rule = settings.__dataclass_fields__[name].metadata
    if rule["kind"] is Path:
        rest["parser"] = path_of
    elif rule["kind"] in _NUMBERS and "metavar" not in rest:
        rest |= _NUMBERS[rule["kind"]]
    elif rule["kind"] is not bool:
        rest.setdefault("metavar", "TEXT")
    words = [choice for choice in rule["choices"] if isinstance(choice, str)]
    if words:
        rest.setdefault("autocompletion", lambda: words)
    kind = typer.Argument if rest.pop("argument", False) else typer.Option
    return kind(*names, help=rule["help"], **rest)


class BadValue(typer.BadParameter):
    """A value that an option cannot have."""


def path_of(text: Any) -> Path:
    """A path of the command line, for options that are no settings."""
    if not str(text):
        raise BadValue("''; allowed: a path")
    return Path(text)


def _whole(text: Any) -> int:
    try:
        return int(text)
    except ValueError:
        raise BadValue(f"{shown(text)}; allowed: a whole number") from None


def _real(text: Any) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadValue(f"{shown(text)}; allowed: a number") from None


_NUMBERS: dict[Any, dict[str, Any]] = {
    int: {"metavar": "INTEGER", "parser": _whole},
    float: {"metavar": "NUMBER", "parser": _real},
}
