"""Take tensors of real numbers from outside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unalike.errors import OptionError


def real_numbers(name: str, values: Any) -> Tensor:
    """Values as a detached tensor of real numbers; those of 8-bit floats in float32.

    Args:
        name: of the argument, for the message.
        values: a tensor, an array, or lists of numbers.

    Raises:
        OptionError: for complex numbers, for what holds no numbers, and for tensors whose numbers
            are not at hand: sparse ones, and those of the meta device.

    Example:
        >>> real_numbers("X", [[1, 2]])
        tensor([[1, 2]])
    """
    try:
        tensor = torch.as_tensor(values).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptionError(
            f"{name} is a {type(values).__name__}; allowed: a tensor or an array of real numbers"
        ) from error
    if tensor.is_complex():
        raise OptionError(f"{name} is complex; allowed: real numbers, as in {name}.abs()")
    if tensor.is_meta:
        raise OptionError(
            f"{name} is on the meta device, where tensors have no values; load them first"
        )
    if tensor.layout != torch.strided:
        raise OptionError(f"{name} is sparse; give all its numbers, as in {name}.to_dense()")
    return tensor.float() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor
