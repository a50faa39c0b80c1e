"""Ways in which a image of a digit can be spoilt: what the classifier learns to refuse, and what
the judge is measured with.

All take images (n, c, 16, 16) in [0, 1], dark on white, and return as many. Where a generator is
taken, everything random comes from it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from unalike.models.digits.data import SIDE


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Blurred by a Gaussian of standard deviation `sigma` pixels; paper beyond the edges."""
    reach = math.ceil(3 * sigma)
    kernel = torch.exp(-torch.arange(-reach, reach + 1.0).square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    rows = F.pad(images.flatten(0, 1)[:, None], (reach,) * 4, value=1.0)
    return F.conv2d(F.conv2d(rows, kernel), kernel.transpose(2, 3)).view_as(images)


def noisy(images: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """With normal noise of standard deviation `amount` in each pixel, the same in all channels."""
    noise = torch.randn(len(images), 1, SIDE, SIDE, generator=generator)
    return (images + amount * noise).clamp(0, 1)


def smudged(images: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """With noise of standard deviation `amount` that is smooth over about two pixels, like the
    errors of a denoiser.
    """
    noise = blurred(torch.randn(len(images), 1, SIDE, SIDE, generator=generator), 1.0)
    return (images + amount * noise / noise.std()).clamp(0, 1)


def paler(images: Tensor, amount: float) -> Tensor:
    """With ink that is lighter by the share `amount`."""
    return images + amount * (1 - images)


def blended(images: Tensor, others: Tensor, amount: float | Tensor) -> Tensor:
    """A mixture that is `amount` of `others` and the rest of `images`."""
    return (1 - amount) * images + amount * others


def overlaid(images: Tensor, others: Tensor) -> Tensor:
    """Both written over each other: the darker of each pixel."""
    return torch.minimum(images, others)


def halved(images: Tensor, others: Tensor, *, across: bool = False) -> Tensor:
    """The left half of `images` and the right one of `others`; with `across`, the upper and the
    lower one.
    """
    middle, axis = SIDE // 2, 2 if across else 3
    return torch.cat(
        [images.narrow(axis, 0, middle), others.narrow(axis, middle, middle)], dim=axis
    )


def turned(
    images: Tensor,
    degrees: float | Tensor,
    scale: float | Tensor = 1.0,
    shift: Tensor | float = 0.0,
) -> Tensor:
    """Rotated about the middle, enlarged by `scale` and moved by `shift` (n, 2) pixels; a number or
    one for each image.
    """
    angle = torch.deg2rad(torch.as_tensor(degrees, dtype=images.dtype)).expand(len(images))
    size = torch.as_tensor(scale, dtype=images.dtype).expand(len(images))
    offset = torch.as_tensor(shift, dtype=images.dtype).expand(len(images), 2) * (2 / SIDE)
    cos, sin = angle.cos() / size, angle.sin() / size
    matrix = torch.stack(
        [torch.stack([cos, -sin, -offset[:, 0]], 1), torch.stack([sin, cos, -offset[:, 1]], 1)], 1
    )
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return 1 - F.grid_sample(1 - images, grid, mode="bicubic", align_corners=False).clamp(0, 1)
