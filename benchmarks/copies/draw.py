"""Draws a prompt beside a protected set, and measures every finished image by brute force."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.copies.settings import (
    BATCH,
    FINISHED,
    IVF,
    LATENT_RADIUS,
    MODELS,
    NONE,
    PROBED,
    Job,
    Setting,
    protected,
)
from benchmarks.fewstep.measure import evaluations_of
from benchmarks.shield_emoji.draw import Unchecked, names
from unalike.attach import encode_images, guide
from unalike.attach.spaces import latent_model, latent_space
from unalike.errors import RefusedError
from unalike.extractors.base import Extractor
from unalike.guidance.spell import SPELL
from unalike.models import emoji
from unalike.models.emoji.copies import EmojiCopies
from unalike.pipelines.loading import load
from unalike.shields import Shield


def measure(job: Job, folder: Path) -> list[dict[str, Any]]:
    """A row an image. The images, as 8 bits, go to `folder/data`, and their descriptors to
    `folder/latents`, which `benchmarks/brute_force.py` reads.
    """
    call, images, reports = _call(job.setting), [], []
    seconds, seen = 0.0, 0
    for begin in range(0, job.images, BATCH):
        seeds = range(begin, min(job.images, begin + BATCH))
        with evaluations_of(_pipe(job.setting.model).unet) as evaluated:
            started = time.perf_counter()
            images.append(_drawn(call, job, seeds))
            seconds += time.perf_counter() - started
        seen += sum(evaluated)
        if job.setting.guard != NONE:
            reports += call.report.images
    shown = (torch.cat(images) * 255).round() / 255
    refused = [report.refused for report in reports] or [False] * job.images
    own = protected(job.setting.protected)
    match, right = emoji.nearest(shown), emoji.truth(job.prompt)
    copies, latents = descriptors(shown), _latents(shown)
    _write(job, shown, copies, [i for i, gone in enumerate(refused) if not gone], folder)
    of_copies = torch.cdist(copies.double(), known("copies", job.setting.protected)).min(dim=1)
    of_latents = torch.cdist(latents.double(), known("latents", job.setting.protected)).amin(dim=1)
    return [
        {
            **asdict(job.setting),
            "prompt": job.prompt,
            "seed": i,
            "refused": refused[i],
            "restarts": reports[i].restarts if reports else 0,
            "attempts": reports[i].attempts if reports else 1,
            "nearest": int(own[of_copies.indices[i]]),
            "copies": float(of_copies.values[i]),
            "latents": float(of_latents[i]),
            "named": bool(match.shown[i] and torch.isin(match.index[i], own)),
            "right": bool(match.shown[i] and torch.isin(match.index[i], right)),
            "index": int(match.index[i]),
            "seconds": seconds / job.images,
            "evaluations": seen / job.images,
        }
        for i in range(job.images)
    ]


def returned(job_name: str, prompt: str, folder: Path) -> Tensor:
    """The images (n, 3, 64, 64) of a job in [0, 1] that were not refused."""
    held = load_file(_file(folder / "data" / job_name, prompt))
    return held["images"][held["kept"]].float() / 255


def image_of(job_name: str, prompt: str, seed: int, folder: Path) -> Tensor:
    """An image (3, 64, 64) of a job in [0, 1]."""
    return load_file(_file(folder / "data" / job_name, prompt))["images"][seed].float() / 255


def build(name: str, folder: Path) -> None:
    """Write the descriptors of a protected set to `folder/protected`, where they are not there."""
    place = folder / "protected" / f"{name}-copies"
    if not (place / "manifest.json").exists():
        _copies_shield(name).save(place)


def _drawn(call: Any, job: Job, seeds: range) -> Tensor:
    """Images (n, 3, 64, 64) in [0, 1]; refused ones are black."""
    model = MODELS[job.setting.model]
    try:
        return call(
            prompt=[job.prompt] * len(seeds),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            num_inference_steps=model.steps,
            guidance_scale=model.guidance_scale,
            output_type="pt",
        ).images
    except RefusedError as refused:
        return refused.output.images


@cache
def _call(setting: Setting) -> Any:
    """The pipeline of a setting."""
    pipe = _pipe(setting.model)
    if setting.guard == NONE:
        return pipe
    if setting.guard == FINISHED:
        shields = [_latent_shield(setting.protected), _copies_shield(setting.protected)]
        return guide(pipe, shield=shields, embed=_extractor())
    shield = _latent_shield(setting.protected)
    shield = _unchecked(shield) if setting.guard == IVF else shield
    return guide(pipe, SPELL(batch=False, memory=False), shield=shield, on_violation="move")


def _unchecked(shield: Shield) -> Unchecked:
    points = torch.from_numpy(shield.vectors.rows(np.arange(len(shield))))
    found = Unchecked(points, space=shield.space, radius=shield.radius)
    found.shape, found.nprobe = shield.shape, PROBED
    return found


@cache
def _latent_shield(name: str) -> Shield:
    pipe, own = _pipe("emoji"), protected(name)
    latents = _latents(emoji.load_images()[own].float() / 255)
    points = latents.view(-1, *_shape())
    space = latent_space(latent_model(pipe), _shape())
    return Shield(points, space=space, radius=LATENT_RADIUS, ids=[names()[int(i)] for i in own])


@cache
def _copies_shield(name: str) -> Shield:
    own, extractor = protected(name), _extractor()
    points = descriptors(emoji.load_images()[own].float() / 255)
    space = f"{extractor.fingerprint}/{points.shape[1]}"
    ids = [names()[int(i)] for i in own]
    assert extractor.copy_distance is not None
    return Shield(points, space=space, radius=extractor.copy_distance, ids=ids)


@cache
def known(space: str, name: str) -> Tensor:
    """The protected images in a space (n, d) float64, encoded anew and not read from a set."""
    images = emoji.load_images()[protected(name)].float() / 255
    encode = descriptors if space == "copies" else _latents
    return torch.cat([encode(part) for part in images.split(24)]).double()


@cache
def _extractor() -> Extractor:
    return EmojiCopies(device="cpu")


def descriptors(images: Tensor) -> Tensor:
    """The copy-detection descriptors (n, 64) of images (n, 3, 64, 64) in [0, 1]."""
    return _extractor().features(images)


def _latents(images: Tensor) -> Tensor:
    return encode_images(_pipe("emoji"), images).flatten(1).float()


@cache
def _shape() -> tuple[int, ...]:
    return tuple(encode_images(_pipe("emoji"), torch.zeros(1, 3, 64, 64)).shape[1:])


@cache
def _pipe(model: str) -> Any:
    pipe = load(model)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _write(job: Job, images: Tensor, points: Tensor, kept: list[int], folder: Path) -> None:
    pixels = {"images": (images * 255).to(torch.uint8), "kept": torch.tensor(kept).long()}
    for place, tensors in (
        (folder / "data" / job.setting.name, pixels),
        (folder / "latents" / job.setting.name, {"latents": points[kept].contiguous()}),
    ):
        place.mkdir(parents=True, exist_ok=True)
        if place.parent.name == "data" or kept:
            save_file(tensors, _file(place, job.prompt), {"prompt": job.prompt})


def _file(folder: Path, prompt: str) -> Path:
    return folder / f"{hashlib.sha256(prompt.encode()).hexdigest()[:12]}.safetensors"
