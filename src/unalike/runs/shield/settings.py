"""What the commands of `unalike shield` are asked to do, checked before anything is loaded. Neither
torch nor numpy is imported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from unalike.errors import OptionError
from unalike.extractors.table import parse, spellings

LATENT = "latent"
DTYPES = ("float16", "float32")
GENERATIONS = 8


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """The settings of `unalike shield build`, one field an option of the same name.

    Args:
        images: folders, files and patterns of what to protect.
        out: folder of the set.
        model: whose latents they become; only needed for the space "latent", and to draw
            generations.
        radius: of the balls; None to measure it.
        space: "latent", or the features that images are compared by, as `unalike score --features`
            spells them.
        size: height and width that images are resized to for the model's autoencoder; None for the
            size that the model draws.
        dtype: how vectors are stored, "float32" or "float16".
        prompts: draw unguided generations of these to measure the radius with.
        generations: how many of each prompt; None for 8.
        seed: of the generations, and of the sample that distances are measured on.
        batch_size: images encoded, and drawn, at a time.
        skip_bad: leave out what cannot be read.
        device: "auto", or a device of torch.

    Raises:
        OptionError: for a value outside what is allowed.

    Example:
        >>> BuildSettings(images=("photos",), out=Path("protected"))
        Traceback (most recent call last):
            ...
        unalike.errors.OptionError: model is missing: latents belong to one; name it, as in --model emoji, or choose another --space
    """

    images: tuple[str, ...]
    out: Path
    model: str | None = None
    radius: float | None = None
    space: str = LATENT
    size: tuple[int, int] | None = None
    dtype: str = "float32"
    prompts: tuple[str, ...] = ()
    generations: int | None = None
    seed: int = 0
    batch_size: int = 32
    skip_bad: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        require_images(self.images)
        require_space(self.space)
        if self.model is None and self.space == LATENT:
            raise OptionError(
                "model is missing: latents belong to one; name it, as in --model emoji, or choose another --space"
            )
        if self.model is not None and self.space != LATENT and not self.prompts:
            raise OptionError(
                f"model is {self.model!r}, and the space {self.space!r} needs none; leave it out, or draw with it by --prompt"
            )
        if self.model is None and self.prompts:
            raise OptionError(
                "prompts are given and no model to draw them with; name it, as in --model emoji"
            )
        if self.size is not None and self.space != LATENT:
            raise OptionError(
                f"size is {self.size[0]} {self.size[1]}, and the features {self.space!r} resize by themselves; leave it out"
            )
        if self.radius is not None and not (math.isfinite(self.radius) and self.radius > 0):
            raise OptionError(
                f"radius is {self.radius:g}; allowed: a finite number above 0, or auto, as in --radius 20"
            )
        if self.dtype not in DTYPES:
            raise OptionError(f"dtype is {self.dtype!r}; allowed: {', '.join(DTYPES)}")
        if self.radius is not None and self.prompts:
            raise OptionError(
                f"prompts are given, and with radius {self.radius:g} nothing is measured on them; leave one of the two out"
            )
        if self.generations is not None and not self.prompts:
            raise OptionError(
                f"generations is {self.generations}, and there is no prompt to draw them of; add one with --prompt"
            )
        for name, value, least in (
            ("generations", self.generations, 1),
            ("batch_size", self.batch_size, 1),
            ("seed", self.seed, 0),
        ):
            require_least(name, value, least)


@dataclass(frozen=True, kw_only=True)
class AddSettings:
    """The settings of `unalike shield add`; what is not here is as the set was built.

    Args:
        folder: of the set.
        images, model, batch_size, skip_bad, device: as in `BuildSettings`.
        space: the features in the folder or of the id that the set's were made with, where its own
            name for them is not enough.

    Raises:
        OptionError: for a value outside what is allowed.
    """

    folder: Path
    images: tuple[str, ...]
    model: str | None = None
    space: str | None = None
    batch_size: int = 32
    skip_bad: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        require_images(self.images)
        require_least("batch_size", self.batch_size, 1)
        if self.space is not None:
            require_space(self.space)


@dataclass(frozen=True, kw_only=True)
class CheckSettings(AddSettings):
    """The settings of `unalike shield check`.

    Args:
        folder, images, model, space, batch_size, skip_bad, device: as in `AddSettings`; an output
            folder of `unalike generate` among the images stands for the images that it drew, and
            tells the model where none is given.
        out: folder for the results; None for a new one.
        overwrite: replace the results of an earlier check in that folder.
    """

    out: Path | None = None
    overwrite: bool = False


def require_images(images: tuple[str, ...]) -> None:
    """Make sure that there is something to read.

    Raises:
        OptionError: otherwise.
    """
    if not images or not all(images):
        raise OptionError(
            "there are no images; give at least one folder, file or pattern, as in `unalike shield build photos --out DIR`"
        )


def require_space(space: str) -> None:
    """Make sure that there is such a space.

    Raises:
        OptionError: otherwise.
    """
    if space == LATENT:
        return
    try:
        parse(space)
    except OptionError as error:
        raise OptionError(
            f"space is {space!r}; allowed: {LATENT}, {', '.join(spellings())}"
        ) from error


def require_least(name: str, value: int | None, least: int) -> None:
    """Make sure that a number, if it is given, is large enough.

    Raises:
        OptionError: otherwise.
    """
    if value is not None and value < least:
        raise OptionError(f"{name} is {value}; it must be a whole number of at least {least}")


def parse_radius(text: str) -> float | None:
    """The radius of the command line: a number, or None for auto.

    Raises:
        OptionError: for anything else.

    Example:
        >>> parse_radius("12.5"), parse_radius("auto")
        (12.5, None)
    """
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise OptionError(
            f"radius is {text!r}; allowed: a finite number above 0, or auto, as in --radius 20"
        ) from error
