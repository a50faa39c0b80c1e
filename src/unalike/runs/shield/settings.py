"""Settings of the commands of `unalike shield`, checked before anything is loaded. Neither
torch nor numpy is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from unalike.errors import Literal, Message, Option, OptionError, did_you_mean, named
from unalike.extractors.table import parse, spellings
from unalike.files import read_json
from unalike.options import LARGEST_SEED, option, plain_number, require_allowed
from unalike.runs.settings import Folders, as_paths, as_texts

LATENT = "latent"
DTYPES = ("float16", "float32")
GENERATIONS = 8
_MANIFEST, _RECORD = "manifest.json", "run.json"
_LARGEST_SIDE = 16_384
_IMAGES = (
    "Folders, files or patterns of images; .parquet or .tar files of images; .npy or .safetensors "
    "of latents."
)


def _batch_size() -> Any:
    return option(32, "Images encoded at a time.", low=1, high=100_000)


def _skip_bad() -> Any:
    return option(False, "Leave images out that cannot be read.")


def _device() -> Any:
    return option("auto", "Where to compute: auto, cpu, cuda, cuda:1, mps.", kind=str)


def _edits() -> Any:
    help = "Measure the images again after each of three edits: jpeg80, half, crop10."
    return option(False, help)


def _space_of_the_set() -> Any:
    help = "The features of the set, with the folder they are in, as in clip:FOLDER."
    return option(None, help, kind=str, choices=(None,), example="pixels")


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
        unalike.errors.OptionError: model is missing: latents belong to a model; name
        it, as in model='emoji', or choose features, as in space='pixels'
    """

    images: tuple[str, ...] = option(MISSING, _IMAGES, kind=tuple, example=("photos",))
    out: Path = option(MISSING, "Folder for the set.", kind=Path)
    model: str | None = option(
        None,
        "The model whose latents they become: a name of `unalike models`, a folder, or a hub id.",
        kind=str,
        choices=(None,),
        example="emoji",
    )
    radius: float | None = option(
        None,
        "Radius of the ball around each image; auto measures it.",
        above=0,
        high=1_000_000_000,
        choices=(None,),
        example=20,
    )
    space: str = option(
        LATENT,
        "What to compare images by: latent, or features such as pixels, clip, dinov2.",
        kind=str,
    )
    size: tuple[int, int] | None = None
    dtype: str = option(
        "float32",
        "How vectors are stored: float32, or float16 in half the room.",
        choices=DTYPES,
    )
    prompts: tuple[str, ...] = option(
        (),
        "Measure the radius on unguided images of this prompt too; repeat it for several.",
        kind=tuple,
        example=("cat",),
    )
    generations: int | None = option(
        None,
        "Unguided images of each prompt. [default: 8]",
        kind=int,
        low=1,
        high=10_000,
        choices=(None,),
        example=GENERATIONS,
    )
    seed: int = option(
        0,
        "Seed of the unguided images, and of the sample that distances are measured on.",
        low=0,
        high=LARGEST_SEED - 10_000,
    )
    batch_size: int = _batch_size()
    skip_bad: bool = _skip_bad()
    device: str = _device()

    def __post_init__(self) -> None:
        require_allowed(self)
        require_images(self.images)
        require_space(self.space)
        if self.size is not None:
            object.__setattr__(self, "size", _size(self.size))
        for fault in self._faults():
            raise OptionError(fault)

    def _faults(self) -> Iterator[Message]:
        """Messages about settings that do not fit together."""
        if self.model is None and self.space == LATENT:
            yield named(
                "{model} is missing: latents belong to a model; name it, as in {model='emoji'}, or "
                "choose features, as in {space='pixels'}"
            )
        if self.model is not None and self.space != LATENT and not self.prompts:
            yield named(
                "{model} is {!r}, and the features {!r} need none; leave it out, or draw with it, "
                "as in {}",
                self.model,
                self.space,
                Option("prompts", ("cat",)),
            )
        if self.model is None and self.prompts:
            yield named("{prompts} needs a model to draw with; name it, as in {model='emoji'}")
        if self.size is not None and self.space != LATENT:
            yield named(
                "{size} is {} {}, and the features {!r} resize by themselves; leave it out",
                *self.size,
                self.space,
            )
        if self.radius is not None and self.prompts:
            yield named(
                "{radius} is {:g}, so nothing is measured on {prompts}; leave one of the two out",
                self.radius,
            )
        if self.generations is not None and not self.prompts:
            yield named(
                "{generations} is {}, and there is no prompt to draw; add one, as in {}",
                self.generations,
                Option("prompts", ("cat",)),
            )


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

    folder: Path = option(MISSING, "A protected set.", kind=Path)
    images: tuple[str, ...] = option(MISSING, _IMAGES, kind=tuple, example=("photos",))
    model: str | None = option(
        None,
        "The model whose latents they become. [default: the one that the set was built with]",
        kind=str,
        choices=(None,),
        example="emoji",
    )
    space: str | None = _space_of_the_set()
    batch_size: int = _batch_size()
    skip_bad: bool = _skip_bad()
    device: str = _device()

    def __post_init__(self) -> None:
        require_allowed(self)
        require_images(self.images)
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
        edits: measure every image after each of `unalike.runs.shield.edits` too.
    """

    out: Path | None = option(
        None, "Folder for the results. [default: a new one]", kind=Path, choices=(None,)
    )
    overwrite: bool = option(False, "Replace the earlier results in that folder.")
    edits: bool = _edits()


@dataclass(frozen=True, kw_only=True)
class VerifySettings:
    """The settings of `unalike shield verify`.

    Args:
        run: an output folder of `unalike generate`.
        folder: of its protected set, or of each; empty for those of their names in the current
            folder.
        model: the model that drew the run; None for the one that it names.
        space: the features of such a set, with the folder they are in.
        device: "auto", or a device of torch.
        edits: measure every finished image after each of `unalike.runs.shield.edits` too.

    Raises:
        OptionError: for a value outside what is allowed.
    """

    run: Path = option(MISSING, "An output folder of generate.", kind=Path)
    folder: Folders = option(
        (),
        "Its protected set; repeat it for several. [default: those of their names in this folder]",
        kind=tuple,
        example=Literal("DIR"),
        paths=True,
    )
    model: str | None = option(
        None,
        "The model that drew it. [default: the one it names]",
        kind=str,
        choices=(None,),
        example="emoji",
    )
    space: tuple[str, ...] | str | None = option(
        (),
        "Where the features of such a set are, as in clip:FOLDER. [default: as it says]",
        kind=tuple,
        example=Literal("clip:FOLDER"),
    )
    device: str = _device()
    edits: bool = _edits()

    def __post_init__(self) -> None:
        as_texts(self, "folder", "space")
        require_allowed(self)
        for space in self.space or ():
            require_space(space)

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders of the protected sets."""
        return as_paths(self.folder)


_Given = TypeVar("_Given", bound=AddSettings)


def with_model(settings: _Given) -> _Given:
    """The settings with the model of the set, or of a run among the images, where none is given.

    It is asked before anything is loaded. A set that is not there or damaged is left to whoever
    opens it.

    Raises:
        OptionError: for a set of latents that does not say of which model.
    """
    try:
        manifest = read_json(settings.folder / _MANIFEST)
    except (OSError, ValueError):
        return settings
    if (
        not isinstance(manifest, dict)
        or manifest.get("embedding")
        or settings.model
        or settings.space
    ):
        return settings
    names = [manifest.get("model"), *(_model_of_run(Path(given)) for given in settings.images)]
    found = next((name for name in names if isinstance(name, str)), None)
    if found is None:
        raise OptionError(
            named(
                "{model} is missing: the set {!r} is one of latents and does not say of which "
                "model; name it, as in {model='emoji'}",
                str(settings.folder),
            )
        )
    return replace(settings, model=found)


def _model_of_run(folder: Path) -> Any:
    """The name of the model that drew an output folder."""
    try:
        record = read_json(folder / _RECORD)
    except (OSError, ValueError):
        return None
    model = record.get("model") if isinstance(record, dict) else None
    return model.get("name") if isinstance(model, dict) else None


def require_images(images: tuple[str, ...]) -> None:
    """Make sure that there is something to read.

    Raises:
        OptionError: otherwise.
    """
    if not images:
        raise OptionError(
            named(
                "{images} is missing; give at least one folder, file or pattern, as in {}",
                Option("images", ("photos",)),
            )
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
        kind = space.partition(":")[0]
        names = [LATENT, *spellings()]
        raise OptionError(
            named(
                "{space} is {!r}; {}allowed: {}",
                space,
                did_you_mean(kind, [name.partition("[")[0] for name in names]),
                ", ".join(names),
            )
        ) from error


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
            named("{radius} is {!r}; allowed: a number above 0, or auto, as in {radius=20}", text)
        ) from error


def _size(size: Any) -> tuple[int, int]:
    """Height and width as plain whole numbers."""
    sides = [plain_number(n) for n in size] if isinstance(size, tuple | list) else []
    if len(sides) != 2 or not all(isinstance(n, int) and 1 <= n <= _LARGEST_SIDE for n in sides):
        raise OptionError(
            named(
                "{size} is {!r}; allowed: height and width, whole numbers at least 1 and at most "
                "{:,}, as in {}",
                size,
                _LARGEST_SIDE,
                Option("size", (512, 512)),
            )
        )
    return int(sides[0] or 0), int(sides[1] or 0)
