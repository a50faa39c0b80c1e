"""Which rows of what a denoiser is given belong to the positive prompts."""

from __future__ import annotations

import torch
from torch import Tensor


def positive_rows(tokens: Tensor, positive: Tensor, *, rows: int, images: int) -> Tensor | None:
    """Which rows of a denoiser's input belong to positive prompts, by equality of what they are
    given: (rows, frames) bool.

    `frames` is how many rows of embeddings belong to one row of the input, more than 1 where a
    video has one for each frame; embeddings may be followed by other tokens. None where `tokens`
    cannot hold the embeddings at all.

    Args:
        tokens: embeddings (rows · frames, …) or class labels (rows,) that the denoiser is given.
        positive: what the pipeline made of the positive prompts, for each image or each prompt.
        rows: how many samples the denoiser is given; those of the empty prompts are among them
            where the batch is doubled.
        images: how many images are made.

    Example:
        >>> cat, dog, empty = torch.ones(1, 2, 3), torch.full((1, 2, 3), 2.0), torch.zeros(2, 2, 3)
        >>> positive_rows(torch.cat([empty, cat, dog]), torch.cat([cat, dog]), rows=4, images=2).flatten().tolist()
        [False, False, True, True]
    """
    if not _comparable(tokens, positive, rows):
        return None
    own = tokens[:, : positive.shape[1]] if positive.ndim == 3 else tokens
    each = own.reshape(rows, len(tokens) // rows, -1)  # (rows, frames, …)
    known = positive.to(tokens).reshape(len(positive), 1, -1)
    if images % len(known) == 0 and rows % images == 0:
        expected = known.repeat_interleave(images // len(known), dim=0)
        same = [bool((block == expected).all()) for block in each.split(images)]
        if any(same):
            last = (
                len(same) - 1 - same[::-1].index(True)
            )  # pipelines put empty prompts, which may be equal, first
            return (torch.arange(rows, device=tokens.device) // images == last)[:, None].expand(
                each.shape[:2]
            )
    return torch.stack([(each == prompt).all(dim=2) for prompt in known]).any(
        dim=0
    )  # one by one, for they are large


def _comparable(tokens: Tensor, positive: Tensor, rows: int) -> bool:
    """Whether the tokens can hold the embeddings of the prompts, one row or more for each of the
    `rows` samples.
    """
    if tokens.ndim != positive.ndim or tokens.shape[2:] != positive.shape[2:] or len(tokens) % rows:
        return False
    return tokens.shape[1:] == positive.shape[1:] or (
        tokens.ndim == 3 and tokens.shape[1] >= positive.shape[1]
    )
