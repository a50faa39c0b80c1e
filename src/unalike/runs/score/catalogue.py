"""The scores that `unalike score` reports: their names, what they are called, and how to read
them. Imports nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One score.

    Args:
        title: what it is called on the page.
        group: "diversity", "prompts" or "reference": what it needs beside the images.
        better: "larger", "smaller" or "".
        meaning: how to read it, in a line.
        smallest, largest: what it can be; `largest` None for the number of images.
    """

    title: str
    group: str
    better: str
    meaning: str
    smallest: float = -math.inf
    largest: float | None = math.inf


METRICS: dict[str, Metric] = {
    "vendi": Metric(
        "Vendi score",
        "diversity",
        "larger",
        "effective number of different images, 1 (all alike) to the number of images",
        1,
        None,
    ),
    "rke": Metric(
        "RKE score",
        "diversity",
        "larger",
        "the Vendi score of order 2: the same, with less weight on rare images",
        1,
        None,
    ),
    "vendi_inf": Metric(
        "Vendi score, order ∞",
        "diversity",
        "larger",
        "the same for the most frequent kind of image alone",
        1,
        None,
    ),
    "similarity": Metric(
        "in-batch similarity",
        "diversity",
        "smaller",
        "mean cosine between the features of different images",
        -1,
        1,
    ),
    "conditional_vendi": Metric(
        "Conditional-Vendi score",
        "prompts",
        "larger",
        "diversity that the prompts do not explain: 1 where a prompt fixes its image",
        1,
        None,
    ),
    "information_vendi": Metric(
        "information part of Vendi",
        "prompts",
        "",
        "diversity that comes from differing prompts; Vendi is the product of both",
        1,
        None,
    ),
    "clip_score": Metric(
        "CLIPScore",
        "prompts",
        "larger",
        "fit of images to their prompts: 100 times the mean cosine",
        0,
        100,
    ),
    "precision": Metric(
        "precision",
        "reference",
        "larger",
        "share of images that lie among the reference images",
        0,
        1,
    ),
    "recall": Metric(
        "recall", "reference", "larger", "share of reference images that lie among the images", 0, 1
    ),
    "density": Metric(
        "density",
        "reference",
        "larger",
        "how densely reference images surround the images; about 1 where both are alike",
        0,
    ),
    "coverage": Metric(
        "coverage", "reference", "larger", "share of reference images with an image near them", 0, 1
    ),
    "frechet_distance": Metric(
        "Fréchet distance",
        "reference",
        "smaller",
        "between normal distributions fitted to both sets",
        0,
    ),
    "kernel_distance": Metric(
        "kernel distance",
        "reference",
        "smaller",
        "between both distributions; about 0 where they are equal",
    ),
    "nearest_distance": Metric(
        "distance to the nearest",
        "reference",
        "",
        "mean distance of an image to its nearest reference image",
        0,
    ),
    "smallest_distance": Metric(
        "smallest distance",
        "reference",
        "",
        "distance of the image that comes closest to the reference",
        0,
    ),
    "auth_pct": Metric(
        "AuthPct",
        "reference",
        "larger",
        "percentage of images further from their nearest reference image than another one is from "
        "it; copies lower it",
        0,
        100,
    ),
    "share_inside": Metric(
        "share inside the radius",
        "reference",
        "",
        "share of images closer than the radius to a reference image: copies, with features such "
        "as sscd and emoji-copies",
        0,
        1,
    ),
}

GROUPS: dict[str, str] = {
    "diversity": "Diversity",
    "prompts": "Given the prompts",
    "reference": "Against the reference",
}
