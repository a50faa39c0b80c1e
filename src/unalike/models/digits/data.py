"""The digits data set: images, labels, which of them are held out, and the set of right images
for a class.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unalike.errors import OptionError, did_you_mean

SIDE = 16
CLASSES = 10
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HELD_OUT = 5
"""Every fifth image of a class is held out of the classifier's training."""


@cache
def load_images() -> Tensor:
    """All images as uint8 (1797, 3, 16, 16), dark on white, grey: the three channels are
    equal.
    """
    with (
        resources.files("unalike.models.digits").joinpath("dataset/images.png").open("rb") as f,
        Image.open(f) as sheet,
    ):
        pixels = np.asarray(sheet)
    rows, columns = pixels.shape[0] // SIDE, pixels.shape[1] // SIDE
    tiles = (
        pixels.reshape(rows, SIDE, columns, SIDE).transpose(0, 2, 1, 3).reshape(-1, 1, SIDE, SIDE)
    )
    return torch.from_numpy(np.ascontiguousarray(tiles[: len(load_labels())])).expand(-1, 3, -1, -1)


@cache
def load_labels() -> Tensor:
    """The digit of each image, (1797,) int64."""
    text = (
        resources.files("unalike.models.digits")
        .joinpath("dataset/labels.txt")
        .read_text(encoding="utf-8")
    )
    return torch.tensor([int(digit) for digit in "".join(text.split())])


def held_out() -> Tensor:
    """Mark the images that the classifier was not trained on, (1797,) bool.

    Every fifth of each class; the writers are the same on both sides.
    """
    chosen = torch.zeros(len(load_labels()), dtype=torch.bool)
    for label in range(CLASSES):
        chosen[truth(label)[HELD_OUT - 1 :: HELD_OUT]] = True
    return chosen


def class_index(label: int | str) -> int:
    """The class, 0 to 9, that a label names: a digit, as a number or as text, or its English name.

    Raises:
        OptionError: for any other label.

    Example:
        >>> class_index(3), class_index("3"), class_index("Three")
        (3, 3, 3)
    """
    known = {str(i): i for i in range(CLASSES)} | {name: i for i, name in enumerate(NAMES)}
    text = str(label).strip().lower()
    if text not in known or isinstance(label, bool):
        raise OptionError(
            f"label {label!r} is no class of the digits; {did_you_mean(text, NAMES)}allowed: 0 to "
            f"{CLASSES - 1}, or {', '.join(NAMES)}"
        )
    return known[text]


def truth(label: int | str) -> Tensor:
    """The indices (k,) int64, ascending, of all images in `load_images()` that show a digit; k is
    174 to 183.

    Raises:
        OptionError: for a label that is no class.

    Example:
        >>> truth("three").shape
        torch.Size([183])
    """
    return (load_labels() == class_index(label)).nonzero().flatten()
