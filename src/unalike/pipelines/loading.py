"""Pipelines by the name of a model, a folder or a hub id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from unalike.errors import OptionError
from unalike.hub import offline_options
from unalike.pipelines.catalogue import Model
from unalike.pipelines.single_file import read_single_file
from unalike.pipelines.sources import INDEX, Source, find, in_package, pipeline_class, refused

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

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


def load(name_or_path: str | Path | DiffusionPipeline, **options: Any) -> Any:
    """A diffusers pipeline, ready to be guided.

    Args:
        name_or_path: a name of `MODELS`; a folder in diffusers' layout; the id of a model on the
            Hugging Face hub, such as "stabilityai/stable-diffusion-xl-base-1.0", which is
            downloaded once; a checkpoint in one .safetensors file; or a pipeline, which comes back
            as it is.
        **options: what `DiffusionPipeline.from_pretrained` takes. `dtype` is float32 unless given;
            for a named model on a machine with a GPU it is the one that the catalogue has. For a
            checkpoint file `config` is the model, named in the same way, whose configuration and
            tokenizers it has; without it diffusers chooses one of the hub by the tensors.

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
    return open_source(find(name_or_path, options.pop("config", None)), **options)


def open_source(source: Source, **options: Any) -> Any:
    """The pipeline of a source.

    Args:
        source: made by `find`.
        **options: as of `load`.

    Raises:
        OptionError, StoreError: as `load`.
    """
    known = source.row or source.config
    with _quiet():
        return read(source, pipeline_class(source) if known else None, options)


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
            chosen |= offline_options(source.place, INDEX)
        if row and row.base:
            chosen = _shared_parts(row, chosen) | chosen
        if row and row.controlnet and "controlnet" not in chosen:
            chosen["controlnet"] = diffusers.ControlNetModel.from_pretrained(
                row.controlnet, torch_dtype=chosen.get("dtype")
            )
        if source.config:
            return _read_file(source, kind, chosen)
        pipe = (kind or diffusers.DiffusionPipeline).from_pretrained(source.place, **chosen)
        if row and row.lora:
            _load_lora(pipe, row)
    except OptionError:
        raise
    except _DAMAGED as error:
        raise refused(source, error) from error
    if row and row.scheduler and "scheduler" not in options:
        pipe.scheduler = getattr(diffusers, row.scheduler).from_config(pipe.scheduler.config)
    if row:
        pipe._unalike_model = row  # whose steps and guidance scale a guided call uses
    return pipe


def _read_file(source: Source, kind: Any, options: dict[str, Any]) -> Any:
    """The pipeline of a checkpoint file."""
    assert source.config is not None
    place = source.config.place
    offline = offline_options(place, INDEX) if isinstance(place, str) else {}
    return read_single_file(kind, Path(source.place), place, options | offline)


def _shared_parts(row: Model, options: Mapping[str, Any]) -> dict[str, Any]:
    """The components that a shipped model borrows of its base, in its precision."""
    from unalike.pipelines.flow_parts import flow_parts

    precision = {name: options[name] for name in ("dtype", "torch_dtype") if name in options}
    return flow_parts(load(row.base or "", **precision))


def _load_lora(pipe: Any, row: Model) -> None:
    """Load the LoRA of a shipped model into its pipeline, as the adapter of the model's name."""
    file = in_package(row.lora or "")
    pipe.load_lora_weights(file.parent, weight_name=file.name, adapter_name=row.name)


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
