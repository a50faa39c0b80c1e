"""The features of the classifier that comes with the shipped digits model."""

from __future__ import annotations

from copy import deepcopy

from torch import Tensor

from unalike.extractors.base import Extractor
from unalike.extractors.resizing import squared
from unalike.models.digits.classifier import shipped
from unalike.models.digits.data import SIDE


class Digits(Extractor):
    """Features of the digits classifier, from the layer before its decision.

    The card of `unalike.models.digits` has its accuracy.

    Cost: 0.3 ms an image on one core.

    Example:
        >>> import torch
        >>> Digits(device="cpu").features(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 64])
    """

    name = "digits"
    basis = "64 features of a classifier of handwritten digits"
    resizing = f"resized to {SIDE}×{SIDE} (bicubic); other shapes than a square are squeezed"

    def __init__(self, *, device: str = "auto", batch_size: int = 32) -> None:
        super().__init__(deepcopy(shipped()), device=device, batch_size=batch_size)

    def embed(self, images: Tensor) -> Tensor:
        """The batch's features, (n, 64)."""
        return self.model(squared(images, SIDE))[0]
