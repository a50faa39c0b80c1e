"""The table of guidance methods: public names, flags, web forms, documentation tables and
conformance tests follow from it.

It is read without importing a method, or torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import Field, fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

from unalike.errors import OptionError, did_you_mean, named

if TYPE_CHECKING:
    from unalike.guidance.method import Method

ENTRIES: dict[str, str] = {
    "auto": "unalike.guidance.auto:Auto",
    "sparke": "unalike.guidance.sparke:SPARKE",
    "vendi": "unalike.guidance.vendi:VendiGuidance",
    "spell": "unalike.guidance.spell:SPELL",
    "particle": "unalike.guidance.particle:ParticleGuidance",
    "cads": "unalike.guidance.cads:CADS",
    "interval": "unalike.guidance.interval:IntervalGuidance",
    "coupled": "unalike.guidance.coupled_noise:CoupledNoise",
    "pink": "unalike.guidance.pink_noise:PinkNoise",
    "contrastive": "unalike.guidance.contrastive_noise:ContrastiveNoise",
    "dave": "unalike.guidance.dave:DAVE",
    "contextual": "unalike.guidance.contextual_repulsion:ContextualRepulsion",
    "firststep": "unalike.guidance.first_step_base:FirstStepBase",
    "seedvariance": "unalike.guidance.seed_variance:SeedVariance",
    "tsr": "unalike.guidance.tsr:TSR",
}
"""Name → where its class is. A new method is one file, one entry here, and its test."""


class Methods(Mapping[str, type["Method"]]):
    """Name → class, in the order of `ENTRIES`; a class is imported when it is asked for."""

    def __getitem__(self, name: str) -> type[Method]:
        module, _, class_name = ENTRIES[name].partition(":")
        return getattr(import_module(module), class_name)

    def __iter__(self) -> Iterator[str]:
        return iter(ENTRIES)

    def __len__(self) -> int:
        return len(ENTRIES)


METHODS = Methods()


def class_homes() -> dict[str, str]:
    """Class name → its module, for all methods.

    Example:
        >>> class_homes()["SPARKE"]
        'unalike.guidance.sparke'
    """
    return {name: module for module, _, name in (e.partition(":") for e in ENTRIES.values())}


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
    from unalike.guidance.method import Method

    shared = {f.name for f in fields(Method)}
    return sorted((f for f in fields(method) if f.metadata), key=lambda f: f.name in shared)


def settable(method: type[Method]) -> list[str]:
    """The names of all options of a method, those that only Python can give last."""
    return [f.name for f in options(method)] + [f.name for f in fields(method) if not f.metadata]


def described(method: Method) -> dict[str, Any]:
    """Name and option values of a method, ready for JSON.

    Regions of words or a box are as they were given, others "mask"; functions are their names,
    extractors their fingerprints, tensors their shapes. `build` takes all other values back.

    Example:
        >>> from unalike.guidance import SPARKE, SPELL
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
    from torch import Tensor

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
