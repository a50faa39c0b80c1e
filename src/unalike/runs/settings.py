"""What a generation is asked to do, checked before anything is loaded, and the guidance methods
that follow from it.

Neither torch nor diffusers is imported until methods are built.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.errors import OptionError
from unalike.pipelines.catalogue import MODELS

if TYPE_CHECKING:
    from unalike.guidance.method import Method

AUTO = "auto"
DTYPES = (AUTO, "float32", "float16", "bfloat16")
POLICIES = ("move", "regenerate", "refuse")
ATTEMPTS = 3
_LARGEST_SEED = 2**63 - 1
_DEFAULT_METHODS: Mapping[str, Mapping[str, Any]] = {"auto": {}}


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    """The settings of `unalike generate`, one field an option of the same name.

    Args:
        prompts: what to draw, one or several.
        num: images of each prompt.
        model: a name of the catalogue, a folder or a hub id.
        method: names of guidance methods, applied in order; empty for what the model's row of the
            catalogue says.
        strength: sets this option of every chosen method that has it.
        set: options of methods as "METHOD.OPTION=VALUE".
        memory: file of earlier generations to differ from; made if it is not there, and extended
            when the run is complete.
        shield: folder of a protected set to stay out of.
        shield_space: where the features of that set come from, as in "clip:FOLDER", where the name
            that it knows them by does not say.
        on_violation: what is done with images that are inside it after the last step: "move" them
            out, "regenerate" them from other noise, or "refuse" them. What is still inside then is
            refused too.
        attempts: how often an image is drawn again at most, with "regenerate".
        compare: also draw every image without guidance, from the same seed.
        seed: image `i` of each prompt is drawn from the seed `seed + i`.
        steps: sampling steps; None for the model's own number.
        guidance_scale: weight of classifier-free guidance; None for the model's own.
        batch_size: images drawn at a time; those of a batch see each other, earlier ones are seen
            through the memory.
        out: output folder; None for a new one named after the first prompt.
        overwrite: replace the files of an earlier run in that folder.
        device: "auto", or a device of torch such as "cuda:0".
        dtype: precision of the model: float32, float16 or bfloat16; "auto" for the one that the
            catalogue has for the model on a GPU, and float32 on the CPU and for models that it has
            not.

    Raises:
        OptionError: for a value outside what is allowed.

    Example:
        >>> GenerateSettings(prompts=("heart",)).num
        8
        >>> GenerateSettings(prompts=("heart",), num=0)
        Traceback (most recent call last):
            ...
        unalike.errors.OptionError: num is 0; it must be a whole number of at least 1, as in num=8
    """

    prompts: tuple[str, ...]
    num: int = 8
    model: str = "emoji"
    method: tuple[str, ...] = ()
    strength: float | None = None
    set: tuple[str, ...] = ()
    memory: Path | None = None
    shield: Path | None = None
    shield_space: str | None = None
    on_violation: str = POLICIES[0]
    attempts: int = ATTEMPTS
    compare: bool = False
    seed: int = 0
    steps: int | None = None
    guidance_scale: float | None = None
    batch_size: int = 16
    out: Path | None = None
    overwrite: bool = False
    device: str = "auto"
    dtype: str = AUTO

    def __post_init__(self) -> None:
        if not self.prompts:
            raise OptionError(
                'there is no prompt; give at least one, as in unalike generate "red heart"'
            )
        for i, prompt in enumerate(self.prompts):
            if not prompt.strip():
                raise OptionError(
                    f'prompt {i + 1} is empty; every prompt needs some text, as in unalike generate "red heart"'
                )
        if len(set(self.prompts)) < len(self.prompts):
            raise OptionError(
                "a prompt is given twice; give it once and ask for more images with num"
            )
        for name, example in (
            ("num", 8),
            ("batch_size", 16),
            ("steps", 25),
            ("attempts", ATTEMPTS),
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(
                    f"{name} is {value}; it must be a whole number of at least 1, as in {name}={example}"
                )
        if not 0 <= self.seed <= _LARGEST_SEED - self.num:
            raise OptionError(
                f"seed is {self.seed}; it must be at least 0 and below 2**63 less the number of images, as in seed=0"
            )
        if self.guidance_scale is not None and not (
            math.isfinite(self.guidance_scale) and self.guidance_scale >= 0
        ):
            raise OptionError(
                f"guidance_scale is {self.guidance_scale}; it must be a finite number of at least 0, as in guidance_scale=3"
            )
        if self.dtype not in DTYPES:
            raise OptionError(f"dtype is {self.dtype!r}; allowed: {', '.join(DTYPES)}")
        if self.on_violation not in POLICIES:
            raise OptionError(
                f"on_violation is {self.on_violation!r}; allowed: {', '.join(POLICIES)}"
            )
        if self.on_violation != POLICIES[0] and self.shield is None:
            raise OptionError(
                f"on_violation is {self.on_violation!r} and there is no shield; give its folder, as in shield DIR"
            )
        if self.shield_space is not None and self.shield is None:
            raise OptionError(
                f"shield_space is {self.shield_space!r} and there is no shield; give its folder, as in shield DIR"
            )
        if self.attempts != ATTEMPTS and self.on_violation != "regenerate":
            raise OptionError(
                f"attempts is {self.attempts}, and nothing is drawn again; leave it out, or set on_violation regenerate"
            )
        for name in self.method:
            if self.method.count(name) > 1:
                raise OptionError(f"method {name!r} is given twice; name each method once")

    @property
    def total(self) -> int:
        """How many guided images there will be."""
        return len(self.prompts) * self.num


def parse_assignment(text: str) -> tuple[str, str, Any]:
    """Method, option and value of "METHOD.OPTION=VALUE"; numbers, several with commas between,
    true, false and none are read as such.

    Raises:
        OptionError: for text of another form.

    Example:
        >>> parse_assignment("spell.radius=12.5"), parse_assignment("sparke.target=x_t")
        (('spell', 'radius', 12.5), ('sparke', 'target', 'x_t'))
        >>> parse_assignment("sparke.region=0,0,0.5,1")
        ('sparke', 'region', (0.0, 0.0, 0.5, 1.0))
    """
    target, equals, value = text.partition("=")
    method, dot, option = target.partition(".")
    if not (equals and dot and method and option and value):
        raise OptionError(
            f"set is {text!r}; it must have the form METHOD.OPTION=VALUE, as in set sparke.strength=0.1"
        )
    return method.strip(), option.strip(), _value(value.strip())


def build_methods(settings: GenerateSettings) -> tuple[Method, ...]:
    """The guidance methods that the settings ask for, or those that suit the model where they name
    none.

    A method named without options keeps those that the catalogue has for the model, such as the
    published ones. With a protected set and no method named, SPELL is added for that set alone.

    Raises:
        OptionError: for an unknown method or option, a value outside what is allowed, or an option
            of a method that is not used.

    Example:
        >>> [m.name for m in build_methods(GenerateSettings(prompts=("heart",), method=("spell",)))]
        ['spell']
    """
    from unalike.guidance.methods import METHODS, build, options

    row = MODELS.get(settings.model)
    tuned = row.methods if row else _DEFAULT_METHODS
    named = {**(row.published if row else {}), **tuned}
    chosen = {name: dict(named.get(name, {})) for name in (settings.method or tuned)}
    if settings.shield and not settings.method:
        chosen.setdefault("spell", {"batch": False, "memory": False})
    for name in chosen:
        build(name)  # says which methods there are before anything is said about their options
    if settings.strength is not None:
        having = [name for name in chosen if "strength" in {f.name for f in options(METHODS[name])}]
        if not having:
            raise OptionError(
                f"strength is {settings.strength:g}, and {', '.join(chosen)} has no such option; see `unalike methods`"
            )
        for name in having:
            chosen[name]["strength"] = settings.strength
    for text in settings.set:
        name, option, value = parse_assignment(text)
        if name not in chosen:
            build(name)  # an unknown method is told so
            raise OptionError(
                f"set is {text!r}, and {name} is not among the methods used ({', '.join(chosen)}); add method {name}"
            )
        chosen[name][option] = value
    return tuple(build(name, **options) for name, options in chosen.items())


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    sides = text.split(",")
    try:
        return tuple(float(side) for side in sides) if len(sides) > 1 else text
    except ValueError:
        return text
