"""Name networks by their weights, and notice when the weights change.

Vectors of different networks are never compared: whatever stores vectors stores the name too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from unalike.errors import UnsupportedError

_SAMPLED = 64
_COMPARED_WHOLE = 1 << 16
_ROUNDING = 2.0**-7  # of bfloat16, with room


def fingerprint(module: torch.nn.Module) -> str:
    """Ten hexadecimal digits that tell a network's configuration and weights from any other's.

    Of each weight matrix the signs of its first 64 numbers are read: they are the same on every
    device and in every precision. Changes that keep those signs keep the name; `Weights` notices
    them while a process runs.

    Raises:
        UnsupportedError: when the weights are not in memory.
    """
    config = getattr(module, "config", None)
    plain = (
        config.to_dict()
        if config is not None and hasattr(config, "to_dict")
        else dict(config or {})
    )
    settings = {
        k: v
        for k, v in plain.items()
        if not k.startswith("_") and k not in ("torch_dtype", "dtype", "transformers_version")
    }
    digest = hashlib.sha256(
        type(module).__name__.encode() + json.dumps(settings, sort_keys=True, default=str).encode()
    )
    weights = [(name, p) for name, p in sorted(module.named_parameters()) if p.ndim >= 2]
    missing = [name for name, p in weights if p.is_meta]
    if missing:
        raise UnsupportedError(
            f"the weights of {type(module).__name__} are not in memory ({missing[0]} is on the "
            "meta device); call guide(pipe, …) first and pipe.enable_sequential_cpu_offload() "
            "after it"
        )
    for device in {p.device for _, p in weights}:
        signs = torch.cat([_signs(p) for _, p in weights if p.device == device])
        digest.update(bytes(signs.to(torch.uint8).cpu().tolist()))
    return digest.hexdigest()[:10]


def _signs(weight: Tensor) -> Tensor:
    return torch.signbit(weight.detach()[tuple(0 for _ in range(weight.ndim - 1))][:_SAMPLED])


@dataclass(frozen=True)
class Weights:
    """Numbers of a network's parameters, to notice that they were changed in place.

    All numbers of parameters with up to 65,536 of them, and of larger ones the first 64 and 64 at
    even steps; the strengths of LoRA adapters besides. A change of a few rows of a large matrix
    alone, through `.data`, is not noticed.

    Attributes:
        values: the numbers, float32 on the CPU.
        dtypes: of the parameters.
        settings: of the adapters.
    """

    values: Tensor
    dtypes: tuple[torch.dtype, ...]
    settings: tuple[Any, ...]

    @classmethod
    def of(cls, module: torch.nn.Module) -> Self | None:
        """The weights as they are now; None where they are not in memory.

        Cost: reads 128 numbers of each large parameter; milliseconds for a text encoder.
        """
        parameters = list(module.parameters())
        if any(p.is_meta for p in parameters):
            return None
        parts = [part for p in parameters for part in _some(p.detach())]
        on = {p.device for p in parts}
        values = [torch.cat([p.float() for p in parts if p.device == d]).cpu() for d in on]
        return cls(
            torch.cat(values) if values else torch.empty(0),
            tuple(p.dtype for p in parameters),
            tuple(_adapters(part) for part in module.modules() if hasattr(part, "lora_A")),
        )

    def same_as(self, other: Weights) -> bool:
        """Whether nothing was changed but the precision."""
        if self.settings != other.settings or self.values.shape != other.values.shape:
            return False
        if self.dtypes == other.dtypes:
            return torch.equal(self.values.view(torch.int32), other.values.view(torch.int32))
        return torch.allclose(self.values, other.values, rtol=_ROUNDING, atol=1e-6, equal_nan=True)


def _some(weight: Tensor) -> list[Tensor]:
    flat = weight.reshape(-1) if weight.is_contiguous() else weight.flatten()
    if flat.numel() <= _COMPARED_WHOLE:
        return [flat]
    return [flat[:_SAMPLED], flat[:: flat.numel() // _SAMPLED]]


def _adapters(layer: Any) -> tuple[Any, ...]:
    scaling = getattr(layer, "scaling", {})
    active = getattr(layer, "active_adapters", ())
    disabled = getattr(layer, "disable_adapters", False)
    return tuple(sorted(scaling.items())), tuple(active), bool(disabled)
