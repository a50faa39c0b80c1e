"""Dataclasses as plain values for JSON, and back."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def from_plain(kind: type[T], value: Any) -> T:
    """The dataclass that `dataclasses.asdict` made plain, nested ones included.

    Fields that the value lacks have their defaults, so that records of earlier versions can be
    read.

    Raises:
        TypeError, ValueError: for a value that does not fit.

    Example:
        >>> from dataclasses import asdict, dataclass
        >>> @dataclass
        ... class Point:
        ...     x: float
        >>> from_plain(Point, asdict(Point(2.0)))
        Point(x=2.0)
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{kind.__name__} is made from an object, not from {value!r}")
    hints = _hints(kind)
    return kind(
        **{
            f.name: _converted(hints[f.name], value[f.name])
            for f in fields(kind)  # pyright: ignore[reportArgumentType]
            if f.name in value
        }
    )


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _converted(hint: Any, value: Any) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        kinds = [k for k in inner if k is not type(None)]
        return value if value is None or len(kinds) != 1 else _converted(kinds[0], value)
    if origin is list and isinstance(value, list):
        return [_converted(inner[0], v) for v in value]
    if origin is tuple and isinstance(value, list):
        return tuple(value)
    if is_dataclass(hint) and isinstance(hint, type):
        return from_plain(hint, value)
    return value
