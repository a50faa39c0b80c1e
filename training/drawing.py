"""Draw samples of a shipped model, one generator a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def draw(
    call: Callable[..., Any],
    argument: str,
    values: Sequence[Any],
    *,
    seed: int,
    guidance_scale: float,
    steps: int = 25,
    batch: int = 32,
    **more: Any,
) -> Tensor:
    """Samples (n, 3, h, w) in [0, 1], one a value of the pipeline's `argument`; sample `i` comes
    from a generator of its own with the seed `seed + i`.
    """
    parts = []
    for begin in range(0, len(values), batch):
        part = list(values[begin : begin + batch])
        arguments = {
            argument: part,
            "generator": [
                torch.Generator().manual_seed(seed + begin + i) for i in range(len(part))
            ],
            "guidance_scale": guidance_scale,
            "num_inference_steps": steps,
            **more,
        }
        parts.append(call(**arguments, output_type="pt").images.float().cpu().clamp(0, 1))
    return torch.cat(parts)
