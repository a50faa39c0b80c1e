"""Resize image batches (n, 3, h, w) in [0, 1] in torch, so that gradients pass through."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def squared(images: Tensor, side: int) -> Tensor:
    """Resize to (n, 3, side, side) by bicubic interpolation with antialiasing.

    Other shapes than a square are squeezed.

    Equal to Pillow's bicubic resizing but for its rounding to whole numbers of 255.

    Example:
        >>> import torch
        >>> squared(torch.ones(1, 3, 8, 16), 4).shape
        torch.Size([1, 3, 4, 4])
    """
    return _bicubic(images, side, side)


def cropped(images: Tensor, side: int) -> Tensor:
    """Resize the shorter edge to `side`, as `squared` does, and cut out the middle.

    Returns (n, 3, side, side).

    Example:
        >>> import torch
        >>> three = torch.arange(3.0).view(1, 1, 1, 3).expand(1, 3, 1, 3) / 2
        >>> cropped(three, 1)[0, :, 0, 0]  # the middle one of three pixels
        tensor([0.5000, 0.5000, 0.5000])
    """
    height, width = images.shape[2:]
    shorter = min(height, width)
    resized = _bicubic(images, int(side * height / shorter), int(side * width / shorter))
    top, left = (resized.shape[2] - side) // 2, (resized.shape[3] - side) // 2
    return resized[:, :, top : top + side, left : left + side]


def _bicubic(images: Tensor, height: int, width: int) -> Tensor:
    for size in (
        (images.shape[2], width),
        (height, width),
    ):  # across and then down, each cut off at black and white, as Pillow does it
        if tuple(images.shape[2:]) != size:
            images = F.interpolate(
                images, size, mode="bicubic", antialias=True, align_corners=False
            ).clamp(0, 1)
    return images
