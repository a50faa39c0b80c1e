"""How a pipeline is called, with its own arguments, whatever guidance it has by itself, and what it
calls in turn.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from unalike.attach.diffusers.modular import input_names

_PACKING = ["latents", "batch_size", "num_channels_latents", "height", "width"]


def own_call(pipe: Any) -> Callable[..., Any]:
    """The call of the pipeline's class, with the pipeline as first argument.

    A class whose call is guided by itself, as those of `unalike.pipelines.guided`, has the call
    without as `unguided`.
    """
    kind = type(pipe)
    return getattr(kind, "unguided", kind.__call__)


def call_parameters(pipe: Any) -> list[str]:
    """The names of the arguments of the pipeline's call.

    Example:
        >>> class Pipe:
        ...     def __call__(self, prompt, steps=4): ...
        >>> call_parameters(Pipe())
        ['prompt', 'steps']
    """
    return list(inspect.signature(own_call(pipe)).parameters)[1:] + input_names(pipe)


def draws_videos(pipe: Any) -> bool:
    """Whether the pipeline's call asks how many frames there are to be."""
    return not {"num_frames", "video_length"}.isdisjoint(call_parameters(pipe))


def named_arguments(pipe: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name; TypeError, as from the call itself, for those that it has
    not.
    """
    arguments = inspect.signature(own_call(pipe)).bind(pipe, *args, **kwargs).arguments
    return {
        name: value for name, value in list(arguments.items())[1:] if name != "kwargs"
    } | arguments.get("kwargs", {})


def denoisers(pipe: Any) -> dict[str, torch.nn.Module]:
    """The networks that predict, by their names in the pipeline: one, or two that take turns."""
    found = {name: getattr(pipe, name, None) for name in ("unet", "transformer", "transformer_2")}
    return {name: module for name, module in found.items() if isinstance(module, torch.nn.Module)}


def packs_as_images(pipe: Any) -> bool:
    """Whether a pipeline that packs its latents packs those of images: (B, C, h, w) of two by two
    places a token, as Flux does.
    """
    return list(inspect.signature(pipe._pack_latents).parameters) == _PACKING
