"""The shipped classifier of digits, which can also say that an image shows none."""

from __future__ import annotations

from functools import cache
from importlib import resources

import torch
from torch import Tensor, nn

from unalike import tensorfile
from unalike.errors import OptionError
from unalike.models.digits.data import CLASSES, SIDE

CONVOLUTIONS = ((32, 1), (32, 2), (64, 1), (64, 2), (64, 1))
"""Channels and stride of each."""
FEATURES = 64
NONE = CLASSES
"""The class of images that show no digit."""
KIND, VERSION, FILE = "unalike.classifier", 1, "classifier.safetensors"


class Classifier(nn.Module):
    """Four convolutions, a layer of features, and a layer of classes: ten digits, and none."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for width, stride in CONVOLUTIONS:
            layers += [
                nn.Conv2d(before, width, 3, stride=stride, padding=1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
            ]
            before = width
        side = SIDE
        for _, stride in CONVOLUTIONS:
            side //= stride
        self.embed = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(before * side * side, FEATURES), nn.SiLU()
        )
        self.classes = nn.Linear(FEATURES, CLASSES + 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, d) and logits (n, 11) of images (n, 3 or 1, 16, 16) in [0, 1]."""
        features = self.embed(1 - 2 * images.mean(1, keepdim=True))
        return features, self.classes(features)


def features(images: Tensor) -> Tensor:
    """The classifier's features of images, (n, 64) float32.

    For precision, recall, density, coverage and Fréchet distances.

    Args:
        images: (n, 3, 16, 16) with values in [0, 1].

    Raises:
        OptionError: for another shape or values outside [0, 1].

    Cost: about 0.3 ms an image on one core.

    Example:
        >>> from unalike.models.digits import load_images
        >>> features(load_images()[:2] / 255).shape
        torch.Size([2, 64])
    """
    return _outputs(images)[0]


def classify(images: Tensor) -> Tensor:
    """The probability of each digit, (n, 10) float32. What is missing to 1 in a row is the
    probability that the image shows none.

    Args, Raises, Cost: as for `features`.

    Example:
        >>> from unalike.models.digits import load_images
        >>> classify(load_images()[:3] / 255).argmax(1)
        tensor([0, 1, 2])
    """
    return _outputs(images)[1].softmax(1)[:, :CLASSES]


def check(images: Tensor) -> Tensor:
    """The images themselves.

    Raises:
        OptionError: for another shape than (n, 3, 16, 16) or values outside [0, 1].
    """
    if images.ndim != 4 or images.shape[1:] != (3, SIDE, SIDE):
        raise OptionError(
            f"images has shape {tuple(images.shape)}; allowed: (n, 3, {SIDE}, {SIDE})"
        )
    if len(images) and not (images.min() >= 0 and images.max() <= 1):
        raise OptionError("images has values outside [0, 1]; divide 8-bit pixels by 255 first")
    return images


@torch.no_grad()
def _outputs(images: Tensor) -> tuple[Tensor, Tensor]:
    parts = [shipped()(part.float()) for part in check(images).split(256)]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


@cache
def shipped() -> Classifier:
    """The classifier that comes with the package: images (n, 3, 16, 16) in [0, 1] to features (n,
    64) and scores (n, 11).
    """
    with torch.device("meta"):  # weights that are read need no random ones first
        model = Classifier().eval()
    with resources.as_file(resources.files("unalike.models.digits").joinpath(FILE)) as path:
        weights = tensorfile.read(path, KIND, VERSION)[1]
    model.load_state_dict({name: values.float() for name, values in weights.items()}, assign=True)
    return model
