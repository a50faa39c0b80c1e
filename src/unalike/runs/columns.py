"""The columns of a file of prompts: their names, and the values that they may have."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import Field, dataclass
from inspect import Parameter
from types import UnionType
from typing import Any, Union, get_args, get_origin

from unalike.errors import Message, Option, OptionError, did_you_mean, named, shown
from unalike.options import allowed, checked, declared, fault_of_text, plain_number
from unalike.runs.settings import GenerateSettings, parse_value

NAMES = {
    "prompt": ("prompt", "caption", "text"),
    "n": ("n", "num", "num_images"),
    "negative_prompt": ("negative_prompt", "negative"),
    "id": ("id", "name", "key"),
    "seed": ("seed",),
    "group": ("group",),
    "num_inference_steps": ("num_inference_steps", "steps"),
}
"""What a column stands for, and the names that it may have."""

_STANDS_FOR = {alias: name for name, aliases in NAMES.items() for alias in aliases}
_TEXT = re.compile(r"id|group|(negative_)?prompt(_\d+)?")
_SETTINGS = {f.name: f for f in declared(GenerateSettings)}
_RULES: dict[str, Field[Any]] = {
    name: _SETTINGS[setting]
    for name, setting in (
        ("n", "num"),
        ("seed", "seed"),
        ("num_inference_steps", "steps"),
        ("guidance_scale", "guidance_scale"),
        ("height", "height"),
        ("width", "width"),
    )
    if setting in _SETTINGS
}
_FORBIDDEN = (
    (r"generators?", "the noise follows from the seed; name it seed"),
    (r"num_\w+_per_prompt|batch_size", "the number of images of a row is n; name it n"),
    (r"latents|noise", "the noise follows from the seed; delete it"),
    (r"\w*embeds\w*|\w*attention_mask\w*", "a row has its prompt as text; delete it"),
    (r"(\w+_)?images?", "an image cannot be given in a row; delete it"),
    (r"class_labels", "the class of a row is its prompt; name it prompt"),
    (r"callback\w*|output_type|return_dict", "unalike sets this argument itself; delete it"),
)
"""Arguments of pipelines that a row cannot have, and what to do with their columns."""
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_SIMPLE = {bool: {bool}, int: {int, float}, float: {float}, str: {str}, tuple: {list, tuple}}
"""Type of a value → the annotations that it fits."""


@dataclass(frozen=True, slots=True)
class Column:
    """What a column of a file stands for.

    Args:
        name: of a field of `PromptRow`, or of an argument of the pipeline's call.
        fault: why there cannot be such a column, as a clause after the number of a line; None where
            there can.
    """

    name: str
    fault: str | None = None


def column(header: str) -> Column:
    """The meaning of a column with this name; capital letters do not matter.

    Example:
        >>> column("Caption").name, column("height").name, column("latents").fault
        ('prompt', 'height', "has the column 'latents'; the noise follows from the seed; delete it")
    """
    name = header.strip().casefold()
    name = _STANDS_FOR.get(name, name)
    advice = next((why for words, why in _FORBIDDEN if re.fullmatch(words, name)), None)
    if advice is None and not name.isidentifier():
        advice = "no pipeline has such an argument; delete or rename it"
    return Column(name, advice and f"has the column {shown(header)}; {advice}")


def value_of(name: str, value: Any, *, typed: bool) -> Any:
    """The value of a cell; None where it is empty, which means that it is not given.

    Args:
        name: what its column stands for.
        value: as the file has it.
        typed: whether the format has numbers; without, text that looks like a number is one.

    Raises:
        ValueError: for a value that is not allowed, with a clause that says what is.

    Example:
        >>> value_of("n", "8", typed=False), value_of("guidance_scale", 1.5, typed=True)
        (8, 1.5)
        >>> value_of("n", "many", typed=False)
        Traceback (most recent call last):
            ...
        ValueError: has n 'many'; allowed: a whole number at least 1 and at most 100,000
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if _TEXT.fullmatch(name):
        return _text(name, value)
    if not typed:
        value = parse_value(value.strip())
    rule = _RULES.get(name)
    if rule is None:
        return _argument(name, value)
    number = plain_number(value)
    if rule.metadata["kind"] is int and isinstance(number, float) and number.is_integer():
        value = int(number)  # as pandas writes whole numbers of a column with gaps
    try:
        return checked(rule, value)
    except OptionError as error:
        words = allowed(rule).removesuffix(" or None")
        raise ValueError(f"has {name} {shown(value)}; allowed: {words}") from error


def unknown(name: str, known: Collection[str], pipeline: str) -> Message:
    """The clause that refuses a column that is no argument of the pipeline."""
    if name in _SETTINGS and not _TEXT.fullmatch(name):
        return named(
            "has the column {!r}, a setting of the whole run; delete it, and give {} to the run",
            name,
            Option(name),
        )
    names = [k for k in (*known, *_STANDS_FOR) if k != name and column(k).fault is None]
    return named(
        "has the column {!r}, which is no argument of {}; {}delete or rename it",
        name,
        pipeline,
        did_you_mean(name, names),
    )


def misfit(name: str, value: Any, parameter: Parameter) -> str | None:
    """The clause that refuses a value of another type than an argument is annotated with; None
    where it fits, or the annotation does not say.

    Example:
        >>> eta = Parameter("eta", Parameter.KEYWORD_ONLY, annotation=float)
        >>> misfit("eta", "high", eta), misfit("eta", 1, eta)
        ("has eta 'high'; allowed: a number", None)
    """
    kind = parameter.annotation
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    origins = [get_origin(m) or m for m in members]
    if not all(isinstance(o, type) for o in origins) or Parameter.empty in origins:
        return None
    if any(o in _SIMPLE[type(value)] for o in origins):
        return None
    words = [_WORDS.get(o, "numbers") for o in origins if o in (*_WORDS, list, tuple)]
    fits = " or ".join(dict.fromkeys(words)) or "a value that a file cannot have"
    return f"has {name} {shown(value)}; allowed: {fits}"


def _text(name: str, value: Any) -> str:
    if name in ("id", "group") and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"has {name} {shown(value)}; allowed: text")
    fault = fault_of_text(value)
    if fault:
        raise ValueError(f"has {name} {shown(value)}, which {fault}")
    return value.strip()


def _argument(name: str, value: Any) -> Any:
    """The value of an argument of the call: a number, true or false, text, or several numbers."""
    if isinstance(value, str):
        return _text(name, value)
    several = isinstance(value, list | tuple)
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    if isinstance(value, bool) or (numbers and all(map(_is_number, numbers))):
        return tuple(numbers) if several else value
    raise ValueError(
        f"has {name} {shown(value)}; allowed: a finite number, several, true, false, or text"
    )


def _is_number(value: Any) -> bool:
    number = plain_number(value)
    return number is not None and abs(number) < 2**63  # which NaN is not
