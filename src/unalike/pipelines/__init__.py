"""Where pipelines come from: the model catalogue, and its models by name."""

from __future__ import annotations

import difflib
from typing import Any

from unalike.errors import OptionError
from unalike.pipelines.catalogue import MODELS, Model, load

__all__ = ["MODELS", "Model", "get_diffusion_pipeline", "load"]


def get_diffusion_pipeline(name: str, **options: Any) -> Any:
    """The diffusers pipeline of a model of the catalogue, as `load` gives it.

    Args:
        name: a name of `MODELS`; `load` also takes folders and hub ids.
        **options: what `DiffusionPipeline.from_pretrained` takes.

    Raises:
        OptionError: for any other name; the message lists the allowed ones.
        StoreError: when the files are there and cannot be loaded.

    Example:
        >>> get_diffusion_pipeline("digit")
        Traceback (most recent call last):
            ...
        unalike.errors.OptionError: unknown model 'digit'; did you mean 'digits'? Allowed: emoji, digits; for a folder or a hub id use load
    """
    if name not in MODELS:
        close = difflib.get_close_matches(str(name), MODELS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise OptionError(f"unknown model {name!r}; {hint}Allowed: {', '.join(MODELS)}; for a folder or a hub id use load")
    return load(name, **options)
