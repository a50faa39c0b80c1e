"""Pixels at a common size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from unalike.extractors.base import Extractor
from unalike.kernels import Gaussian

SIDE = 32
BANDWIDTH = 0.25
"""Of the Gaussian kernel, as a root mean square difference of pixels in [0, 1]: what `unalike
generate` reports is on the same scale.
"""


class Pixels(Extractor):
    """The pixels themselves, averaged down to 32×32, from -1 to 1.

    They show colours and layout, not what an image is about.

    Distances are reported as root mean square differences of pixels, 0 to 1; from about 0.05 two
    images look different at first glance.

    Cost: next to nothing.

    Example:
        >>> import torch
        >>> black_and_white = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 64, 64)
        >>> X = Pixels(device="cpu").features(black_and_white)
        >>> ((X[0] - X[1]).norm() / Pixels.unit).item()
        1.0
    """

    name = "pixels"
    basis = (
        f"pixels at {SIDE}×{SIDE} from -1 to 1, compared by a Gaussian kernel of bandwidth "
        f"{BANDWIDTH} on their root mean square difference"
    )
    resizing = f"averaged to {SIDE}×{SIDE}; other shapes than a square are squeezed"
    unit = 2 * (3 * SIDE * SIDE) ** 0.5
    unit_name = "root mean square difference of pixels, 0 to 1"
    kernel = Gaussian(BANDWIDTH * unit)

    def embed(self, images: Tensor) -> Tensor:
        """The batch averaged down and flattened, (n, 3072)."""
        return (2 * F.interpolate(images, (SIDE, SIDE), mode="area") - 1).flatten(1)
