"""The shipped copy-detection encoder of emoji: descriptors by which copies of an image are found,
edited ones too.
"""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from importlib import resources

import torch
from torch import Tensor, nn

from unalike import tensorfile
from unalike.extractors.base import Extractor
from unalike.extractors.resizing import squared
from unalike.models.emoji.data import SIDE

CONVOLUTIONS = ((24, 2), (48, 2), (48, 1), (64, 2), (64, 1), (64, 2))
"""Channels and stride of each."""
SIZE = 64
"""Numbers of a descriptor."""
COPY = 0.7
"""The distance below which two images are copies."""
ERRORS = (
    "on emoji that the network was not trained on it misses no copy after JPEG, resizing or a crop "
    "of 10%, 0.8% with a sticker and 4.7% with a quarter of another image over it, 87.4% where a "
    "quarter of each side is cropped at a corner; and takes 0.015% of pairs of others for copies"
)
KIND, VERSION, FILE = "unalike.copies", 1, "copies.safetensors"


class CopyEncoder(nn.Module):
    """Six convolutions and a layer that sees all places: images (n, 3, 64, 64) in [0, 1] to unit
    vectors (n, 64).
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before, side = 3, SIDE
        for width, stride in CONVOLUTIONS:
            kernel = 5 if before == 3 else 3
            layers += [
                nn.Conv2d(before, width, kernel, stride=stride, padding=kernel // 2),
                nn.GroupNorm(8, width),
                nn.SiLU(),
            ]
            before, side = width, side // stride
        layers += [nn.Flatten(), nn.Linear(before * side**2, SIZE)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """The descriptors (n, 64) of images (n, 3, 64, 64)."""
        found = self.layers(2 * images - 1)
        return found / found.norm(dim=1, keepdim=True).clamp_min(1e-12)


@cache
def shipped() -> CopyEncoder:
    """The encoder that comes with the package."""
    with torch.device("meta"):  # weights that are read need no random ones first
        model = CopyEncoder().eval()
    with resources.as_file(resources.files("unalike.models.emoji").joinpath(FILE)) as path:
        weights = tensorfile.read(path, KIND, VERSION)[1]
    model.load_state_dict({name: values.float() for name, values in weights.items()}, assign=True)
    return model


class EmojiCopies(Extractor):
    """Descriptors of a small network that was trained to find copies of emoji: unit vectors, near
    each other for an image and what crops, shifts, other colours, blur, compression or stickers
    make of it.

    Two images are taken for copies where their distance is below `copy_distance`. The card of
    `unalike.models.emoji` says how often that is wrong, on emoji that the network was not trained
    on.

    Cost: 0.6 ms an image on one core.

    Example:
        >>> import torch
        >>> images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> EmojiCopies(device="cpu").features(images).norm(dim=1).round(decimals=3)
        tensor([1., 1.])
    """

    name = "emoji-copies"
    basis = (
        "descriptors of a network trained to find edited copies of emoji, compared by their cosine"
    )
    resizing = f"resized to {SIDE}×{SIDE} (bicubic); other shapes than a square are squeezed"
    copy_distance = COPY
    copy_errors = ERRORS

    def __init__(self, *, device: str = "auto", batch_size: int = 32) -> None:
        super().__init__(deepcopy(shipped()), device=device, batch_size=batch_size)

    def embed(self, images: Tensor) -> Tensor:
        """The descriptors of the batch, (n, 64)."""
        return self.model(squared(images, SIDE))
