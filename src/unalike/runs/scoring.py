"""Diversity of a run's images, and their change by guidance, measured on pixels.

Pixels because every image pipeline has them; the figures compare images of one run, not of
different models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unalike.images import read_image
from unalike.kernels import Gaussian
from unalike.scores import rke, vendi

SIDE = 32
BANDWIDTH = 0.25
BASIS = (
    f"Gaussian kernel of bandwidth {BANDWIDTH} on the root-mean-square difference of pixels in "
    f"[0, 1], images reduced to {SIDE}×{SIDE}"
)
PLAINLY_CHANGED = 0.05
"""Root-mean-square difference, as a share of the full range, from which two images look different
at first glance.
"""


@dataclass(frozen=True)
class Diversity:
    """Effective numbers of different images for one prompt, from 1 to `images`."""

    vendi: float
    rke: float
    images: int

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return {"vendi": self.vendi, "rke": self.rke, "images": self.images}


def pixel_features(image: Image.Image) -> Tensor:
    """The image as a vector (3 · SIDE²,) whose Euclidean distances are root-mean-square differences
    of pixels in [0, 1].

    Example:
        >>> images = (Image.new("RGB", (64, 64), c) for c in ("black", "white"))
        >>> black, white = map(pixel_features, images)
        >>> round((black - white).norm().item(), 4)
        1.0
    """
    small = read_image(image).resize((SIDE, SIDE), Image.Resampling.BOX)
    pixels = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255).flatten()
    return pixels / len(pixels) ** 0.5


def diversity(features: Sequence[Tensor]) -> Diversity:
    """Vendi score (order 1) and RKE score of the images of one prompt, from their `pixel_features`.

    Cost: O(n² SIDE² + n³) for n images.

    Example:
        >>> same = [pixel_features(Image.new("RGB", (8, 8), "red"))] * 3
        >>> round(diversity(same).vendi, 6)
        1.0
    """
    rows = torch.stack(list(features)).double()
    gram = Gaussian(BANDWIDTH)(rows, rows)
    return Diversity(vendi=vendi(gram=gram), rke=rke(gram=gram), images=len(rows))


def change(image: Image.Image, unguided: Image.Image) -> float:
    """Root-mean-square difference of two images at full size, from 0 to 1.

    Example:
        >>> change(Image.new("RGB", (8, 8), "black"), Image.new("RGB", (8, 8), "white"))
        1.0
    """
    a, b = (np.asarray(read_image(i), dtype=np.float64) / 255 for i in (image, unguided))
    return float(np.sqrt(np.mean((a - b) ** 2)))
