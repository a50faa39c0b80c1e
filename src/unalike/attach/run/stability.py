"""Stability regions: how large latent updates are for ordinary prompts, and which images leave
them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unalike.attach.run.memorisation import Memorisation
from unalike.attach.run.report import Report
from unalike.errors import OptionError, shown
from unalike.options import number_or_nan

WIDTH = 3.0
"""Half the width of a region, in standard deviations."""


@dataclass(frozen=True)
class StabilityRegion:
    """The sizes of latent updates of ordinary images; made by `stability_region`.

    Attributes:
        space: the latent space and that of the prompt embeddings, as in a report.
        mean: the mean size of the update at each step of the schedule.
        deviation: its standard deviation, above 0.
        images: how many images were measured.
    """

    space: str
    mean: list[float]
    deviation: list[float]
    images: int


def stability_region(reports: Iterable[Report]) -> StabilityRegion:
    """Measure the sizes of latent updates of ordinary images: mean and deviation at each step.

    With `u_it` as in `Memorisation` and n images,

        mean_t = Σ_i u_it / n,    deviation_t = √(Σ_i (u_it - mean_t)² / (n - 1))

    A region holds for one model, scheduler, number of steps, guidance scale and image size. The
    report tells model, steps and size, which are checked; keep the others the same yourself.

    Source: Huang et al. 2026, "Broken Memories" (arXiv:2605.22050). Read in the paper itself: the
    abstract, by which stability regions of latent update norms detect memorised images of Stable
    Diffusion 1.4 at every step. Read in summaries by others alone: the update as the difference of
    successive latents, the region `mean_t ± γ · deviation_t` of ordinary prompts, the largest
    deviation over all steps as the score, and 50 reference prompts. Ours: the division by √d,
    n - 1, and `WIDTH`. The paper's mitigation, which changes the latents, is left out.

    Args:
        reports: of calls without methods, for some dozens of prompts that the model has not
            memorised.

    Raises:
        OptionError: for fewer than two images, images of different spaces or numbers of steps,
            images that were not drawn in one pass, reports of functions, and updates that are the
            same for all images.

    Cost: O(n steps).

    Example:
        >>> from unalike import guide, load
        >>> guided = guide(load("emoji-turbo"))
        >>> images = guided(["heart", "clock", "cat"])
        >>> region = stability_region([guided.report])
        >>> region.images, len(region.mean)
        (3, 4)
    """
    reports = list(reports)
    rows = [
        (report.space, _sizes(_measured(image.memorisation).updates))
        for report in reports
        for image in report.images
    ]
    if len(rows) < 2:
        raise OptionError(
            f"the reports have {len(rows)} image{'' if len(rows) == 1 else 's'}; a stability "
            "region needs at least two, and some dozens to be of use: generate more prompts"
        )
    space, first = rows[0]
    for other, updates in rows:
        _require_same(space, len(first), other, len(updates))
    sizes = torch.stack([updates for _, updates in rows])
    if sizes.isnan().any():
        raise OptionError(
            "an image of the reports was not drawn in one pass over all steps, so it has no sizes "
            "for some; measure the region without methods, as in guide(pipe)(prompts)"
        )
    deviation = sizes.std(dim=0)
    if not (deviation > 0).all():
        raise OptionError(
            "the updates are the same for all images at a step, so they have no spread to measure; "
            "generate images of different prompts and seeds"
        )
    return StabilityRegion(space, sizes.mean(dim=0).tolist(), deviation.tolist(), len(rows))


def memorisation(
    report: Report, region: StabilityRegion, *, width: float = WIDTH
) -> list[Memorisation]:
    """Score each image of a call by the distance of its latent updates from a stability region.

    With `u_t` as in `Memorisation`,

        score = max_t |u_t - mean_t| / deviation_t
        outside = the share of steps t with |u_t - mean_t| > width · deviation_t

    A larger score is further from ordinary images. It is a hint, and proves nothing in either
    direction. On the shipped models it mostly tells prompts of one image from prompts of many,
    whatever is drawn. With 60 images of full names and 60 of head words, the AUC for "this is a
    training image" is 0.76 on `emoji-turbo` and 0.61 on `emoji`, where 0.5 is chance; among the
    images of head words alone it is 0.47 and 0.52 (docs/shields.md). `first_share`, which needs no
    region, reaches 0.92 and 0.68 there. The paper reports above 0.999 for Stable Diffusion 1.4,
    which was not run here. To keep images out, use a `Shield`.

    Source: as for `stability_region`.

    Steps that do not lead to the image, before a restart, count for neither.

    Args:
        report: of a call with the settings of the region.
        region: made by `stability_region`.
        width: half the width of the region, in standard deviations; above 0.

    Raises:
        OptionError: for a report of another space or number of steps, one without updates, and a
            width that is not above 0.

    Cost: O(B steps).

    Example:
        >>> from unalike import guide, load
        >>> guided = guide(load("emoji-turbo"))
        >>> images = guided(["heart", "clock", "cat"])
        >>> region = stability_region([guided.report])
        >>> images = guided(["alarm clock"])
        >>> [found] = memorisation(guided.report, region)
        >>> found.score > 0, 0 <= found.outside <= 1
        (True, True)
    """
    if not 0 < number_or_nan(width) < float("inf"):
        raise OptionError(
            f"width is {shown(width)}; allowed: a number of standard deviations above 0, as in "
            f"width={WIDTH}"
        )
    return [_scored(image.memorisation, report.space, region, width) for image in report.images]


def _scored(
    memorisation: Memorisation | None, space: str, region: StabilityRegion, width: float
) -> Memorisation:
    found = _measured(memorisation)
    updates, mean, deviation = _sizes(found.updates), _sizes(region.mean), _sizes(region.deviation)
    _require_same(region.space, len(mean), space, len(updates))
    off = ((updates - mean).abs() / deviation)[~updates.isnan()]
    return replace(found, score=off.max().item(), outside=(off > width).double().mean().item())


def _measured(found: Memorisation | None) -> Memorisation:
    if found is None:
        raise OptionError(
            "the report has no latent updates; only calls of a pipeline have them, as in "
            "guide(pipe)(prompt)"
        )
    return found


def _sizes(values: Sequence[float | None]) -> Tensor:
    """The values (T,) in float64, NaN for None."""
    return torch.tensor([math.nan if v is None else v for v in values], dtype=torch.float64)


def _require_same(space: str, steps: int, other: str, taken: int) -> None:
    for what, expected, got in (("latents", space, other), ("numbers of steps", steps, taken)):
        if expected != got:
            raise OptionError(
                f"the {what} differ: {expected} and {got}; sizes of updates can be compared for "
                "one model, image size, scheduler, number of steps and guidance scale alone"
            )
