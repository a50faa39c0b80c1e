"""Options as dataclass fields that carry their help text and their allowed values.

The methods, the settings of the commands, help, web forms and documentation tables are made from
these. Numbers of numpy are numbers; a bool is not one. Text and paths have to be UTF-8.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from unalike.errors import Literal, Message, Option, OptionError, named

LARGEST_SEED = 2**63 - 1
_BYTES = 255


def option(
    default: Any,
    help: str,
    *,
    kind: type | None = None,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] = (),
    example: Any = None,
    paths: bool | None = None,
) -> Any:
    """A dataclass field that carries its help text and its allowed values.

    Args:
        default: its value where none is given; `dataclasses.MISSING` for none.
        help: what it is for.
        kind: int for whole numbers, float for numbers, str for text, tuple for several texts, bool,
            or Path; None for that of the default, and numbers where there are bounds.
        low, high: the least and the largest number that is allowed.
        above: a number that is not allowed itself, and only larger ones are.
        choices: allowed besides those; without `kind` and bounds, all that is allowed.
        example: a value for messages; None for the default.
        paths: whether texts are names or paths, which have a largest length; None for one text or
            path alone.
    """
    bounded = any(bound is not None for bound in (low, above, high))
    if kind is None and type(default) in (int, float):
        kind = type(default)
    elif kind is None and (bounded or not choices):
        kind = float if bounded else type(default)
    metadata = {"help": help, "kind": kind, "low": low, "above": above, "high": high}
    metadata |= {"choices": choices, "example": default if example is None else example}
    metadata["paths"] = kind in (str, Path) if paths is None else paths
    return field(default=default, metadata=metadata)


def declared(owner: Any) -> Iterable[Field[Any]]:
    """The fields of a dataclass that are declared by `option`."""
    return (f for f in fields(owner) if "choices" in f.metadata)


def require_allowed(settings: Any, *, owner: str | None = None) -> None:
    """Check all options of a frozen dataclass, and turn numbers of numpy into Python's.

    Args:
        settings: the dataclass, during its `__post_init__`.
        owner: the name that messages give it, for guidance methods.

    Raises:
        OptionError: for a value outside what is allowed, naming option, value and what is allowed.
    """
    for f in declared(settings):
        value = getattr(settings, f.name)
        plain = checked(f, value, owner=owner)
        if plain is not value:
            object.__setattr__(settings, f.name, plain)


def checked(f: Field[Any], value: Any, *, owner: str | None = None) -> Any:
    """The value of an option as a plain Python value.

    Raises:
        OptionError: where it is not allowed.
    """
    rule, number = f.metadata, plain_number(value)
    if any(value is c or (isinstance(value, str) and value == c) for c in rule["choices"]):
        return value
    if rule["kind"] in (int, float):
        if number is not None and _fits(rule, number):
            return number
    elif rule["kind"] in (str, Path, tuple):
        return _checked_text(f, value, owner)
    elif rule["kind"] is not None and isinstance(value, rule["kind"]):
        return value
    raise _refused(f, value if number is None else number, owner)


def plain_number(value: Any) -> int | float | None:
    """A number of Python or numpy as one of Python; None for anything else, bools too.

    Example:
        >>> plain_number(8), plain_number(True), plain_number("8")
        (8, None, None)
    """
    if type(value) in (int, float):
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    return int(value) if isinstance(value, Integral) else float(value)


def number_or_nan(value: Any, *, whole: bool = False) -> Any:
    """A number of Python or numpy as one of Python; NaN, which is in no range, for anything else.

    Args:
        value: from outside.
        whole: take whole numbers alone, and leave them exact.

    Example:
        >>> number_or_nan(8), number_or_nan("8"), number_or_nan(0.5, whole=True)
        (8.0, nan, nan)
    """
    number = plain_number(value)
    if number is None or (whole and not isinstance(number, int)):
        return math.nan
    try:
        return number if whole else float(number)
    except OverflowError:  # an integer that no float can hold
        return math.copysign(math.inf, number)


def fault_of_text(text: str) -> str | None:
    """Describe the fault of a text that comes from outside; None where it has none.

    Example:
        >>> fault_of_text("cat"), fault_of_text(" "), fault_of_text(chr(0))
        (None, 'is empty', 'has a NUL character')
    """
    if "\0" in text:
        return "has a NUL character"
    if not text.strip():
        return "is empty"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "has bytes that are no UTF-8 text"
    return None


def fault_of_name(text: str) -> str | None:
    """Describe the fault of a file's name, or of what may be one; None where it has none."""
    fault = fault_of_text(text)
    if fault is None and max((len(part.encode()) for part in Path(text).parts), default=0) > _BYTES:
        return f"has a name of more than {_BYTES} bytes"
    return fault


def allowed(f: Field[Any]) -> str:
    """The allowed values of an option in words, for help and tables."""
    return str(_allowed(f, f.metadata["choices"]))


def _allowed(f: Field[Any], choices: Iterable[Any]) -> Message:
    rule, parts = f.metadata, [Option("", c) for c in choices]
    bounds = [
        f"{words} {_number(rule[name])}"
        for name, words in (("low", "at least"), ("above", "above"), ("high", "at most"))
        if rule[name] is not None
    ]
    if rule["kind"] in (int, float):
        kind = "a whole number" if rule["kind"] is int else "a number"
        parts = [f"{kind} {' and '.join(bounds)}".rstrip(), *parts]
    elif rule["kind"] is not None:
        words = {bool: "True or False", str: "text", Path: "a path", tuple: "texts"}
        parts = [words.get(rule["kind"], f"a {rule['kind'].__name__}"), *parts]
    return named(" or ".join(["{}"] * len(parts)), *parts)


def _checked_text(f: Field[Any], value: Any, owner: str | None) -> Any:
    """Text, a path or a tuple of texts, as the option has it."""
    kind = f.metadata["kind"]
    if kind is tuple:
        if not isinstance(value, tuple | list) or not all(isinstance(v, str) for v in value):
            raise _refused(f, value, owner)
        texts = list(value)
    elif isinstance(value, str | os.PathLike):
        texts = [str(value)]
    else:
        raise _refused(f, value, owner)
    for i, text in enumerate(texts):
        fault = fault_of_name(text) if f.metadata["paths"] else fault_of_text(text)
        if fault:
            which = f" number {i + 1}" if len(texts) > 1 else ""
            raise OptionError(
                named(
                    "{}{} is {!r}, which {}; allowed: {}, as in {}",
                    Option(f.name, owner=owner),
                    which,
                    text,
                    fault,
                    _sayable(f, owner),
                    _example(f, owner),
                )
            )
    return tuple(texts) if kind is tuple else kind(texts[0])


def _refused(f: Field[Any], value: Any, owner: str | None) -> OptionError:
    message = "{} is {!r}; allowed: {}, as in {}"
    option = Option(f.name, owner=owner)
    return OptionError(named(message, option, value, _sayable(f, owner), _example(f, owner)))


def _sayable(f: Field[Any], owner: str | None) -> Message:
    """The allowed values for a message: None is what leaving a setting out means."""
    choices = f.metadata["choices"]
    return _allowed(f, choices if owner else [c for c in choices if c is not None])


def _example(f: Field[Any], owner: str | None) -> Option:
    value = f.metadata["example"]
    if value is MISSING or (value is None and not owner) or value == ():
        value = Literal("PATH" if f.metadata["kind"] is Path else "TEXT")
    return Option(f.name, value, owner)


def _fits(rule: Mapping[str, Any], number: int | float) -> bool:
    if isinstance(number, float) and (rule["kind"] is int or not math.isfinite(number)):
        return False
    if rule["kind"] is float and abs(number) > sys.float_info.max:
        return False
    return (
        (rule["low"] is None or number >= rule["low"])
        and (rule["above"] is None or number > rule["above"])
        and (rule["high"] is None or number <= rule["high"])
    )


def _number(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"
