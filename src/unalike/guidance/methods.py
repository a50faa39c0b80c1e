"""The table of guidance methods, by name: what command-line flags, web forms and documentation
tables are made from.
"""

from __future__ import annotations

from dataclasses import Field, fields
from typing import Any

from torch import Tensor

from unalike.errors import OptionError, did_you_mean, named
from unalike.guidance.auto import Auto
from unalike.guidance.cads import CADS
from unalike.guidance.interval import IntervalGuidance
from unalike.guidance.method import Method
from unalike.guidance.particle import ParticleGuidance
from unalike.guidance.sparke import SPARKE
from unalike.guidance.spell import SPELL
from unalike.guidance.vendi import VendiGuidance

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (Auto, SPARKE, VendiGuidance, SPELL, ParticleGuidance, CADS, IntervalGuidance)
}
"""Name → class. A new method is one file and one entry here."""


def options(method: type[Method]) -> list[Field[Any]]:
    """The options of a method that a flag or a form can give, in the order of its declaration,
    those of every method last.

    Each is a dataclass field; `field.metadata["help"]` says what it is for and
    `unalike.options.allowed(field)` what it may be. Options that take tensors or functions
    (`SPARKE.reference`, `SPARKE.region`, `SPARKE.embed`) are for Python and not among them.

    Example:
        >>> [field.name for field in options(METHODS["spell"])][:3]
        ['radius', 'factor', 'overcompensation']
    """
    shared = {f.name for f in fields(Method)}
    return sorted((f for f in fields(method) if f.metadata), key=lambda f: f.name in shared)


def settable(method: type[Method]) -> list[str]:
    """The names of all options of a method, those that only Python can give last."""
    return [f.name for f in options(method)] + [f.name for f in fields(method) if not f.metadata]


def described(method: Method) -> dict[str, Any]:
    """Name and option values of a method, ready for JSON.

    Of what only Python can give it says what it is: a region as it was given where it is words or a
    box, and "mask" otherwise; functions by their names, extractors by their fingerprints; tensors
    by their shapes. `build` takes the others back as they are.

    Example:
        >>> described(SPELL(radius=20.0))["options"]["radius"]
        20.0
        >>> described(SPARKE(region=["cat", "hat"], embed=abs))["options"]["region"]
        ['cat', 'hat']
    """
    plain = [f.name for f in options(type(method))]
    others = [f.name for f in fields(method) if f.name not in plain]
    values: dict[str, Any] = {name: getattr(method, name) for name in plain}
    return {
        "name": method.name,
        "options": values | {name: _in_words(name, getattr(method, name)) for name in others},
    }


def build(name: str, /, **settings: Any) -> Method:
    """The method of that name with those options.

    Raises:
        OptionError: for an unknown method or option, suggesting the closest, or an option outside
            its allowed values.

    Example:
        >>> build("spell", radius=20.0).radius
        20.0
        >>> build("sparks")
        Traceback (most recent call last):
        ...
        unalike.errors.OptionError: method is 'sparks'; did you mean 'sparke'? allowed: auto, ...
    """
    if name not in METHODS:
        close = did_you_mean(name, METHODS)
        raise OptionError(named("{method} is {!r}; {}allowed: {}", name, close, ", ".join(METHODS)))
    method = METHODS[name]
    known = settable(method)
    for given in settings:
        if given not in known:
            close = did_you_mean(given, known)
            raise OptionError(f"option of {name} is {given!r}; {close}allowed: {', '.join(known)}")
    return method(**settings)


def _in_words(name: str, value: Any) -> Any:
    """A value that JSON cannot hold, in a word or a list of numbers or words."""
    if isinstance(value, Tensor):
        return "mask" if name == "region" else list(value.shape)
    if isinstance(value, tuple):
        return list(value)
    if not callable(value):
        return value
    own = getattr(value, "fingerprint", None) or getattr(
        getattr(value, "__self__", None), "fingerprint", None
    )
    return own if isinstance(own, str) else getattr(value, "__qualname__", type(value).__qualname__)
