"""Names for networks that tell one from every other, so that vectors that different ones made are
never compared.
"""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor

from unalike.errors import UnsupportedError

_SAMPLED = 64


def fingerprint(module: torch.nn.Module) -> str:
    """Ten hexadecimal digits that tell a model's configuration and weights from any other's.

    Of each weight matrix the signs of its first 64 numbers are read: they are the same on every
    device and in every precision.

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
            f"the weights of {type(module).__name__} are not in memory ({missing[0]} is on the meta device); "
            "call guide(pipe, …) first and pipe.enable_sequential_cpu_offload() after it"
        )
    for device in {p.device for _, p in weights}:
        signs = torch.cat([_signs(p) for _, p in weights if p.device == device])
        digest.update(bytes(signs.to(torch.uint8).cpu().tolist()))
    return digest.hexdigest()[:10]


def _signs(weight: Tensor) -> Tensor:
    return torch.signbit(weight.detach()[tuple(0 for _ in range(weight.ndim - 1))][:_SAMPLED])
