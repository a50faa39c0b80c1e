"""Find the rows of a denoiser's input that carry the positive prompts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unalike.errors import UnsupportedError


def positive_rows(
    tokens: Tensor,
    positive: Tensor,
    *,
    rows: int,
    images: int,
    negative_is_equal: bool = False,
    perturbed: bool = False,
    others: Sequence[Tensor] = (),
) -> Tensor | None:
    """Find the rows of a denoiser's input that belong to positive prompts: (rows, frames) bool.

    Rows are found by equality of the embeddings or labels that they are given.

    A batch is made of blocks, each with a row for each image; every block of the prompts counts.
    There are two with perturbed-attention guidance. Where the negative prompts equal the prompts,
    the first of two blocks is theirs, as in all of diffusers' pipelines. A block of other prompts
    does not count, even where one of them is a prompt of another image.

    `frames` is how many rows of embeddings belong to one row of the input, more than 1 where a
    video has one for each frame; embeddings may be followed by other tokens. None where `tokens`
    cannot hold the embeddings at all.

    Args:
        tokens: embeddings (rows · frames, …) or class labels (rows,) that the denoiser is given.
        positive: what the pipeline made of the positive prompts, for each image or each prompt.
        rows: how many samples the denoiser is given.
        images: how many images are made.
        negative_is_equal: whether the pipeline made the same of the negative prompts.
        perturbed: whether the prompts have a second block, with perturbed attention.
        others: what the pipeline made of other prompts, as of negative ones.

    Raises:
        UnsupportedError: where the negative prompts equal the prompts in an unknown order of
            blocks.

    Example:
        >>> cat, dog, empty = torch.ones(1, 2, 3), torch.full((1, 2, 3), 2.0), torch.zeros(2, 2, 3)
        >>> tokens, positive = torch.cat([empty, cat, dog]), torch.cat([cat, dog])
        >>> positive_rows(tokens, positive, rows=4, images=2).flatten().tolist()
        [False, False, True, True]
    """
    if not _comparable(tokens, positive, rows):
        return None
    own = tokens[:, : positive.shape[1]] if positive.ndim == 3 else tokens
    each = own.reshape(rows, len(tokens) // rows, -1)  # (rows, frames, …)
    same = _blocks(each, positive, images)
    if same is not None:
        if negative_is_equal and sum(same) > 1:
            if len(same) != (3 if perturbed else 2):
                raise UnsupportedError(
                    "the negative prompt equals the prompt, and the denoiser is given "
                    f"{len(same)} blocks "
                    "of prompts, so the prompt's cannot be told; give another negative prompt"
                )
            same[0] = False
        if any(same):
            chosen = torch.tensor(same, device=tokens.device).repeat_interleave(images)
            return chosen[:, None].expand(each.shape[:2])
    known = positive.to(tokens).reshape(len(positive), 1, -1)
    # one by one, for they are large
    found = torch.stack([(each == prompt).all(dim=2) for prompt in known]).any(dim=0)
    for other in others:
        if other.shape[1:] == positive.shape[1:]:
            same = _blocks(each, other, images) or []
            for i in (i for i, of_other in enumerate(same) if of_other):
                found[i * images : (i + 1) * images] = False
    return found


def _blocks(each: Tensor, prompts: Tensor, images: int) -> list[bool] | None:
    """Whether each block of `images` rows (rows, frames, …) holds these prompts, in their order;
    None where there are no such blocks.
    """
    if images % len(prompts) or len(each) % images:
        return None
    known = prompts.to(each).reshape(len(prompts), 1, -1)
    expected = known.repeat_interleave(images // len(known), dim=0)
    return [bool((block == expected).all()) for block in each.split(images)]


def image_count(sample: Tensor, least: int, channels: int | None = None) -> int:
    """Count the images that the rows of a denoiser's or a scheduler's input stand for.

    That is the size of the smallest block that the rows repeat.

    Args:
        sample: (R, …).
        least: the number of images is a multiple of this, or R.
        channels: how many channels are the latents'; others, as of an image that is edited, may
            differ from block to block.

    Example:
        >>> image_count(torch.arange(4.0).repeat(3)[:, None], 2)
        4
    """
    rows = len(sample)
    own = sample if channels is None or sample.ndim < 4 else sample[:, :channels]
    least = max(least, 1)
    for images in range(least, rows, least):
        if rows % images == 0 and all(torch.equal(b, own[:images]) for b in own.split(images)):
            return images
    return rows


def _comparable(tokens: Tensor, positive: Tensor, rows: int) -> bool:
    """Whether the tokens can hold the embeddings of the prompts, one row or more for each of the
    `rows` samples.
    """
    if tokens.ndim != positive.ndim or tokens.shape[2:] != positive.shape[2:] or len(tokens) % rows:
        return False
    return tokens.shape[1:] == positive.shape[1:] or (
        tokens.ndim == 3 and tokens.shape[1] >= positive.shape[1]
    )
