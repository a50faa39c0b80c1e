"""Where a model's files are: by its name, its folder, its file or its id on the hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from unalike.errors import Message, OptionError, StoreError, did_you_mean, named
from unalike.files import read_json
from unalike.hub import offline_options
from unalike.options import fault_of_name
from unalike.pipelines.catalogue import MODELS, Model
from unalike.pipelines.single_file import is_file_name, require_checkpoint, usual_config

INDEX = "model_index.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """The place of a pipeline's files.

    Attributes:
        place: a folder, a checkpoint file, or the id of a model on the hub.
        row: of the catalogue, where it was asked for by its name.
        config: of a checkpoint file, where its configuration is.
    """

    place: Path | str
    row: Model | None = None
    config: Source | None = None

    @property
    def places(self) -> list[Path | str]:
        """All places that the model is made of: base, ControlNet and LoRA of its row too."""
        found = [self.place, *(self.config.places if self.config else ())]
        if self.row:
            found += find(self.row.base).places if self.row.base else []
            found += [self.row.controlnet] if self.row.controlnet else []
            found += [in_package(self.row.lora)] if self.row.lora else []
        return found


def find(name: str | Path, config: str | Path | None = None) -> Source:
    """Find the files of a model by its name, its folder, its file or its id on the hub.

    Nothing is downloaded.

    Args:
        name: of the model.
        config: of a checkpoint file, the model whose configuration it has.

    Raises:
        OptionError: for anything else; the message lists the names.
        StoreError: where the weights of a shipped model are missing, and for a damaged checkpoint.
    """
    if config is not None and not (isinstance(name, str | Path) and Path(name).is_file()):
        raise OptionError(
            named(
                "{model_config} is {!r}, and {model} is {!r}; it is for a checkpoint in one "
                ".safetensors file, so leave it out",
                str(config),
                str(name),
            )
        )
    if not isinstance(name, str | Path):
        raise OptionError(_unknown(name))
    if fault_of_name(str(name)):
        raise OptionError(_unknown(name))
    row = MODELS.get(str(name))
    if row is not None:
        return Source(row.checkpoint or shipped(row), row)
    if Path(name).is_dir():
        if not (Path(name) / INDEX).is_file():
            raise OptionError(
                named(
                    "{model} is the folder {!r}, which has no {}; give one that a pipeline's "
                    "save_pretrained wrote",
                    str(name),
                    INDEX,
                )
            )
        return Source(Path(name))
    if Path(name).is_file() or is_file_name(str(name)):
        require_checkpoint(Path(name))
        return Source(Path(name), config=_config(Path(name), config))
    if isinstance(name, str) and _HUB_ID.fullmatch(name):
        return Source(name)
    raise OptionError(_unknown(name))


def _config(file: Path, name: str | Path | None) -> Source:
    """The place of the configuration of a checkpoint file."""
    if name is None:
        return Source(usual_config(file))
    try:
        found = find(name)
    except OptionError as error:
        raise OptionError(
            named(
                "{model_config} is {!r}; allowed: {}, a folder in diffusers' layout, or a hub id",
                str(name),
                ", ".join(MODELS),
            )
        ) from error
    if found.config is not None:
        raise OptionError(
            named(
                "{model_config} is {!r}, which is weights; give a folder in diffusers' layout",
                str(name),
            )
        )
    return Source(found.place, found.row)


def shipped(row: Model) -> Path:
    """The folder of a model that comes with the package.

    Raises:
        StoreError: where it, or the LoRA, is not there.
    """
    folder = in_package(row.files or "")
    if not (folder / INDEX).is_file() or (row.lora and not in_package(row.lora).is_file()):
        raise StoreError(
            f"the weights of the model {row.name!r} are missing from this installation; install "
            "the package again"
        )
    return folder


def pipeline_class(source: Source) -> Any:
    """The diffusers class that the model is made for.

    Raises:
        OptionError, StoreError: where the folder or the hub does not say it, and for a class that
            this version of diffusers has not.
    """
    import diffusers

    if source.config:
        try:
            return pipeline_class(source.config)
        except (OptionError, StoreError) as error:
            raise _without_config(source, error) from error
    if source.row:
        name = source.row.pipeline
    else:
        try:
            name = _class_name(source.place)
        except (OSError, ValueError) as error:
            raise refused(source, error) from error
    kind = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline)):
        raise StoreError(
            f"{_named(source)!r} says that it is a {name}, which is no pipeline of diffusers "
            f"{diffusers.__version__}; use another version of diffusers, or another model"
        )
    return kind


def in_package(path: str) -> Path:
    """The path of a file that comes with the package, below `unalike.models`."""
    return Path(str(resources.files("unalike.models").joinpath(path)))


def _named(source: Source) -> str:
    if source.row:
        return source.row.name
    return str(source.place)


def _class_name(place: Path | str) -> str:
    """The class that `model_index.json` of a folder or of the hub names."""
    import diffusers

    if isinstance(place, Path):
        config = read_json(place / INDEX)
    else:
        offline = offline_options(place, INDEX)
        config = diffusers.DiffusionPipeline.load_config(place, **offline)
    name = config.get("_class_name") if isinstance(config, dict) else None
    if not isinstance(name, str):
        raise ValueError(f"its {INDEX} does not name the class of a pipeline")
    return name


def refused(source: Source, error: Exception) -> OptionError | StoreError:
    """The error for a model that diffusers cannot load, with the reason that it gave."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(source.place, Path):
        what = "file" if source.config else "folder"
        return StoreError(f"the model {what} {str(source.place)!r} cannot be loaded: {reason}")
    if source.row:
        return StoreError(
            named(
                "{model} is {!r}, which is {!r} on the Hugging Face hub and cannot be loaded: {}. "
                "With its files in a folder, give that: {model=FOLDER}",
                source.row.name,
                source.place,
                reason,
            )
        )
    if isinstance(error, ConnectionError):
        known = ", ".join(name for name, row in MODELS.items() if row.checkpoint is None)
        return OptionError(
            named(
                "{model} is {!r}: {}. Allowed without a network: {}, or a folder",
                source.place,
                reason,
                known,
            )
        )
    return OptionError(named("{}. From the hub: {}", _unknown(source.place), reason))


def _without_config(source: Source, error: Exception) -> OptionError:
    assert source.config is not None
    return OptionError(
        named(
            "{model} is {!r}, whose configuration and tokenizers are those of {!r}, and: {}. With "
            "them in a folder, give that: {model_config=FOLDER}",
            str(source.place),
            _named(source.config),
            " ".join(str(error.__cause__ or error).split()),
        )
    )


def _unknown(name: object) -> Message:
    return named(
        "{model} is {!r}; {}allowed: {}, a folder in diffusers' layout, a .safetensors file, or a "
        "hub id such as OWNER/NAME",
        str(name),
        did_you_mean(name, MODELS),
        ", ".join(MODELS),
    )
