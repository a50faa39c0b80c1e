"""Pipelines by the name of a model, a folder or a hub id."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from unalike.errors import Message, OptionError, StoreError, did_you_mean, named
from unalike.files import read_json
from unalike.hub import offline_options
from unalike.options import fault_of_name
from unalike.pipelines.catalogue import MODELS, Model

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_INDEX = "model_index.json"
_DAMAGED = (
    OSError,
    ValueError,
    RuntimeError,
    TypeError,
    AttributeError,
    LookupError,
    ImportError,
    AssertionError,
    MemoryError,
    SafetensorError,
)
"""The errors of diffusers and transformers for files that are damaged or not theirs."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def load(name_or_path: str | Path | DiffusionPipeline, **options: Any) -> Any:
    """A diffusers pipeline, ready to be guided.

    Args:
        name_or_path: a name of `MODELS`; a folder in diffusers' layout; the id of a model on the
            Hugging Face hub, such as "stabilityai/stable-diffusion-xl-base-1.0", which is
            downloaded once; or a pipeline, which comes back as it is.
        **options: what `DiffusionPipeline.from_pretrained` takes. `dtype` is float32 unless given;
            for a named model on a machine with a GPU it is the one that the catalogue has.

    Returns:
        The diffusers pipeline, of whatever class the model has, on the CPU unless `options` say
        otherwise. Its own call has the defaults of its class; `guide(load(name))` uses the steps,
        the guidance scale and the other arguments that `MODELS` has for the name.

    Raises:
        OptionError: for a name that is none of these, or for options together with a finished
            pipeline.
        StoreError: when the files are there and cannot be loaded.

    Example:
        >>> load("emojy")
        Traceback (most recent call last):
            ...
        unalike.errors.OptionError: model is 'emojy'; did you mean 'emoji'? allowed: emoji, ...
    """
    if not isinstance(name_or_path, str | Path):
        return _as_it_is(name_or_path, options)
    source = find(name_or_path)
    with _quiet():
        return read(source, pipeline_class(source) if source.row else None, options)


@dataclass(frozen=True)
class Source:
    """The place of a pipeline's files.

    Attributes:
        place: a folder, or the id of a model on the hub.
        row: of the catalogue, where it was asked for by its name.
    """

    place: Path | str
    row: Model | None = None


def find(name: str | Path) -> Source:
    """Find the files of a model by its name, its folder or its id on the hub.

    Nothing is downloaded.

    Raises:
        OptionError: for anything else; the message lists the names.
        StoreError: where the weights of a shipped model are missing.
    """
    if not isinstance(name, str | Path):
        raise OptionError(_unknown(name))
    if fault_of_name(str(name)):
        raise OptionError(_unknown(name))
    row = MODELS.get(str(name))
    if row is not None:
        return Source(row.checkpoint or shipped(row), row)
    if Path(name).is_dir():
        if not (Path(name) / _INDEX).is_file():
            raise OptionError(
                named(
                    "{model} is the folder {!r}, which has no {}; give one that a pipeline's "
                    "save_pretrained wrote",
                    str(name),
                    _INDEX,
                )
            )
        return Source(Path(name))
    if isinstance(name, str) and _HUB_ID.fullmatch(name):
        return Source(name)
    raise OptionError(_unknown(name))


def shipped(row: Model) -> Path:
    """The folder of a model that comes with the package.

    Raises:
        StoreError: where it, or the LoRA, is not there.
    """
    folder = _in_package(row.files or "")
    if not (folder / _INDEX).is_file() or (row.lora and not _in_package(row.lora).is_file()):
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

    if source.row:
        name = source.row.pipeline
    else:
        try:
            name = _class_name(source.place)
        except (OSError, ValueError) as error:
            raise _refused(source, error) from error
    kind = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline)):
        raise StoreError(
            f"{_named(source)!r} says that it is a {name}, which is no pipeline of diffusers "
            f"{diffusers.__version__}; use another version of diffusers, or another model"
        )
    return kind


def read(source: Source, kind: Any, options: Mapping[str, Any]) -> Any:
    """The pipeline of a class, or of the one that the files name where `kind` is None, with
    ControlNet and scheduler as its row says.

    Raises:
        OptionError, StoreError: as `load`.
    """
    import diffusers
    import torch

    row, chosen = source.row, dict(options)
    try:
        if "dtype" not in chosen and "torch_dtype" not in chosen:
            chosen["dtype"] = (
                getattr(torch, row.dtype) if row and torch.cuda.is_available() else torch.float32
            )
            if row and row.variant and chosen["dtype"] != torch.float32:
                chosen.setdefault("variant", row.variant)
        if isinstance(source.place, str):
            chosen |= offline_options(source.place, _INDEX)
        if row and row.base:
            chosen = _shared_parts(row, chosen) | chosen
        if row and row.controlnet and "controlnet" not in chosen:
            chosen["controlnet"] = diffusers.ControlNetModel.from_pretrained(
                row.controlnet, torch_dtype=chosen.get("dtype")
            )
        pipe = (kind or diffusers.DiffusionPipeline).from_pretrained(source.place, **chosen)
        if row and row.lora:
            _load_lora(pipe, row)
    except _DAMAGED as error:
        raise _refused(source, error) from error
    if row and row.scheduler and "scheduler" not in options:
        pipe.scheduler = getattr(diffusers, row.scheduler).from_config(pipe.scheduler.config)
    if row:
        pipe._unalike_model = row  # whose steps and guidance scale a guided call uses
    return pipe


def _shared_parts(row: Model, options: Mapping[str, Any]) -> dict[str, Any]:
    """The components that a shipped model borrows of its base, in its precision."""
    from unalike.pipelines.flow_parts import flow_parts

    precision = {name: options[name] for name in ("dtype", "torch_dtype") if name in options}
    return flow_parts(load(row.base or "", **precision))


def _load_lora(pipe: Any, row: Model) -> None:
    """Load the LoRA of a shipped model into its pipeline, as the adapter of the model's name."""
    file = _in_package(row.lora or "")
    pipe.load_lora_weights(file.parent, weight_name=file.name, adapter_name=row.name)


def _in_package(path: str) -> Path:
    return Path(str(resources.files("unalike.models").joinpath(path)))


def quieten_hosts(*, downloads: bool) -> None:
    """Turn off the hints and loading bars of diffusers and transformers in this process, for a
    program that shows its own.

    Args:
        downloads: also turn off the bars of downloads from the hub, which may take minutes.
    """
    import diffusers
    import huggingface_hub
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    if not downloads:
        huggingface_hub.utils.enable_progress_bars()


@contextmanager
def _quiet() -> Iterator[None]:
    """No hints and no loading bars of diffusers and transformers; afterwards as it was before."""
    import diffusers
    import transformers

    places: list[Any] = [library.utils.logging for library in (diffusers, transformers)]
    before = [(place.get_verbosity(), place.is_progress_bar_enabled()) for place in places]
    try:
        for place in places:
            place.set_verbosity_error()
            place.disable_progress_bar()
        yield
    finally:
        for place, (verbosity, bars) in zip(places, before, strict=True):
            place.set_verbosity(verbosity)
            if bars:
                place.enable_progress_bar()


def _as_it_is(pipe: Any, options: Mapping[str, Any]) -> DiffusionPipeline:
    from diffusers import DiffusionPipeline

    if not isinstance(pipe, DiffusionPipeline):
        raise OptionError(
            f"model is a {type(pipe).__name__}; allowed: a name, a folder or a diffusers pipeline, "
            "as in load('emoji')"
        )
    if options:
        raise OptionError(
            f"{', '.join(options)} cannot be set on a pipeline that is loaded already; give its "
            "name or folder instead"
        )
    return pipe


def _named(source: Source) -> str:
    if source.row:
        return source.row.name
    return str(source.place)


def _class_name(place: Path | str) -> str:
    """The class that `model_index.json` of a folder or of the hub names."""
    import diffusers

    if isinstance(place, Path):
        config = read_json(place / _INDEX)
    else:
        offline = offline_options(place, _INDEX)
        config = diffusers.DiffusionPipeline.load_config(place, **offline)
    name = config.get("_class_name") if isinstance(config, dict) else None
    if not isinstance(name, str):
        raise ValueError(f"its {_INDEX} does not name the class of a pipeline")
    return name


def _refused(source: Source, error: Exception) -> OptionError | StoreError:
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(source.place, Path):
        return StoreError(f"the model folder {str(source.place)!r} cannot be loaded: {reason}")
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


def _unknown(name: object) -> Message:
    return named(
        "{model} is {!r}; {}allowed: {}, a folder in diffusers' layout, or a hub id such as "
        "OWNER/NAME",
        str(name),
        did_you_mean(name, MODELS),
        ", ".join(MODELS),
    )
