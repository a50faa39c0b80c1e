"""The settings of a generation and the guidance methods that follow from them.

They are checked before anything is loaded.

Neither torch nor diffusers is imported until methods are built.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from unalike.errors import Literal, Option, OptionError, did_you_mean, named
from unalike.options import LARGEST_SEED, option, require_allowed
from unalike.pipelines.catalogue import MODELS
from unalike.runs.pipeline_settings import PipelineSettings

if TYPE_CHECKING:
    from unalike.guidance.method import Method

Folders: TypeAlias = "tuple[str, ...] | Path | str | None"
"""Several folders, or one; a tuple of texts once the settings are made."""
AUTO = "auto"
DTYPES = (AUTO, "float32", "float16", "bfloat16")
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
"""Format of images → suffix of their files."""
FORMATS = tuple(SUFFIXES)
POLICIES = ("redraw", "move", "regenerate", "refuse")
AGAIN = ("redraw", "regenerate")
"""The policies that draw from other seeds."""
ATTEMPTS = 3
MOST_IMAGES = 100_000
EXAMPLE_PROMPT = Option("prompts", ("red heart",))
_DEFAULT_METHODS: Mapping[str, Mapping[str, Any]] = {"auto": {}}


@dataclass(frozen=True, kw_only=True)
class DrawSettings(PipelineSettings):
    """How images are drawn: what `unalike generate` and `unalike run` have in common; what is of
    the pipeline itself is of `PipelineSettings`.

    Args:
        num: images of each prompt.
        model: a name of the catalogue, a folder, a checkpoint in one .safetensors file, or a hub
            id.
        method: names of guidance methods, applied in order; empty for what the model's row of the
            catalogue says.
        strength: sets this option of every chosen method that has it.
        set: options of methods as "METHOD.OPTION=VALUE".
        memory: file of earlier generations to differ from; made if it is not there, and extended
            batch by batch. Other processes may use it at the same time.
        shield: folder of a protected set to stay out of, or folders of several, in spaces of their
            own.
        shield_space: where the features of that set come from, as in "clip:FOLDER", where the name
            that it knows them by does not say.
        on_violation: what is done with images that are inside it: "redraw" finished images from
            earlier noise levels and then from other seeds, "move" final latents out, "regenerate"
            from other seeds alone, or "refuse" them. What is still inside then is refused too.
        attempts: how often an image is drawn from another seed at most, with "redraw" and
            "regenerate".
        candidates: each image is chosen out of so many candidates of its prompt in the batch, by
            their first evaluations; 1 to draw from the seeds as they are; None for as many as the
            methods say.
        compare: also draw every image without guidance, from the seeds as they are.
        seed: image `i` of each prompt is drawn from the seed `seed + i`.
        steps: of the scheduler; None for the model's own number.
        guidance_scale: of classifier-free guidance; None for the model's own.
        batch_size: images drawn at a time; those of a batch see each other, earlier ones are seen
            through the memory.
        out: output folder; None for a new one named after the prompts.
        overwrite: replace the files of an earlier run in that folder.
        format: of the images: "png", "jpeg" or "webp".
        quality: of JPEG and WebP; None for 95.
        device: "auto", or a device of torch such as "cuda:0".
        dtype: precision of the model: float32, float16 or bfloat16; "auto" for the one that the
            catalogue has for the model on a GPU, and float32 on the CPU and for models that it has
            not.

    Raises:
        OptionError: for a value outside what is allowed.
    """

    num: int = option(8, "Images of each prompt.", low=1, high=MOST_IMAGES)
    model: str = option(
        "emoji", "A name of `unalike models`, a folder, a .safetensors file, or a hub id."
    )
    method: tuple[str, ...] = option(
        (),
        "A guidance method of `unalike methods`; repeat it for several. [default: the model's]",
        example=("sparke",),
    )
    strength: float | None = option(
        None, "Strength of every chosen method that has one.", kind=float, choices=(None,)
    )
    set: tuple[str, ...] = option(
        (), "An option of a method; repeat it for several.", example=("sparke.strength=0.1",)
    )
    memory: Path | None = option(
        None,
        "Differ from the generations in this file, and add these to it.",
        kind=Path,
        choices=(None,),
    )
    shield: Folders = option(
        (),
        "Stay out of the protected set in this folder, made by `unalike shield build`; repeat it "
        "for sets in several spaces.",
        kind=tuple,
        example=Literal("DIR"),
        paths=True,
    )
    shield_space: tuple[str, ...] | str | None = option(
        (),
        "Where the features of such a set are, as in clip:FOLDER. [default: as it says]",
        kind=tuple,
    )
    on_violation: str = option(
        POLICIES[0],
        "Images inside it: redraw or regenerate them, move their latents out, or refuse them.",
        choices=POLICIES,
    )
    attempts: int = option(
        ATTEMPTS,
        "Draw an image from at most so many other seeds, with redraw and regenerate.",
        low=1,
        high=1000,
    )
    candidates: int | None = option(
        None,
        "Choose each image out of so many seeds, by their first steps. [default: the method's, 1 "
        "but for auto in few steps]",
        low=1,
        high=1000,
        choices=(None,),
        kind=int,
        example=4,
    )
    compare: bool = option(False, "Draw each image without guidance too.")
    seed: int = option(
        0, "Image i of a prompt starts from the noise of seed + i.", low=0, high=LARGEST_SEED
    )
    steps: int | None = option(
        None,
        "Steps of the scheduler. [default: the model's]",
        kind=int,
        low=1,
        high=10_000,
        choices=(None,),
        example=25,
    )
    guidance_scale: float | None = option(
        None,
        "Scale of classifier-free guidance. [default: the model's]",
        low=0,
        high=1000,
        choices=(None,),
        example=3,
    )
    batch_size: int = option(16, "Images drawn at a time.", low=1, high=MOST_IMAGES)
    out: Path | None = option(
        None,
        "Output folder. [default: a new one, named after the prompts]",
        kind=Path,
        choices=(None,),
    )
    overwrite: bool = option(False, "Replace the earlier run in the output folder.")
    format: str = option("png", "Format of the images: png, jpeg, webp.", choices=FORMATS)
    quality: int | None = option(
        None,
        "Quality of JPEG and WebP, 1 to 100. [default: 95]",
        kind=int,
        low=1,
        high=100,
        choices=(None,),
        example=90,
    )
    device: str = option(AUTO, "Where to compute: auto, cpu, cuda, cuda:1, mps.", kind=str)
    dtype: str = option(
        AUTO, "Precision of the model: auto, float32, float16, bfloat16.", choices=DTYPES
    )

    def __post_init__(self) -> None:
        as_texts(self, "shield", "shield_space")
        require_allowed(self)
        self.require_consistent()
        if self.quality is not None and self.format == "png":
            raise OptionError(
                named(
                    "{quality} is {}, and PNG has none; leave it out, or set {format='webp'}",
                    self.quality,
                )
            )
        self._require_shield()
        for name in self.method:
            if self.method.count(name) > 1:
                raise OptionError(
                    named("{method} {!r} is given twice; name each method once", name)
                )

    def _require_shield(self) -> None:
        """Refuse settings that do nothing without a protected set, or with its policy."""
        for f, unused in (("on_violation", POLICIES[0]), ("shield_space", ())):
            value = getattr(self, f)
            if value != unused and not self.shield:
                raise OptionError(
                    named(
                        "{} is {!r}, and there is no protected set; give its folder, as in "
                        "{shield=DIR}",
                        Option(f),
                        value[0] if isinstance(value, tuple) else value,
                    )
                )
        if self.attempts != ATTEMPTS and not (self.shield and self.on_violation in AGAIN):
            raise OptionError(
                named(
                    "{attempts} is {}, and nothing is drawn again; leave it out, or set "
                    "{shield} and {on_violation='redraw'}",
                    self.attempts,
                )
            )

    @property
    def shields(self) -> tuple[Path, ...]:
        """The folders of the protected sets."""
        return as_paths(self.shield)


@dataclass(frozen=True, kw_only=True)
class GenerateSettings(DrawSettings):
    """The settings of `unalike generate`, one field an option of the same name.

    Args:
        prompts: what to draw, one or several.
        resume: go on with the run in the output folder, which was begun with the same settings.

    The others are those of `DrawSettings`.

    Raises:
        OptionError: for a value outside what is allowed.

    Example:
        >>> GenerateSettings(prompts=("heart",)).num
        8
        >>> GenerateSettings(prompts=("heart",), num=0)
        Traceback (most recent call last):
            ...
        unalike.errors.OptionError: num is 0; allowed: a whole number at least 1 and at most ...
    """

    prompts: tuple[str, ...] = option(MISSING, "What to draw.", kind=tuple, example=("red heart",))
    resume: bool = option(False, "Go on with the run in the output folder.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prompts:
            raise OptionError(
                named("there is no prompt; give at least one, as in {}", EXAMPLE_PROMPT)
            )
        if len(set(self.prompts)) < len(self.prompts):
            raise OptionError(
                named("a prompt is given twice; give it once, and more images as in {num=16}")
            )
        if self.total > MOST_IMAGES:
            raise OptionError(
                named(
                    "{num} is {} for {} prompts; allowed: at most {:,} images in a run, as in "
                    "{num=8}",
                    self.num,
                    len(self.prompts),
                    MOST_IMAGES,
                )
            )
        if self.seed > LARGEST_SEED - self.num:
            raise OptionError(
                named(
                    "{seed} is {}; allowed: at most 2**63 less the number of images, as in "
                    "{seed=0}",
                    self.seed,
                )
            )
        if self.resume and (self.out is None or self.overwrite):
            raise OptionError(
                named(
                    "{resume} needs the folder of the run to go on with, and no {overwrite}; give "
                    "it, as in {out=DIR}"
                )
            )

    @property
    def total(self) -> int:
        """The number of guided images."""
        return len(self.prompts) * self.num


def as_texts(settings: Any, *names: str) -> None:
    """Turn one path or text, several, or None, into a tuple of texts, in fields of these names."""
    for name in names:
        value = getattr(settings, name)
        given = [value] if isinstance(value, str | os.PathLike) else value or ()
        if isinstance(given, list | tuple):
            given = tuple(str(v) if isinstance(v, os.PathLike) else v for v in given)
        object.__setattr__(settings, name, given)


def as_paths(texts: Any) -> tuple[Path, ...]:
    """The paths of texts that `as_texts` made."""
    return tuple(map(Path, texts))


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
    method, dot, name = target.partition(".")
    if not (equals and dot and method.strip() and name.strip() and value.strip()):
        raise OptionError(
            named(
                "{set} is {!r}; allowed: METHOD.OPTION=VALUE, as in {}",
                text,
                Option("set", ("sparke.strength=0.1",)),
            )
        )
    return method.strip(), name.strip(), parse_value(value.strip())


def assigned(value: Any) -> str:
    """A value as `parse_assignment` reads it.

    Example:
        >>> assigned((0.5, 1.0)), assigned(None), assigned(True)
        ('0.5,1.0', 'none', 'true')
    """
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def build_methods(settings: DrawSettings) -> tuple[Method, ...]:
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
    from unalike.guidance.methods import METHODS, build, settable

    row = MODELS.get(settings.model)
    tuned = row.methods if row else _DEFAULT_METHODS
    presets = {**(row.published if row else {}), **tuned}
    chosen = {name: dict(presets.get(name, {})) for name in (settings.method or tuned)}
    if settings.shield and not settings.method:
        from unalike.guidance.spell import LAST

        end = {"stop": LAST} if settings.on_violation == "redraw" else {}
        chosen.setdefault("spell", {"batch": False, "memory": False, **end})
    for name in chosen:
        build(name)  # says which methods there are before anything is said about their options
    if settings.strength is not None:
        having = [name for name in chosen if "strength" in settable(METHODS[name])]
        if not having:
            raise OptionError(
                named(
                    "{strength} is {:g}, and {} has no such option; leave it out, or add a method "
                    "that has it, as in {}",
                    settings.strength,
                    ", ".join(chosen),
                    Option("method", ("sparke",)),
                )
            )
        for name in having:
            chosen[name]["strength"] = settings.strength
    assigned: set[tuple[str, str]] = set()
    for text in settings.set:
        name, own, value = parse_assignment(text)
        if name not in METHODS:
            raise OptionError(
                named(
                    "{set} is {!r}, and there is no method {!r}; {}allowed: {}",
                    text,
                    name,
                    did_you_mean(name, METHODS),
                    ", ".join(METHODS),
                )
            )
        if (name, own) in assigned:
            raise OptionError(
                named(
                    "{set} gives {} twice, the second time as {!r}; give it once",
                    f"{name}.{own}",
                    text,
                )
            )
        assigned.add((name, own))
        if name not in chosen:
            raise OptionError(
                named(
                    "{set} is {!r}, and {} is not among the methods used ({}); add it, as in {}",
                    text,
                    name,
                    ", ".join(chosen),
                    Option("method", (name,)),
                )
            )
        known = settable(METHODS[name])
        if own not in known:
            raise OptionError(
                named(
                    "{set} is {!r}, and {} has no option {!r}; {}allowed: {}",
                    text,
                    name,
                    own,
                    did_you_mean(own, known),
                    ", ".join(known),
                )
            )
        chosen[name][own] = value
    return tuple(build(name, **options) for name, options in chosen.items())


def parse_value(text: str) -> Any:
    """The value that a text stands for: true, false, none, a number, or several with commas
    between; any other text is itself.

    Example:
        >>> [parse_value(text) for text in ("8", "0.5", "True", "0,1", "x_t")]
        [8, 0.5, True, (0.0, 1.0), 'x_t']
    """
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
