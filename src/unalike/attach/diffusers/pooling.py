"""Pool what a pipeline encoded of its prompts into one vector a prompt."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unalike.attach.run.conditions import spread


def parts(encoded: Any) -> list[Any]:
    """The result of `encode_prompt`, as a list."""
    return list(encoded) if isinstance(encoded, list | tuple) else [encoded]


def first_part(encoded: Any) -> Any:
    """The first of what `encode_prompt` returned that is not None: the embedding of the prompts."""
    return next((part for part in parts(encoded) if part is not None), None)


def without_negative(encoded: Any, positive: int) -> Any:
    """The encoding without its first half where that belongs to the negative prompts.

    Of twice `positive` rows, half are left.
    """
    first = first_part(encoded)
    if not isinstance(first, Tensor) or len(first) != 2 * positive:
        return encoded
    return [
        part[positive:] if isinstance(part, Tensor) and len(part) == 2 * positive else part
        for part in parts(encoded)
    ]


def pooled(encoded: Any, each: int = 1) -> Tensor | None:
    """One vector (R, p) for each prompt, from whatever `encode_prompt` returned; `each` is how
    often a prompt is repeated in it.
    """
    first = first_part(encoded)
    if isinstance(first, list) and first and all(isinstance(t, Tensor) for t in first):
        # prompts of different lengths
        return torch.stack([t.detach().float().reshape(-1, t.shape[-1]).mean(0) for t in first])
    if not isinstance(first, Tensor):
        return None
    rows = first.detach().float()
    if rows.ndim == 2:
        return rows
    rows = rows.reshape(len(rows), -1, rows.shape[-1])
    masks = (
        part
        for part in parts(encoded)
        if isinstance(part, Tensor) and part is not first and part.shape == rows.shape[:2]
    )
    mask = next(masks, None)
    if mask is None or mask.is_floating_point():
        return rows.mean(1)
    weight = _as_embeddings(mask, each).to(rows)[:, :, None]
    return (rows * weight).sum(1) / weight.sum(1).clamp_min(1)


def _as_embeddings(mask: Tensor, each: int) -> Tensor:
    """A mask (R, L) in the order of the embeddings, each prompt's `each` rows after another.

    Some pipelines repeat the mask of all prompts instead: then rows of one prompt differ, and equal
    ones are R / each apart.
    """
    count = len(mask) // max(each, 1)
    if each < 2 or count < 2 or len(mask) % each:
        return mask
    grouped, tiled = mask.view(count, each, -1), mask.view(each, count, -1)
    if not (grouped == grouped[:, :1]).all() and (tiled == tiled[:1]).all():
        return mask[:count].repeat_interleave(each, 0)
    return mask


def spread_rows(rows: Tensor, images: int) -> Tensor:
    """A row for each image, from rows for each prompt, each image, or each frame of a video."""
    if len(rows) > images and len(rows) % images == 0:
        return rows[:: len(rows) // images]
    index = spread(list(range(len(rows))), images, "prompt embeddings")
    return rows[torch.tensor(index, device=rows.device)]
