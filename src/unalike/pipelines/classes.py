"""Prompts of a class-conditional pipeline: names or numbers of the classes that it draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unalike.attach.diffusers.host import Host
from unalike.errors import OptionError, close_to

_LISTED = 40


def class_ids(pipe: Any, prompts: Sequence[str]) -> dict[str, int]:
    """The class of each prompt: by one of its names in `pipe.labels`, whatever the case, or else by
    its number.

    Args:
        pipe: a pipeline that is called with class labels, such as DiTPipeline.
        prompts: class names or numbers.

    Raises:
        OptionError: for a prompt that is no class of the pipeline; the message lists those that are
            allowed.

    Example:
        >>> from types import SimpleNamespace
        >>> class_ids(SimpleNamespace(labels={"tench": 0, "goldfish": 1}), ["Goldfish", "0"])
        {'Goldfish': 1, '0': 0}
    """
    names = {str(name).lower(): int(index) for name, index in Host(pipe).class_names.items()}
    numbers = range(_classes(pipe, names))
    found = {}
    for prompt in prompts:
        text = prompt.strip().lower()
        if text in names:
            found[prompt] = names[text]
        elif text.isdecimal() and int(text) in numbers:
            found[prompt] = int(text)
        else:
            raise OptionError(_unknown(prompt, pipe, names, numbers))
    return found


def _classes(pipe: Any, names: Mapping[str, int]) -> int:
    """Count the classes of a pipeline.

    By their names where it has any, else by the size of the model's table.
    """
    if names:
        return max(names.values()) + 1
    return Host(pipe).class_count


def _unknown(prompt: str, pipe: Any, names: Mapping[str, int], numbers: range) -> str:
    near = close_to(prompt, names, 3)
    hint = f"did you mean {' or '.join(repr(name) for name in near)}? " if near else ""
    listed = sorted(
        (name for name in names if not (name.isdecimal() and int(name) in numbers)),
        key=names.__getitem__,
    )
    shown = ", ".join(listed[:_LISTED]) + (
        f" and {len(listed) - _LISTED} more in pipe.labels" if len(listed) > _LISTED else ""
    )
    allowed = f"a number from 0 to {len(numbers) - 1}" + (f", or a name: {shown}" if listed else "")
    return (
        f"prompt {prompt!r} is no class that {type(pipe).__name__} draws; {hint}allowed: {allowed}"
    )
