"""LoRAs from files, each with its scale, several at a time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Self

from unalike.errors import Option, OptionError, StoreError, named
from unalike.files import read_tensor_names

_EXAMPLE = Option("lora", ("style.safetensors:0.8",))
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_SUFFIX = ".safetensors"
_MOST = 100.0


@dataclass(frozen=True)
class Lora:
    """A file of LoRA weights and how strongly they act.

    Args:
        file: of safetensors.
        scale: 0 for not at all, 1 for as trained.
    """

    file: Path
    scale: float = 1.0

    @classmethod
    def find(cls, text: str) -> Self:
        """The LoRA of "FILE" or "FILE:SCALE"; nothing but the names of its tensors is read.

        Args:
            text: a safetensors file, or a folder with one, as `save_lora_weights` writes it.

        Raises:
            OptionError: for a file that is not there, is a pickle, or holds no LoRA, and for a
                scale that is no number.
        """
        path, scale = split_scale(text)
        place = Path(path)
        if place.is_dir():
            place = _only_file(place, text)
        if place.suffix.lower() in _PICKLES:
            raise OptionError(
                named(
                    "{lora} is {!r}, a pickle, which may run any program when it is read; allowed: "
                    "{} files, as in {}",
                    text,
                    _SUFFIX,
                    _EXAMPLE,
                )
            )
        try:
            names = read_tensor_names(place)
        except (OSError, ValueError) as error:
            raise OptionError(
                named(
                    "{lora} is {!r}: {}; give a {} file, as in {}", text, error, _SUFFIX, _EXAMPLE
                )
            ) from error
        if not any("lora" in name.lower() for name in names):
            raise OptionError(
                named(
                    "{lora} is {!r}, which has no weights of a LoRA; a whole model is given as "
                    "{model=FILE.safetensors}",
                    text,
                )
            )
        return cls(place, scale)


def split_scale(text: str) -> tuple[str, float]:
    """Path and scale of "FILE" or "FILE:SCALE".

    A colon in the name of a file that is there belongs to the name.

    Raises:
        OptionError: for a scale that is no number, or larger than 100 either way.

    Example:
        >>> split_scale("style.safetensors:0.8"), split_scale("style.safetensors")
        (('style.safetensors', 0.8), ('style.safetensors', 1.0))
    """
    path, colon, number = text.rpartition(":")
    if not colon or Path(text).exists() or "/" in number or "\\" in number:
        return text, 1.0
    try:
        scale = float(number)
    except ValueError:
        scale = float("nan")
    if not (path and isfinite(scale) and abs(scale) <= _MOST):
        raise OptionError(
            named(
                "{lora} is {!r}; allowed: FILE or FILE:SCALE with a number from -{:g} to {:g}, as "
                "in {}",
                text,
                _MOST,
                _MOST,
                _EXAMPLE,
            )
        )
    return path, scale


def add_loras(pipe: Any, loras: Sequence[Lora]) -> None:
    """Load LoRAs into a pipeline, beside those that are active in it.

    Args:
        pipe: a diffusers pipeline that has `load_lora_weights`.
        loras: each becomes an adapter of its own, so that several combine and none is fused.

    Raises:
        StoreError: for weights that are not made for the pipeline's model.
    """
    if not loras:
        return
    scales = dict.fromkeys(pipe.get_active_adapters(), 1.0)
    for number, lora in enumerate(loras):
        name = f"file{number}"
        try:
            with warnings.catch_warnings():  # PEFT's, that there are several adapters
                warnings.filterwarnings("ignore", message="Already found a `peft_config`")
                pipe.load_lora_weights(
                    lora.file.parent, weight_name=lora.file.name, adapter_name=name
                )
        except (OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError) as error:
            raise _of_another(lora, pipe, " ".join(str(error).split())) from error
        if not any(name in adapters for adapters in pipe.get_list_adapters().values()):
            raise _of_another(lora, pipe, "none of its weights has a place in the model")
        scales[name] = lora.scale
    pipe.set_adapters(list(scales), list(scales.values()))


def _only_file(folder: Path, text: str) -> Path:
    files = sorted(p for p in folder.iterdir() if p.suffix == _SUFFIX)
    if len(files) != 1:
        found = ", ".join(p.name for p in files) or f"no {_SUFFIX} file"
        raise OptionError(
            named(
                "{lora} is the folder {!r}, which has {}; give the file, as in {}",
                text,
                found,
                _EXAMPLE,
            )
        )
    return files[0]


def _of_another(lora: Lora, pipe: Any, reason: str) -> StoreError:
    short = reason if len(reason) <= 300 else f"{reason[:299]}…"
    return StoreError(
        named(
            "{lora} is {!r}, which does not fit {}: {}; give one that was trained for this {model}",
            str(lora.file),
            type(pipe).__name__,
            short,
        )
    )
