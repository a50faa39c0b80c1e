"""The models that come with the package, and one function that loads those and any other.

This module imports neither torch nor diffusers until a model is loaded, so that the command line can list the catalogue at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.errors import OptionError, StoreError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class Model:
    """One row of the catalogue.

    Args:
        name: what `load` and `--model` take.
        summary: one line on what it draws.
        pipeline: the diffusers class that loads it.
        steps: sampling steps that its defaults were chosen with.
        guidance_scale: weight of classifier-free guidance, likewise.
        size: height and width of its images in pixels.
        methods: the guidance used where none is asked for: method name → options.
    """

    name: str
    summary: str
    pipeline: str
    steps: int
    guidance_scale: float
    size: tuple[int, int]
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model(
            name="emoji",
            summary="text to 64×64 pictures in the style of the Noto emoji; shipped with the package, needs no download and no GPU",
            pipeline="StableDiffusionPipeline",
            steps=25,
            guidance_scale=2.0,
            size=(64, 64),
            methods={"auto": {}},
        ),
        Model(
            name="digits",
            summary="class to 16×16 pictures of handwritten digits, for the prompts 0 to 9 or zero to nine; shipped with the package",
            pipeline="DiTPipeline",
            steps=25,
            guidance_scale=1.5,
            size=(16, 16),
            methods={"auto": {}},
        ),
    )
}


def load(name_or_path: str | Path | DiffusionPipeline, **options: Any) -> Any:
    """A diffusers pipeline, ready to be guided.

    Args:
        name_or_path: a name of `MODELS`; a folder in diffusers' layout; the id of a model on the Hugging Face hub, such as
            "stabilityai/stable-diffusion-xl-base-1.0", which is downloaded once; or a pipeline, which comes back as it is.
        **options: what `DiffusionPipeline.from_pretrained` takes. `dtype` is float32 unless given.

    Returns:
        The diffusers pipeline, of whatever class the model has, on the CPU unless `options` say otherwise.

    Raises:
        OptionError: for a name that is none of these, or for options together with a finished pipeline.
        StoreError: when the files are there and cannot be loaded.

    Example:
        >>> load("emojy")
        Traceback (most recent call last):
            ...
        unalike.errors.OptionError: unknown model 'emojy'; did you mean 'emoji'? Allowed: emoji, digits, a folder ...
    """
    if not isinstance(name_or_path, str | Path):
        return _as_it_is(name_or_path, options)
    if name_or_path in MODELS:
        folder = resources.files("unalike.models").joinpath(f"{name_or_path}/weights")
        with resources.as_file(folder) as path:
            if not (path / "model_index.json").is_file():
                raise StoreError(f"the weights of the model {name_or_path!r} are missing from this installation; install the package again")
            return _from_pretrained(path, options)
    if Path(name_or_path).is_dir():
        if not (Path(name_or_path) / "model_index.json").is_file():
            raise OptionError(
                f"model folder {str(name_or_path)!r} has no model_index.json; give a folder written by a pipeline's save_pretrained"
            )
        return _from_pretrained(Path(name_or_path), options)
    if isinstance(name_or_path, str) and _HUB_ID.fullmatch(name_or_path):
        return _from_pretrained(name_or_path, options)
    raise OptionError(_unknown(name_or_path))


def quieten_hosts(*, downloads: bool) -> None:
    """Turn off the hints and loading bars of diffusers and transformers in this process, for a program that shows its own.

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


def _as_it_is(pipe: Any, options: Mapping[str, Any]) -> DiffusionPipeline:
    from diffusers import DiffusionPipeline

    if not isinstance(pipe, DiffusionPipeline):
        raise OptionError(f"model is a {type(pipe).__name__}; allowed: a name, a folder or a diffusers pipeline, as in load('emoji')")
    if options:
        raise OptionError(f"{', '.join(options)} cannot be set on a pipeline that is loaded already; give its name or folder instead")
    return pipe


def _from_pretrained(source: Path | str, options: Mapping[str, Any]) -> DiffusionPipeline:
    import torch
    from diffusers import DiffusionPipeline

    try:
        return DiffusionPipeline.from_pretrained(source, **{"dtype": torch.float32, **options})
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        if isinstance(source, Path):
            raise StoreError(f"the model folder {source.name!r} cannot be loaded: {reason}") from error
        raise OptionError(f"{_unknown(source)}. From the hub: {reason}") from error


def _unknown(name: str | Path) -> str:
    close = difflib.get_close_matches(str(name), MODELS, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return (
        f'unknown model {str(name)!r}; {hint}Allowed: {", ".join(MODELS)}, a folder in diffusers\' layout, or a hub id such as "owner/name"'
    )
