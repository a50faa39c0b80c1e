"""Read the arguments of a denoiser's call."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from unalike.attach.diffusers.graphs import unwrapped
from unalike.errors import UnsupportedError


def model_call(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], who: str, hint: str
) -> tuple[inspect.BoundArguments, Tensor, float]:
    """The arguments of a denoiser's call, its sample (R, …) and its timestep.

    Args:
        module: the denoiser.
        args: positional arguments of its call.
        kwargs: named ones.
        who: whom messages begin with.
        hint: what messages end with.

    Raises:
        UnsupportedError: where there is not one sample and one timestep.
    """
    module = unwrapped(module)
    bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
    found = [bound.arguments.get(name) for name in ("sample", "hidden_states")]
    sample = next((value for value in found if isinstance(value, Tensor)), None)
    times = torch.as_tensor(bound.arguments.get("timestep", ())).reshape(-1).cpu().double()
    if sample is None or not len(times) or (times != times[0]).any():
        raise UnsupportedError(
            f"{who}{type(module).__name__} is not called with one sample and one timestep; {hint}"
        )
    return bound, sample, times[0].item()
