"""`unalike score`: score a folder of images and write the results."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from unalike.errors import OptionError
from unalike.extractors import extractor
from unalike.extractors.base import Extractor
from unalike.runs.folder import free_folder
from unalike.runs.images import find_images
from unalike.runs.progress import Counter, Progress, silent
from unalike.runs.score.folder import ScoreFolder
from unalike.runs.score.images import ImageSet, extract
from unalike.runs.score.page import score_page
from unalike.runs.score.prompts import matched, read_prompts, read_run
from unalike.runs.score.record import score_record, score_table
from unalike.runs.score.scores import PROMPT_BANDWIDTH, FeatureSet, Score, Task, compute
from unalike.runs.score.selection import PAIR_LIMIT, Pair, alike_pairs, nearest_pairs
from unalike.runs.score.settings import ScoreSettings

_READING = 0.7  # share of the progress bar for reading images; the rest is for the scores


@dataclass(frozen=True)
class Outcome:
    """Result of a scoring: its folder, the content of `score.json`, and the scores."""

    folder: Path
    record: Mapping[str, Any]
    scores: Sequence[Score]

    def to_dict(self) -> dict[str, Any]:
        """The record with the folder, ready for JSON."""
        return {"out": str(self.folder), **self.record}


def score(settings: ScoreSettings, progress: Progress | None = None) -> Outcome:
    """Score a folder of images and write score.json, scores.parquet and report.html.

    Nothing is written before everything is computed, so that an interrupted scoring leaves no
    folder, or the earlier one as it was.

    Args:
        settings: what to do.
        progress: told the share of the work that is done.

    Raises:
        OptionError: for a setting, folder, feature or file of prompts that is not allowed.
        StoreError: for images that cannot be read, a model that cannot be loaded, and an output
            folder that is in the way.
        UnsupportedError: for a package that is missing.
        NumericsError: where a network makes NaN or infinity of an image.
    """
    tell = progress or silent
    plan = _Plan.of(settings.folder, settings.prompts)
    real = (
        _Plan.of(settings.reference, settings.reference_prompts, option="reference_prompts")
        if settings.reference
        else None
    )
    folder = ScoreFolder.claim(
        settings.out or free_folder(["score", plan.name], Path.cwd()), overwrite=settings.overwrite
    )
    try:
        started = time.perf_counter()
        own = extractor(settings.features, device=settings.device, batch_size=settings.batch_size)
        if settings.reference and settings.radius is None and own.copy_distance is not None:
            settings = replace(settings, radius=own.copy_distance / own.unit)
        images, reference = _read(settings, own, plan, real, tell)
        if len(images) < 2:
            raise OptionError(
                f"there is one image in {str(settings.folder)!r}; at least 2 are needed to "
                "compare them"
            )
        record, scores, page = _scored(
            settings, own, (plan, images), (real, reference), tell, started
        )
        folder.write(record, score_table(scores), page)
    except BaseException:
        folder.abandon()
        raise
    return Outcome(folder.path, record, scores)


@dataclass(frozen=True)
class _Plan:
    """Images to read with their prompts, if any; all of them checked before a
    network is loaded.
    """

    folder: Path
    files: Sequence[str]
    prompts: Mapping[str, str] | None
    source: str | None

    @classmethod
    def of(cls, folder: Path, prompts: Path | None, option: str = "prompts") -> _Plan:
        run = read_run(folder) if folder.is_dir() else None
        inside = run is not None and any("/" in name for name in run)
        files = sorted(run) if run and inside else find_images(folder)
        if prompts is None and run is None:
            return cls(folder, files, None, None)
        found, source = (
            (read_prompts(prompts, option=option), str(prompts))
            if prompts is not None
            else (run or {}, "samples.parquet")
        )
        return cls(
            folder, files, dict(zip(files, matched(files, found, source), strict=True)), source
        )

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def prompts_of(self, images: ImageSet) -> list[str] | None:
        return None if self.prompts is None else [self.prompts[file] for file in images.files]


def _read(
    settings: ScoreSettings, own: Extractor, plan: _Plan, real: _Plan | None, tell: Progress
) -> tuple[ImageSet, ImageSet | None]:
    total = len(plan.files) + (len(real.files) if real else 0)
    tick = Counter(tell, total, "images read", upto=_READING).add
    images, reference = (
        extract(p.folder, p.files, own, skip_bad=settings.skip_bad, tick=tick) if p else None
        for p in (plan, real)
    )
    assert images is not None
    return images, reference


def _scored(
    settings: ScoreSettings,
    own: Extractor,
    drawn: tuple[_Plan, ImageSet],
    given: tuple[_Plan | None, ImageSet | None],
    tell: Progress,
    started: float,
) -> tuple[dict[str, Any], list[Score], str]:
    """The record, the scores and the page."""
    (plan, images), (real, reference) = drawn, given
    prompts = plan.prompts_of(images)
    texts = list(dict.fromkeys(prompts or []))
    embedded = own.prompt_features(texts) if texts else None
    task = Task(
        own.kernel,
        own.unit,
        texts,
        embedded,
        settings.k,
        settings.radius,
        settings.bootstrap,
        settings.seed,
    )
    generated = FeatureSet(images.features, _numbers(prompts, texts))
    protected = (
        FeatureSet(
            reference.features, _numbers(real.prompts_of(reference), texts) if texts else None
        )
        if real and reference
        else None
    )
    scores, notes = compute(
        task, generated, protected, lambda share: tell(_READING + (0.95 - _READING) * share)
    )
    if len(images.sizes) > 1 or (
        reference is not None and set(reference.sizes) != set(images.sizes)
    ):
        notes.insert(
            0, f"The images have different sizes; each is {own.resizing} before it is compared."
        )
    if len(images) > PAIR_LIMIT:
        notes.append(
            f"The most alike pairs are those of {PAIR_LIMIT} images, drawn with the seed "
            f"{settings.seed}."
        )
    alike = alike_pairs(images.features, own.kernel, seed=settings.seed)
    nearest = nearest_pairs(images.features, reference.features, unit=own.unit) if reference else []
    kernel = (
        "1 for the same prompt, 0 for others"
        if embedded is None
        else f"Gaussian of bandwidth {PROMPT_BANDWIDTH} on CLIP's unit embeddings"
    )
    source = None if plan.source is None else Path(plan.source).name
    asked = {"source": source, "count": len(texts), "kernel": kernel} if texts else None
    record = score_record(settings, own, images, reference, asked)
    record |= {
        "seconds": round(time.perf_counter() - started, 2),
        "notes": notes,
        "figures": [f.to_dict() for f in scores],
        "most_alike": [_named(p, images, images, "similarity") for p in alike],
        "nearest_reference": [_named(p, images, reference, "distance") for p in nearest]
        if reference
        else None,
    }
    return record, scores, score_page(record, scores, images, reference, prompts, alike, nearest)


def _numbers(prompts: Sequence[str] | None, texts: Sequence[str]) -> torch.Tensor | None:
    """The number of each image's prompt; -1 for one that is not among the texts."""
    if prompts is None:
        return None
    number = {text: i for i, text in enumerate(texts)}
    return torch.tensor([number.get(prompt, -1) for prompt in prompts])


def _named(pair: Pair, first: ImageSet, second: ImageSet, what: str) -> dict[str, Any]:
    return {"image": first.files[pair.first], "other": second.files[pair.second], what: pair.value}
