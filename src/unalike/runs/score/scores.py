"""All scores of a set of images, with intervals: of the set, of each prompt, and their mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from unalike.kernels import Cosine, Gaussian, Kernel, unit_rows
from unalike.runs.score import estimates
from unalike.runs.score.bootstrap import Estimate, interval
from unalike.runs.score.catalogue import METRICS

SPECTRAL_LIMIT = 2000
"""Largest matrix whose eigenvalues are computed. With more images than that, and features with more
numbers, a sample is scored.
"""
FRECHET_LIMIT = 2048
"""Largest covariance that the Fréchet distance is computed of."""
FEW_PROMPTS = 10
PROMPT_BANDWIDTH = 0.3
"""Of the Gaussian kernel on CLIP's unit prompt embeddings, as SPARKE (arXiv:2506.10173) has it."""


@dataclass(frozen=True)
class FeatureSet:
    """Features (n, d) and the prompt (n,) that each belongs to as a number; None where there are no
    prompts.
    """

    features: Tensor
    groups: Tensor | None = None

    def of(self, group: int) -> Tensor:
        """The features of one prompt."""
        return self.features[self.groups == group] if self.groups is not None else self.features[:0]


@dataclass(frozen=True)
class Score:
    """A score with its 95% interval.

    Attributes:
        metric: a name of `METRICS`.
        scope: "all", on all images together; "mean", averaged over prompts; or "prompt".
        prompt: which prompt, where the scope is that.
        value: the score.
        low, high: ends of the interval; None where there is none.
        resampled: what the bootstrap redrew: "images", "prompts", "reference images" or "reference
            prompts"; None where nothing.
        images: images it was computed of; for a mean, of all its prompts.
        prompts: prompts that a mean was taken over; None elsewhere.
    """

    metric: str
    scope: str
    prompt: str | None
    value: float
    low: float | None
    high: float | None
    resampled: str | None
    images: int
    prompts: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Task:
    """Settings and data that scores are computed with; options as in `ScoreSettings`.

    Args:
        kernel, unit: of the extractor.
        prompts: texts, by number.
        prompt_features: embeddings (p, d) of those by CLIP; None without it.
        k, radius, bootstrap, seed: settings.
    """

    kernel: Kernel
    unit: float
    prompts: Sequence[str]
    prompt_features: Tensor | None
    k: int
    radius: float | None
    bootstrap: int
    seed: int


def compute(
    task: Task, generated: FeatureSet, reference: FeatureSet | None, tick: Callable[[float], None]
) -> tuple[list[Score], list[str]]:
    """All scores, and notes on what was left out or limited.

    Args:
        task: how.
        generated: at least two images.
        reference: None for scores of the images alone.
        tick: told the share that is done.

    Cost: O(n² d) at most, in blocks; matrices whose eigenvalues are needed stay below
    `SPECTRAL_LIMIT`.
    """
    notes: list[str] = []
    whole = _whole(task, generated, notes)
    tick(0.3)
    if reference is not None:
        whole |= _against(task, generated, reference, notes)
    tick(0.6)
    scores = [
        _score(task, name, estimate, generated, reference) for name, estimate in _ordered(whole)
    ]
    each: dict[int, dict[str, Estimate]] = {}
    if generated.groups is not None:
        for number in range(len(task.prompts)):
            each[number] = _of_prompt(task, generated, reference, whole, number)
            tick(0.6 + 0.4 * (number + 1) / len(task.prompts))
        scores += _means(task, each, generated)
        notes += _on_prompts(each, generated, reference)
        for number, own in each.items():
            images = len(generated.of(number))
            scores += [
                _prompt_score(task, name, estimate, number, images)
                for name, estimate in _ordered(own)
            ]
    return scores, notes


def _ordered(found: Mapping[str, Estimate]) -> list[tuple[str, Estimate]]:
    return [(name, found[name]) for name in METRICS if name in found]


def _whole(task: Task, generated: FeatureSet, notes: list[str]) -> dict[str, Estimate]:
    """The scores of all images that need no reference."""
    features, groups = generated.features, generated.groups
    sample = _sample(features, task, joint=task.prompt_features is not None)
    if sample is not None:
        notes.append(
            f"Vendi scores of all images, and of prompts with as many, are those of {len(sample)} "
            f"of them, by the seed {task.seed}; "
            "scores of different numbers of images do not compare."
        )
    rows = features if sample is None else features[sample]
    found = _located(estimates.diversity(rows, task.kernel), sample)
    found["similarity"] = estimates.similarity(features)
    if groups is not None:
        own = groups if sample is None else groups[sample]
        gram = None
        if task.prompt_features is not None:
            texts = unit_rows(task.prompt_features.double())
            gram = Gaussian(PROMPT_BANDWIDTH)(texts, texts)[own][:, own]
            found["clip_score"] = estimates.clip_fit(features, task.prompt_features[groups])
        found |= _located(estimates.given_prompts(rows, task.kernel, own, gram), sample)
    return found


def _sample(features: Tensor, task: Task, *, joint: bool = False) -> Tensor | None:
    """The images that eigenvalues are computed of; None for all. The cosine alone needs no larger
    matrix than there are features.
    """
    size, small = (
        len(features),
        isinstance(task.kernel, Cosine) and features.shape[1] <= SPECTRAL_LIMIT and not joint,
    )
    if size <= SPECTRAL_LIMIT or small:
        return None
    return (
        torch.randperm(size, generator=torch.Generator().manual_seed(task.seed))[:SPECTRAL_LIMIT]
        .sort()
        .values
    )


def _located(found: Mapping[str, Estimate], rows: Tensor | None) -> dict[str, Estimate]:
    return {name: Estimate(e.value, e.influence, log=e.log, rows=rows) for name, e in found.items()}


def _against(
    task: Task, generated: FeatureSet, reference: FeatureSet, notes: list[str]
) -> dict[str, Estimate]:
    """The scores of all images against the whole reference."""
    real, drawn = reference.features, generated.features
    found: dict[str, Estimate] = {}
    smaller, numbers = min(len(real), len(drawn)), real.shape[1]
    if task.k < smaller:
        found |= estimates.neighbourhood(real, drawn, task.k)
    else:
        notes.append(
            f"Precision, recall, density and coverage need more than k = {task.k} images a side; "
            f"there are {smaller}."
        )
    if smaller >= 2:
        if min(len(real) + len(drawn), numbers) > FRECHET_LIMIT:
            notes.append(
                f"The Fréchet distance is left out for features of more than {FRECHET_LIMIT} "
                "numbers and as many images."
            )
        else:
            found["frechet_distance"] = estimates.frechet(real, drawn)
            if smaller <= numbers:
                notes.append(
                    f"The Fréchet distance is of {smaller} images and features of {numbers} "
                    "numbers: with fewer images than numbers it is "
                    "far too large, and compares only with one of as many images."
                )
        found["kernel_distance"] = estimates.kernel(real, drawn)
    return found | estimates.copying(real, drawn, unit=task.unit, radius=task.radius)


def _of_prompt(
    task: Task,
    generated: FeatureSet,
    reference: FeatureSet | None,
    whole: Mapping[str, Estimate],
    number: int,
) -> dict[str, Estimate]:
    """The scores of one prompt's images.

    Against the prompt's own reference images where these have prompts; else those scores that are
    means over images are taken from the comparison with the whole reference.
    """
    features = generated.of(number)
    sample = _sample(features, task)
    found = _located(
        estimates.diversity(features if sample is None else features[sample], task.kernel), sample
    )
    if len(features) >= 2:
        found["similarity"] = estimates.similarity(features)
    if task.prompt_features is not None:
        found["clip_score"] = estimates.clip_fit(
            features, task.prompt_features[number].expand(len(features), -1)
        )
    if reference is None:
        return found
    if reference.groups is None:
        assert generated.groups is not None
        for name in ("precision", "density", "nearest_distance", "auth_pct", "share_inside"):
            if name in whole:
                found[name] = Estimate.mean(
                    whole[name].value + _influence(whole[name])[generated.groups == number]
                )
        return found
    real = reference.of(number)
    if task.k < min(len(real), len(features)):
        found |= estimates.neighbourhood(real, features, task.k)
    if min(len(real), len(features)) >= 2:
        found["kernel_distance"] = estimates.kernel(real, features)
    return found | (
        estimates.copying(real, features, unit=task.unit, radius=task.radius) if len(real) else {}
    )


def _influence(estimate: Estimate) -> Tensor:
    assert estimate.influence is not None
    return estimate.influence


def _score(
    task: Task, name: str, estimate: Estimate, generated: FeatureSet, reference: FeatureSet | None
) -> Score:
    """A score of all images; whole prompts are redrawn where there are several."""
    groups = (
        reference.groups if estimate.of_reference and reference is not None else generated.groups
    )
    side = "reference " if estimate.of_reference else ""
    several = groups is not None and len(groups.unique()) > 1
    units = groups if several else None
    if units is not None and estimate.rows is not None:
        units = units[estimate.rows]
    images = len(generated.features if estimate.rows is None else estimate.rows)
    return _with_interval(
        task,
        name,
        "all",
        None,
        estimate,
        units,
        side + ("prompts" if several else "images"),
        images,
    )


def _means(
    task: Task, each: Mapping[int, Mapping[str, Estimate]], generated: FeatureSet
) -> list[Score]:
    """Means over those prompts that have the score."""
    found = []
    for name in METRICS:
        values = {number: own[name].value for number, own in each.items() if name in own}
        if values:
            estimate = Estimate.mean(torch.tensor(list(values.values()), dtype=torch.float64))
            images = sum(len(generated.of(number)) for number in values)
            found.append(
                _with_interval(
                    task, name, "mean", None, estimate, None, "prompts", images, prompts=len(values)
                )
            )
    return found


def _prompt_score(task: Task, name: str, estimate: Estimate, number: int, images: int) -> Score:
    what = "reference images" if estimate.of_reference else "images"
    return _with_interval(task, name, "prompt", task.prompts[number], estimate, None, what, images)


def _with_interval(
    task: Task,
    name: str,
    scope: str,
    prompt: str | None,
    estimate: Estimate,
    units: Tensor | None,
    resampled: str,
    images: int,
    *,
    prompts: int | None = None,
) -> Score:
    ends = interval(estimate, units, draws=task.bootstrap, seed=task.seed)
    low, high = ends if ends is not None else (None, None)
    if low is not None and high is not None:
        largest = METRICS[name].largest
        low, high = (
            max(low, METRICS[name].smallest),
            min(high, math.inf if largest is None and scope == "mean" else largest or images),
        )
        low, high = min(low, estimate.value), max(high, estimate.value)
    return Score(
        name,
        scope,
        prompt,
        estimate.value,
        low,
        high,
        None if ends is None else resampled,
        images,
        prompts,
    )


def _on_prompts(
    each: Mapping[int, Mapping[str, Estimate]], generated: FeatureSet, reference: FeatureSet | None
) -> list[str]:
    notes = []
    if len(each) == 1:
        notes.append(
            "There is one prompt: intervals redraw its images, and means over prompts have none."
        )
    elif len(each) < FEW_PROMPTS:
        notes.append(
            f"Intervals redraw {len(each)} prompts; of fewer than about {FEW_PROMPTS} they come "
            "out too narrow."
        )
    if reference is None:
        return notes
    if reference.groups is None:
        notes.append(
            "The reference has no prompts: scores of a prompt compare its images with the whole "
            "reference, and recall, coverage and "
            "distances of distributions are given for all images alone."
        )
        return notes
    without = [n for n in each if len(reference.of(n)) == 0]
    if without:
        notes.append(
            f"{len(without)} of {len(each)} prompts have no reference images; scores against the "
            "reference leave them out of means."
        )
    short = sum("precision" not in own for own in each.values()) - len(without)
    if short:
        notes.append(
            f"{short} of {len(each)} prompts have too few images on one side for precision, "
            "recall, density and coverage at this k."
        )
    return notes
