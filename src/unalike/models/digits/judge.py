"""The judge of digit images: the digit that an image shows, if any, and its nearest real image.

Every count of right digits rests on it.

A nearest image always exists, and a classifier of ten classes always names one. So an image
counts as a digit only if a classifier that also knows spoilt images is sure of it, and a real
image of that digit is near.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from unalike.models.counts import Counts
from unalike.models.digits.classifier import check, classify
from unalike.models.digits.data import SIDE, load_images, load_labels, truth

REACH = 1
"""Shifts, in pixels each way, that an image is forgiven."""
CONFIDENCE = 0.5
"""Least probability of its digit that an accepted image has: more than all other digits and none at
all together. At 0.5 nearly all held-out images pass and hardly any blend does; higher values cost
real images more than they gain.
"""
DISTANCE = 0.18
"""Largest distance of an accepted image from the nearest real image of its digit, in units of the
full range: 99.5% of the real images have another one of their digit within it.
"""


@dataclass(frozen=True)
class Match:
    """The judge's verdict on images.

    Attributes:
        label: (n,) int64, the most probable digit.
        confidence: (n,) float32, its probability, where the classifier may also say that there is
            none.
        index: (n,) int64, the image in `load_images()` of that digit that each image is nearest
            to.
        distance: (n,) float32, root-mean-square difference to it after the best shift: 0 for the
            image itself.
        shown: (n,) bool, whether the classifier is sure and the image is near, so that the image
            counts as that digit.
    """

    label: Tensor
    confidence: Tensor
    index: Tensor
    distance: Tensor
    shown: Tensor


def nearest(images: Tensor, *, confidence: float = CONFIDENCE, distance: float = DISTANCE) -> Match:
    """The digit that each image shows, or that it shows none, and the real image of it that is
    nearest:

        distance = min over images of the digit and shifts s of the root mean square over pixels
        of (image shifted by s - image)

    Args:
        images: (n, 3, 16, 16) with values in [0, 1].
        confidence: least probability at which an image counts.
        distance: largest distance at which it does.

    Raises:
        OptionError: for another shape or values outside [0, 1].

    Cost: about 1 ms an image on one core.

    Example:
        >>> match = nearest(load_images()[10:13] / 255)
        >>> match.label, match.index
        (tensor([0, 1, 2]), tensor([10, 11, 12]))
    """
    probability, label = classify(check(images)).max(1)
    found = [
        _nearest(part.float(), own)
        for part, own in zip(images.split(64), label.split(64), strict=True)
    ]
    index, away = torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])
    return Match(label, probability, index, away, (probability >= confidence) & (away <= distance))


def count(images: Tensor, label: int | str) -> Counts:
    """Judge samples (n, 3, 16, 16) in [0, 1] of one class against all real images of it.

    A sample is right if it shows that digit; `distinct` counts the real images that are the
    nearest ones of right samples.

    Raises:
        OptionError: for a label that is no class.

    Example:
        >>> count(load_images()[truth("three")][:5] / 255, "three")
        Counts(samples=5, right=5, distinct=5, possible=5)
    """
    right, match = truth(label), nearest(images)
    hit = match.shown & torch.isin(match.index, right)
    return Counts(
        len(images), int(hit.sum()), len(match.index[hit].unique()), min(len(images), len(right))
    )


def shifted(images: Tensor, dy: int, dx: int) -> Tensor:
    """Moved down by `dy` and right by `dx` pixels; paper comes in, what leaves the image is
    lost.
    """
    reach = max(abs(dy), abs(dx))
    padded = F.pad(images, (reach,) * 4, value=1.0)
    return padded[..., reach - dy : reach - dy + SIDE, reach - dx : reach - dx + SIDE]


def _nearest(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    best = torch.full((len(images), len(load_labels())), torch.inf)
    for dy in range(-REACH, REACH + 1):
        for dx in range(-REACH, REACH + 1):
            best = torch.minimum(
                best, torch.cdist(shifted(images, dy, dx).mean(1).flatten(1), _references())
            )
    best[labels[:, None] != load_labels()] = torch.inf
    closest, index = best.min(1)
    return index, closest / _references().shape[1] ** 0.5


@cache
def _references() -> Tensor:
    return load_images()[:, 0].flatten(1).float() / 255
