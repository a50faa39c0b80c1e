"""The shipped class-to-image model of handwritten digits: data, classifier, and judge."""

from unalike.models.digits.classifier import classify, features
from unalike.models.digits.data import class_index, held_out, load_images, load_labels, truth
from unalike.models.digits.judge import Match, count, nearest

__all__ = [
    "Match",
    "class_index",
    "classify",
    "count",
    "features",
    "held_out",
    "load_images",
    "load_labels",
    "nearest",
    "truth",
]
