"""Options as dataclass fields that carry their help text and their allowed values.

The methods, the settings of the commands, web forms and documentation tables are made from these.
Numbers of numpy are numbers; a bool is not one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import Field, field, fields
from numbers import Integral, Real
from typing import Any

from unalike.errors import Option, OptionError, named


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] = (),
    whole: bool | None = None,
    example: Any = None,
) -> Any:
    """A dataclass field that carries its help text and its allowed values.

    Args:
        default: its value where none is given.
        help: what it is for.
        low, high: the least and the largest number that is allowed.
        above: a number that is not allowed itself, and only larger ones are.
        choices: allowed besides the numbers of the range; without a range, all that is allowed.
        whole: whether only whole numbers are allowed; None for those with a whole default.
        example: a value for messages; None for the default.
    """
    if whole is None:
        whole = isinstance(default, int) and not isinstance(default, bool)
    return field(
        default=default,
        metadata={
            "help": help,
            "low": low,
            "above": above,
            "high": high,
            "choices": choices,
            "whole": whole,
            "example": default if example is None else example,
        },
    )


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
    rule = f.metadata
    if any(value is c or (isinstance(value, str) and value == c) for c in rule["choices"]):
        return value
    if not _numeric(f):
        if not rule["choices"] and isinstance(value, type(f.default)):
            return value
    else:
        number = plain_number(value)
        if number is not None and _fits(rule, number):
            return number
    raise OptionError(
        named(
            "{} is {!r}; allowed: {}, as in {}",
            Option(f.name, owner=owner),
            value if plain_number(value) is None else plain_number(value),
            allowed(f),
            Option(f.name, rule["example"], owner),
        )
    )


def plain_number(value: Any) -> int | float | None:
    """A number of Python or numpy as one of Python; None for anything else, bools too.

    Example:
        >>> plain_number(8), plain_number(True), plain_number("8")
        (8, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    if isinstance(value, int | float) and type(value) in (int, float):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def allowed(f: Field[Any]) -> str:
    """The allowed values of an option in words, for messages, help and tables."""
    rule, parts = f.metadata, [repr(c) for c in f.metadata["choices"]]
    bounds = []
    if rule["low"] is not None:
        bounds.append(f"at least {_number(rule['low'])}")
    if rule["above"] is not None:
        bounds.append(f"above {_number(rule['above'])}")
    if rule["high"] is not None:
        bounds.append(f"at most {_number(rule['high'])}")
    if _numeric(f):
        kind = "a whole number" if rule["whole"] else "a number"
        parts.insert(0, f"{kind} {' and '.join(bounds)}".rstrip())
    if not parts:
        parts = (
            ["True or False"] if isinstance(f.default, bool) else [f"a {type(f.default).__name__}"]
        )
    return " or ".join(parts)


def _numeric(f: Field[Any]) -> bool:
    bounded = any(f.metadata[k] is not None for k in ("low", "above", "high"))
    return bounded or f.metadata["whole"] or isinstance(f.default, float)


def _fits(rule: Any, number: int | float) -> bool:
    if isinstance(number, float) and (rule["whole"] or not math.isfinite(number)):
        return False
    return (
        (rule["low"] is None or number >= rule["low"])
        and (rule["above"] is None or number > rule["above"])
        and (rule["high"] is None or number <= rule["high"])
    )


def _number(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"
