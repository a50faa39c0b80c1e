"""Measure how well images fit their prompts, and how alike the images of a prompt are."""

from __future__ import annotations

import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.metrics.features import checked, directions, pair


def clip_score(images: Tensor, prompts: Tensor) -> float:
    """CLIPScore: 100 times the mean cosine of image and prompt embeddings; larger fits better.

    A negative cosine counts as 0.

    Source: Hessel et al. 2021 (arXiv:2104.08718). Departure: the factor is 100, as most papers
    since report it, in place of 2.5.

    Args:
        images: embeddings (n, p) of the images.
        prompts: embeddings (n, p) of their prompts, by the same CLIP model and in the same order.

    Raises:
        OptionError: for different numbers, and embeddings that are not finite or all zeros.

    Example:
        >>> import torch
        >>> images = torch.tensor([[2.0, 0.0], [1.0, 0.0]])
        >>> clip_score(images, torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        50.0
    """
    x, y = pair("images", images, "prompts", prompts)
    if len(x) != len(y):
        raise OptionError(
            f"images has {len(x)} rows and prompts {len(y)}; there must be one prompt an image, in "
            "the same order"
        )
    return (
        100
        * (directions("images", x) * directions("prompts", y)).sum(dim=1).clamp_min(0).mean().item()
    )


def in_batch_similarity(images: Tensor, groups: Tensor | None = None) -> float:
    """Mean cosine between the images of a prompt, from -1 to 1; larger is more alike.

    It is averaged over groups, one for each prompt.

    Source: the "in-batch similarity" of Jalali et al. 2025 (arXiv:2506.10173).

    Args:
        images: embeddings (n, p).
        groups: (n,) integers, equal for images of the same prompt; None for one group. Groups of a
            single image do not count.

    Raises:
        OptionError: where no group has two images, or embeddings are not finite or all zeros.

    Cost: O(n p): the sum over all pairs of unit vectors is the squared norm of their sum.

    Example:
        >>> import torch
        >>> images = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
        >>> in_batch_similarity(images, torch.tensor([0, 1, 1]))
        1.0
    """
    x = directions("images", checked("images", images, least=2))
    groups = (
        torch.zeros(len(x), dtype=torch.int64) if groups is None else torch.as_tensor(groups).cpu()
    )
    if groups.shape != (len(x),):
        raise OptionError(
            f"groups has the shape {tuple(groups.shape)}; it must have one number for each of the "
            f"{len(x)} images"
        )
    cosines = [_mean_cosine(x[groups == g]) for g in groups.unique() if (groups == g).sum() > 1]
    if not cosines:
        raise OptionError(
            "no group has two images, so there is nothing to compare; pass more images, or groups "
            "with several each"
        )
    return sum(cosines) / len(cosines)


def _mean_cosine(x: Tensor) -> float:
    pairs = len(x) * (len(x) - 1)
    return ((x.sum(dim=0).square().sum() - x.square().sum()) / pairs).item()
