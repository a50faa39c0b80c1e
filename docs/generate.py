"""Writes docs/options.md from the table of methods: `python docs/generate.py`."""

from collections.abc import Iterable
from dataclasses import Field
from pathlib import Path
from typing import Any

from unalike.guidance.base import Method, allowed
from unalike.guidance.methods import METHODS, options

PAGE = Path(__file__).parent / "options.md"


def options_page() -> str:
    """The page as Markdown."""
    shared = {f.name for f in options(Method)}
    parts = ["# Options of the methods", "", "Written by `python docs/generate.py`. On the command line: `--set METHOD.OPTION=VALUE`.", ""]
    for name, method in METHODS.items():
        parts += [f"## {method.__name__}", "", f"`--method {name}`: {method.summary}.", ""]
        parts += _table(f for f in options(method) if f.name not in shared)
    parts += ["## All methods", "", *_table(options(Method))]
    return "\n".join(parts)


def _table(rows: Iterable[Field[Any]]) -> list[str]:
    lines = ["| option | default | allowed | |", "|---|---|---|---|"]
    lines += [f"| `{f.name}` | `{f.default!r}` | {allowed(f)} | {f.metadata['help']} |" for f in rows]
    return [*lines, ""]


if __name__ == "__main__":
    PAGE.write_text(options_page(), "utf-8")
