"""Draws and judges the groups of a trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.fewstep.methods import ALONE
from benchmarks.fewstep.models import MODELS, Model
from benchmarks.pareto.measure import ready_methods
from benchmarks.pareto.trials import Trial
from training.emoji.measure import VALIDATION, draw
from unalike.attach import Candidates, guide
from unalike.memory import Memory
from unalike.models import emoji
from unalike.pipelines.loading import load

CPU = "the CPU"
_PROMPTS, _CALIBRATION = 4, 8
"""Validation prompts, and images of each, that a radius is measured on."""


@dataclass(frozen=True)
class Job:
    """A trial on some prompts: what one process does at a time.

    Args:
        model: its name in `MODELS`.
        trial: the setting.
        prompts: to draw.
        groups: size of a group → how many groups of that size of each prompt. Group `g` of `size`
            images has the seeds from `g · size` on.
    """

    model: str
    trial: Trial
    prompts: tuple[str, ...]
    groups: Mapping[int, int]


def measure(job: Job) -> list[dict[str, Any]]:
    """Draw the groups of a job and judge them: a row for each group.

    `shown` has for each image the right image that it shows, or -1; `evaluations` is how often the
    denoiser was evaluated for an image of the group, counted at the denoiser, where
    classifier-free guidance takes two; `device` is the GPU that it was on, where there is one.
    """
    model = MODELS[job.model]
    pipe = _pipeline(model.source)
    methods = ready_methods(job.trial, lambda: _unguided(model.name, job.trial.guidance_scale))
    how = job.trial.candidates
    chosen: dict[str, Any] = {"candidates": Candidates(**how)} if how else {}
    guided = guide(pipe, *methods, **chosen)
    about = {
        "model": job.model,
        "key": job.trial.key,
        "family": job.trial.family,
        "setting": job.trial.setting,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else CPU,
    }
    rows = []
    for prompt in job.prompts:
        draws = _Draws(guided, _denoiser(pipe), model, job.trial, prompt)
        regrouped = job.trial.family in ALONE
        sets = draws.regrouped(job.groups) if regrouped else draws.grouped(job.groups)
        for size, group, images in sets:
            place = {"prompt": prompt, "size": size, "group": group}
            rows.append({**about, **place, **images.row(len(emoji.truth(prompt)))})
    return rows


@dataclass(frozen=True)
class Judged:
    """Images of one prompt as the judge sees them.

    Attributes:
        shown: (n,) the right image that each shows, or -1.
        features: (n, d) unit vectors.
        evaluations: of the denoiser, for each image.
    """

    shown: Tensor
    features: Tensor
    evaluations: float

    @classmethod
    def of(cls, images: Tensor, prompt: str, evaluations: float) -> Judged:
        """The verdict on images (n, 3, 64, 64) in [0, 1]."""
        right, match = emoji.truth(prompt), emoji.nearest(images)
        shown = torch.where(match.shown & torch.isin(match.index, right), match.index, -1)
        return cls(shown, emoji.features(images), evaluations)

    def __getitem__(self, rows: slice) -> Judged:
        return Judged(self.shown[rows], self.features[rows], self.evaluations)

    def row(self, right_images: int) -> dict[str, Any]:
        """Counts as of `unalike.models.counts.Counts`, where there are so many right images, and
        `similarity`, the mean cosine of the features of two images.
        """
        images, found = len(self.shown), self.shown[self.shown >= 0]
        cosines = self.features @ self.features.T
        return {
            "samples": images,
            "right": len(found),
            "distinct": len(found.unique()),
            "possible": min(images, right_images),
            "shown": self.shown.tolist(),
            "similarity": float((cosines.sum() - cosines.trace()) / (images * (images - 1))),
            "evaluations": self.evaluations,
        }


@dataclass(frozen=True)
class _Draws:
    """Draws the images of one prompt."""

    guided: Any
    denoiser: nn.Module
    model: Model
    trial: Trial
    prompt: str

    def regrouped(self, groups: Mapping[int, int]) -> Iterator[tuple[int, int, Judged]]:
        """Size and number of each group with its images, which are drawn once for all sizes."""
        images = self._images(0, max(size * count for size, count in groups.items()))
        for size, count in groups.items():
            for group in range(count):
                yield size, group, images[group * size : (group + 1) * size]

    def grouped(self, groups: Mapping[int, int]) -> Iterator[tuple[int, int, Judged]]:
        """The same with images that are drawn group by group, as a user draws them."""
        for size, count in groups.items():
            for group in range(count):
                yield size, group, self._images(group * size, size)

    def _images(self, seed: int, count: int) -> Judged:
        with evaluations_of(self.denoiser) as seen:
            images = draw(
                self.guided,
                [self.prompt] * count,
                seed=seed,
                guidance_scale=self.trial.guidance_scale,
                steps=self.model.steps,
                batch=32,
            )
        return Judged.of(images, self.prompt, sum(seen) / count)


@contextmanager
def evaluations_of(denoiser: nn.Module) -> Iterator[list[int]]:
    """A list that gets the batch size of each evaluation of a model in the block."""
    seen: list[int] = []

    def count(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = args[0] if args else next(v for v in kwargs.values() if isinstance(v, Tensor))
        seen.append(len(first))

    handle = denoiser.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def _denoiser(pipe: Any) -> nn.Module:
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer


@cache
def _pipeline(source: str) -> Any:
    pipe = load(source, dtype=torch.float32)
    pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@cache
def _unguided(name: str, guidance_scale: float) -> tuple[Tensor, Tensor]:
    """Final latents of plain images of the first validation prompts, and the numbers of their
    prompts.
    """
    model, memory = MODELS[name], Memory()
    prompts = [prompt for prompt in VALIDATION[:_PROMPTS] for _ in range(_CALIBRATION)]
    draw(
        guide(_pipeline(model.source), memory=memory),
        prompts,
        seed=1000,
        guidance_scale=guidance_scale,
        steps=model.steps,
    )
    (space,) = memory.spaces()
    view = memory.view(space)
    assert view is not None  # these images are in it
    return view.latents, torch.arange(_PROMPTS).repeat_interleave(_CALIBRATION)
