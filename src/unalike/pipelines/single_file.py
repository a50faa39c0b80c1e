"""Checkpoints in one safetensors file, as other tools save them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from unalike.errors import OptionError, StoreError, named
from unalike.files import read_json, read_tensor_names

SUFFIX = ".safetensors"
_MISSING = re.compile(r"^(\w+) = ", re.MULTILINE)  # in diffusers' advice to load it first
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")


def is_file_name(name: str) -> bool:
    """Whether a name can only be that of a checkpoint file.

    Example:
        >>> is_file_name("models/style.safetensors"), is_file_name("owner/model")
        (True, False)
    """
    return Path(name).suffix.lower() in (SUFFIX, *_PICKLES)


def require_checkpoint(path: Path) -> None:
    """Make sure that a file is a model in safetensors; the names of its tensors are read.

    Raises:
        OptionError: for a file that is not there, is a pickle, or is a LoRA.
        StoreError: for one that is damaged.
    """
    if path.suffix.lower() in _PICKLES:
        raise OptionError(
            named(
                "{model} is {!r}, a pickle, which may run any program when it is read; allowed: "
                "a {} file, as in {model=FILE.safetensors}",
                str(path),
                SUFFIX,
            )
        )
    if not path.exists():
        raise OptionError(
            named("{model} is {!r}, and there is no such file; check the path", str(path))
        )
    names = _tensor_names(path)
    if any("lora" in name.lower() for name in names):
        raise OptionError(
            named(
                "{model} is {!r}, which is a LoRA; give the model that it is for, and the file as "
                "{lora=FILE}",
                str(path),
            )
        )


def usual_config(path: Path) -> str:
    """The hub id whose configuration diffusers takes for a checkpoint, by its tensors.

    Raises:
        StoreError: for tensors that diffusers does not know.
    """
    import torch
    from diffusers.loaders.single_file_utils import fetch_diffusers_config

    tensors = {
        name: torch.empty(shape, device="meta") for name, shape in _tensor_names(path).items()
    }
    try:
        found: Mapping[str, Any] = fetch_diffusers_config(tensors)
        return str(found["pretrained_model_name_or_path"])
    except (LookupError, ValueError, RuntimeError, UnboundLocalError) as error:
        raise StoreError(
            f"the model file {str(path)!r} is of no kind that diffusers knows; give a folder in "
            "diffusers' layout"
        ) from error


def read_single_file(kind: Any, path: Path, config: Path | str, options: Mapping[str, Any]) -> Any:
    """The pipeline of a class from a checkpoint and the configuration of its components.

    Components that the file has not, such as text encoders, are read from the folder of the
    configuration where their weights are there.

    Raises:
        OptionError: for a class that diffusers does not read from one file.
        StoreError: where weights are missing in both.
    """
    from diffusers.loaders.single_file_utils import SingleFileComponentError

    if not hasattr(kind, "from_single_file"):
        raise OptionError(
            named(
                "{model} is {!r}, and diffusers does not read {} from one file; give a folder in "
                "its own layout: {model=FOLDER}",
                str(path),
                kind.__name__,
            )
        )
    parts: dict[str, Any] = {}
    while True:
        try:
            return kind.from_single_file(str(path), config=str(config), **options, **parts)
        except SingleFileComponentError as error:
            missing = _MISSING.search(str(error.message))
            name = missing[1] if missing else ""
            part = None if name in parts else _part(config, name, options)
            if part is None:
                raise StoreError(
                    named(
                        "the model file {!r} lacks weights: it has no {}; give a folder in "
                        "diffusers' layout that has them: {model_config=FOLDER}",
                        str(path),
                        name or "complete model",
                    )
                ) from error
            parts[name] = part


def _part(config: Path | str, name: str, options: Mapping[str, Any]) -> Any:
    """A component from the folder of the configuration; None where its weights are not there."""
    folder = Path(config) / name
    if not (name and any(folder.glob(f"*{SUFFIX}"))):
        return None
    library, kind = read_json(Path(config) / "model_index.json")[name]
    if library not in ("diffusers", "transformers"):
        return None
    dtype = options.get("dtype", options.get("torch_dtype"))
    return getattr(import_module(library), kind).from_pretrained(folder, dtype=dtype)


def _tensor_names(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        return read_tensor_names(path)
    except (OSError, ValueError) as error:
        raise StoreError(f"the model file {str(path)!r} cannot be read: {error}") from error
