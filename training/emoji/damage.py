"""Ways in which an image of an emoji can be edited and still be a copy of it.

All take images (n, 3, 64, 64) in [0, 1] and return as many. Amounts are a number, or (n,) one for
each image. Where a generator is taken, everything random comes from it.
"""

from __future__ import annotations

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unalike.models.emoji.data import SIDE

_GREY = (0.299, 0.587, 0.114)


def placed(
    images: Tensor,
    *,
    degrees: float | Tensor = 0.0,
    scale: float | Tensor = 1.0,
    shift: Tensor | None = None,
) -> Tensor:
    """Turned about the middle, enlarged by `scale` and moved by `shift` (n, 2) pixels, down and to
    the right; white beyond the edges.
    """
    n = len(images)
    angle = torch.deg2rad(torch.as_tensor(degrees, dtype=images.dtype)).expand(n)
    size = torch.as_tensor(scale, dtype=images.dtype).expand(n)
    moved = torch.zeros(n, 2) if shift is None else shift * (2 / SIDE)
    cos, sin = angle.cos() / size, angle.sin() / size
    offset = -torch.stack(
        [cos * moved[:, 1] - sin * moved[:, 0], sin * moved[:, 1] + cos * moved[:, 0]], 1
    )
    matrix = torch.stack(
        [torch.stack([cos, -sin, offset[:, 0]], 1), torch.stack([sin, cos, offset[:, 1]], 1)], 1
    )
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return 1 - F.grid_sample(1 - images, grid, mode="bilinear", align_corners=False).clamp(0, 1)


def cropped(images: Tensor, share: float, corner: tuple[float, float] = (0.5, 0.5)) -> Tensor:
    """Without a share of height and width, and enlarged to the full size again.

    Args:
        images: (n, 3, 64, 64).
        share: of each side that is cut off.
        corner: how much of it at the top and at the left, each from 0 to 1.
    """
    kept = round(SIDE * (1 - share))
    top, left = (round((SIDE - kept) * c) for c in corner)
    part = images[..., top : top + kept, left : left + kept]
    return F.interpolate(part, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)


def resized(images: Tensor, side: int) -> Tensor:
    """Reduced to a side of so many pixels and enlarged again."""
    small = F.interpolate(images, (side, side), mode="bicubic", antialias=True)
    return F.interpolate(small, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Blurred by a Gaussian of standard deviation `sigma` pixels."""
    reach = max(1, round(3 * sigma))
    kernel = torch.exp(-torch.arange(-reach, reach + 1.0).square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    rows = F.pad(images.flatten(0, 1)[:, None], (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(rows, kernel), kernel.transpose(2, 3)).view_as(images)


def compressed(images: Tensor, quality: int) -> Tensor:
    """Through a JPEG file of a quality from 1 to 95."""
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    found = np.empty_like(pixels)
    for i, own in enumerate(pixels):
        buffer = io.BytesIO()
        Image.fromarray(own).save(buffer, "JPEG", quality=quality)
        with Image.open(buffer) as image:
            found[i] = np.asarray(image)
    return torch.from_numpy(found).permute(0, 3, 1, 2).float() / 255


def noisy(images: Tensor, amount: float | Tensor, generator: torch.Generator) -> Tensor:
    """With normal noise of standard deviation `amount`."""
    size = torch.as_tensor(amount).expand(len(images)).view(-1, 1, 1, 1)
    return (images + size * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def recoloured(
    images: Tensor,
    *,
    brightness: float | Tensor = 1.0,
    contrast: float | Tensor = 1.0,
    saturation: float | Tensor = 1.0,
    hue: float | Tensor = 0.0,
) -> Tensor:
    """With other brightness, contrast and saturation, each 1 for none, and the hue turned by a
    share of the colour circle.
    """
    factors = [
        torch.as_tensor(value, dtype=images.dtype).expand(len(images)).view(-1, 1, 1, 1)
        for value in (brightness, contrast, saturation)
    ]
    found = _turned(images, torch.as_tensor(hue, dtype=images.dtype).expand(len(images)))
    grey = (found * torch.tensor(_GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)
    found = grey + factors[2] * (found - grey)
    return (0.5 + factors[1] * (factors[0] * found - 0.5)).clamp(0, 1)


def tinted(images: Tensor, gains: Tensor) -> Tensor:
    """With the ink of each channel, which is how far it is from white, times a gain (n, 3)."""
    return 1 - ((1 - images) * gains[..., None, None]).clamp(0, 1)


def blended(images: Tensor, others: Tensor, amount: float | Tensor) -> Tensor:
    """A mixture that is `amount` of `others` and the rest of `images`."""
    share = torch.as_tensor(amount, dtype=images.dtype).expand(len(images)).view(-1, 1, 1, 1)
    return (1 - share) * images + share * others


def covered(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """With a square of one colour over a place, as of a sticker."""
    found = images.clone()
    places = torch.randint(SIDE - side + 1, (len(images), 2), generator=generator).tolist()
    colours = torch.rand(len(images), 3, 1, 1, generator=generator)
    for i, (top, left) in enumerate(places):
        found[i, :, top : top + side, left : left + side] = colours[i]
    return found


def _turned(images: Tensor, share: Tensor) -> Tensor:
    """With the hue turned, about the grey axis."""
    angle = 2 * torch.pi * share
    cos, sin, third = angle.cos(), angle.sin(), 1 / 3
    a, b = cos + (1 - cos) * third, (1 - cos) * third
    c = sin * third**0.5
    rows = torch.stack([a, b - c, b + c, b + c, a, b - c, b - c, b + c, a], 1).view(-1, 3, 3)
    return torch.einsum("nij,njhw->nihw", rows, images).clamp(0, 1)
