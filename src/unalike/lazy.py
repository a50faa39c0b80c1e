"""Packages whose names are imported when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from unalike.errors import did_you_mean


def lazy_names(
    package: str, homes: Callable[[], Mapping[str, str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and the `__dir__` of a package.

    Args:
        package: its name.
        homes: name → the module that defines it; a module is its own home. Called when a name is
            looked up, so that it may import.

    Example:
        >>> find, names = lazy_names("collections", lambda: {"OrderedDict": "collections"})
        >>> find("OrderedDict"), names()
        (<class 'collections.OrderedDict'>, ['OrderedDict'])
        >>> find("OrderDict")
        Traceback (most recent call last):
            ...
        AttributeError: module 'collections' has no attribute 'OrderDict'; did you mean ...
    """

    def names() -> list[str]:
        return sorted(homes())

    def find(name: str) -> Any:
        if name == "__all__":
            return names()
        if not name.startswith("_"):
            known = homes()
            if name in known:
                home = import_module(known[name])
                return home if known[name].endswith(f".{name}") else getattr(home, name)
        raise AttributeError(
            f"module {package!r} has no attribute {name!r}; "
            f"{did_you_mean(name, names())}it has {', '.join(names())}"
        )

    return find, names
