"""Everything the package raises on purpose, and how a message names an option.

```
UnalikeError
├── OptionError (ValueError)        an argument, option or setting that is not allowed
│   └── RowsError                   rows of a file that are not allowed, all of them at once
├── UnsupportedError                a pipeline, scheduler or combination that cannot be guided
├── AttachmentError (RuntimeError)  attached twice, or the scheduler replaced meanwhile
├── StoreError                      a file or folder that is damaged, of another kind, or in the way
├── NumericsError (ArithmeticError) the model or the guidance produced NaN or infinity
├── WorkerError (RuntimeError)      a worker of a run died, or cannot keep up with the others
└── ShieldError                     an image cannot be brought outside the protected set
    └── RefusedError                images inside the protected set are not returned
```

Each message says what was wrong, what is allowed, and the call that fixes it. A message made by
`named` spells its options as the user does: `num=8` in Python, `--num 8` on the command line.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Any


class _Missing(Enum):
    """Stands for no value; a copy of it is itself."""

    VALUE = 0


_UNSET: Any = _Missing.VALUE
_LONGEST = 100


@dataclass(frozen=True)
class Option:
    """An option that a message names; as text, in the words of Python.

    Args:
        name: of the argument; empty for a value alone.
        value: with a value it is the call that sets the option: `num=8`. Text without quotes, such
            as `Literal("DIR")`, is written as it is.
        owner: the class of the guidance method whose option it is.

    Example:
        >>> str(Option("num")), str(Option("num", 8)), str(Option("strength", 0.1, owner="SPARKE"))
        ('num', 'num=8', 'SPARKE(strength=0.1)')
    """

    name: str
    value: Any = _UNSET
    owner: str | None = None

    @property
    def has_value(self) -> bool:
        """Whether it is the call that sets the option."""
        return self.value is not _UNSET

    def __str__(self) -> str:
        if not self.has_value:
            return f"{self.owner}: {self.name}" if self.owner else self.name
        if not self.name:
            return repr(self.value)
        call = f"{self.name}={self.value!r}"
        return f"{self.owner}({call})" if self.owner else call


class Literal(str):
    """A placeholder for a value, such as FOLDER, which messages write without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Message:
    """A message that can be spelled in the words of several places; made by `named`."""

    parts: tuple[str | Option, ...]

    def __str__(self) -> str:
        return self.spelled(str)

    def spelled(self, spell: Callable[[Option], str]) -> str:
        """The text with each option as `spell` writes it."""
        return "".join(p if isinstance(p, str) else spell(p) for p in self.parts)


def named(template: str, *values: Any) -> Message:
    """A message whose options are written in the words of the place where it is shown.

    Args:
        template: `{num}` names an option, `{num=8}` the call that sets it; `{}` takes the next
            value, with the conversions and formats of `str.format`.
        values: may be options, messages and errors too, which keep their options.

    Example:
        >>> text = named("{num} is {}; allowed: at least 1, as in {num=8}", 0)
        >>> str(text)
        'num is 0; allowed: at least 1, as in num=8'
        >>> text.spelled(lambda o: f"--{o.name} {o.value}" if o.has_value else f"--{o.name}")
        '--num is 0; allowed: at least 1, as in --num 8'
    """
    return Message(tuple(_parts(template, iter(values))))


def shown(value: Any) -> str:
    """A value as a message shows it: in one line, and not too long.

    Example:
        >>> shown("cat"), len(shown("x" * 1000))
        ("'cat'", 100)
    """
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 300:
        return f"a whole number of {value.bit_length()} bits"
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def close_to(given: object, known: Iterable[str], count: int = 1) -> list[str]:
    """The known names that are most like the given one, the most alike first; none where none is.

    Example:
        >>> close_to("Emojy", ["digits", "emoji"])
        ['emoji']
    """
    spelled = {name.lower(): name for name in known}
    close = get_close_matches(str(given).strip().lower(), spelled, n=count, cutoff=0.65)
    return [spelled[name] for name in close]


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """The question `did you mean 'NAME'? ` with a space after it; empty where nothing is close."""
    close = close_to(given, known)
    return f"did you mean {close[0]!r}? " if close else ""


def _parts(template: str, values: Iterator[Any]) -> Iterator[str | Option]:
    for text, field, spec, conversion in string.Formatter().parse(template):
        if text:
            yield text
        if field is None:
            continue
        if field:
            name, equals, example = field.partition("=")
            yield Option(name, _example(example)) if equals else Option(name)
            continue
        value = next(values)
        if isinstance(value, UnalikeError) and value.args:
            value = value.args[0]
        if isinstance(value, Message):
            yield from value.parts
        elif isinstance(value, Option):
            yield value
        else:
            yield shown(value) if conversion == "r" else format(value, spec or "")


def _example(text: str) -> Any:
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    words = {"None": None, "True": True, "False": False}
    if text in words:
        return words[text]
    return text[1:-1] if text[:1] == text[-1:] == "'" else Literal(text)


class UnalikeError(Exception):
    """Base of all errors of this package."""


class OptionError(UnalikeError, ValueError):
    """An argument, option or setting that is not allowed; the message names it and says what is."""


class RowsError(OptionError):
    """Rows of a file that are not allowed; the message lists them, a line each.

    Attributes:
        faults: pairs of the number of the row and what is wrong with it, in order; all of them,
            while the message shows the first ones.
    """

    def __init__(self, message: Message, faults: Sequence[tuple[int, str | Message]]) -> None:
        super().__init__(message)
        self.faults = tuple((number, str(fault)) for number, fault in faults)


class UnsupportedError(UnalikeError):
    """A pipeline, scheduler or combination that cannot be guided.

    The message says how to add it where that is possible.
    """


class AttachmentError(UnalikeError, RuntimeError):
    """Guidance attached twice, or the scheduler replaced while it was attached."""


class StoreError(UnalikeError):
    """A file or folder that is damaged, of another kind or model, or already there."""


class NumericsError(UnalikeError, ArithmeticError):
    """NaN or infinity from the model or from the guidance; the message names the step."""


class WorkerError(UnalikeError, RuntimeError):
    """A worker of a run died while it drew, or its images cannot be told from stale ones."""


class ShieldError(UnalikeError):
    """An image that cannot be brought outside the protected set."""


class RefusedError(ShieldError):
    """Images of a call are inside the protected set, so they are not returned.

    The others are, with this error.

    Attributes:
        output: the pipeline's output, the refused images blank in it.
        report: the report of the call, with the certificates of all its images.
        refused: the numbers of the refused images in the batch.
    """

    def __init__(self, message: str, *, output: Any, report: Any, refused: list[int]) -> None:
        super().__init__(message)
        self.output = output
        self.report = report
        self.refused = refused
