"""Draws a prompt beside a protected set and measures every image by brute force."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.pareto.tasks import open_pipeline
from benchmarks.shield_emoji.settings import GUIDANCE_SCALE, STEPS, Job, Setting
from unalike.attach import encode_images, guide
from unalike.attach.spaces import latent_model, latent_space
from unalike.errors import RefusedError
from unalike.guidance.spell import SPELL
from unalike.models.emoji.data import entries, load_images, truth
from unalike.models.emoji.judge import nearest as shown_by
from unalike.pipelines.features import Latents
from unalike.shields import Shield
from unalike.shields.faiss import FaissIVF
from unalike.shields.search import nearest


def measure(job: Job, folder: Path) -> list[dict[str, Any]]:
    """A row an image; its final latents go to `folder/latents`."""
    pipe, shield = _pipe(), _shield(job.setting, folder)
    embed = _extractor() if job.setting.guard == "image" else None
    call: Any = (
        pipe
        if shield is None
        else guide(
            pipe, SPELL(batch=False, memory=False), shield=shield, embed=embed, on_violation="move"
        )
    )
    generators = [torch.Generator().manual_seed(i) for i in range(job.images)]
    started = time.perf_counter()
    refused: list[int] = []
    try:
        output = call(
            prompt=[job.prompt] * job.images,
            generator=generators,
            guidance_scale=GUIDANCE_SCALE,
            num_inference_steps=STEPS,
            output_type="latent",
        )
    except RefusedError as error:
        output, refused = error.output, error.refused
    latents = output.images
    seconds = time.perf_counter() - started
    _write(latents, folder / "latents" / job.setting.name, job.prompt)
    index, distance = nearest(latents.flatten(1), _protected(job.setting.protected))
    right, shown = _judged(pipe, latents, job.prompt)
    reports = [None] * job.images if shield is None else call.report.images
    return [
        {
            **asdict(job.setting),
            "prompt": job.prompt,
            "seed": i,
            "nearest": int(index[i]),
            "distance": float(distance[i]),
            "right": bool(right[i]),
            "shown": bool(shown[i]),
            "guided": 0.0 if report is None else report.active["spell"],
            "moved": report is not None and report.certificate.moved,
            "refused": i in refused,
            "again": None,
            "seconds": seconds / job.images,
            "digest": hashlib.sha256(latents[i].numpy().tobytes()).hexdigest()[:16],
        }
        for i, report in enumerate(reports)
    ]


@torch.no_grad()
def again(setting: str, prompt: str, folder: Path) -> list[float]:
    """The distances of a prompt's finished images, rounded to 8 bits and encoded again, to the
    nearest training image.
    """
    latents = load_file(_file(folder / "latents" / setting, prompt))["latents"]
    images = (decoded(_pipe(), latents) * 255).round() / 255
    return nearest(encode_images(_pipe(), images).flatten(1), _protected("all"))[1].tolist()


class Unchecked(Shield):
    """A protected set as published: SPELL sees what an approximate search finds, and nothing is
    checked after the last step.
    """

    def trajectory(self, space: str, device: torch.device | None = None) -> Any:
        """What the approximate search finds."""
        return _Found(self, self.nprobe)

    def inside(self, latents: Tensor) -> Tensor:
        """None (B,), whatever they are: nothing is looked for."""
        return torch.zeros(len(latents), dtype=torch.bool)

    def nearest(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """No distance: nothing is measured, so that nothing is refused."""
        return torch.zeros(len(latents), dtype=torch.int64), torch.full((len(latents),), torch.inf)

    nprobe: int


class _Found:
    """The balls that an approximate search finds."""

    def __init__(self, shield: Shield, nprobe: int) -> None:
        self.radius = shield.radius
        self._vectors = shield.vectors
        self._search = _ivf(shield)
        self._search.nprobe = nprobe

    def __len__(self) -> int:
        return self._vectors.count

    def touched(self, x0: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Images of x0 (B, d), each with the centres of the balls found."""
        for image, rows in enumerate(self._search.within(x0.numpy(), self.radius)):
            if len(rows):
                yield image, torch.from_numpy(self._vectors.rows(rows)).to(x0)


def build(setting: Setting, folder: Path) -> None:
    """Write the protected set of a setting to `folder/protected`, if it is not there yet."""
    place = folder / "protected" / setting.name
    if setting.guard == "exact" and not (place / "manifest.json").exists():
        _made(setting).save(place)


@cache
def _ivf(shield: Shield) -> FaissIVF:
    return FaissIVF(shield.vectors)


@cache
def _shield(setting: Setting, folder: Path) -> Shield | None:
    if setting.guard == "none":
        return None
    if setting.guard == "exact":
        return Shield.open(folder / "protected" / setting.name)
    if setting.guard == "image":
        points = _extractor().features(load_images().float() / 255)
        space = f"{_extractor().fingerprint}/{points.shape[1]}"
        return Shield(
            points, space=space, radius=setting.radius, ids=[names()[i] for i in range(len(points))]
        )
    made = _made(setting)
    unchecked = Unchecked(
        torch.from_numpy(next(iter(made.vectors.blocks(len(made))))[1]),
        space=made.space,
        radius=made.radius,
    )
    unchecked.shape, unchecked.nprobe = made.shape, setting.nprobe
    _ivf(unchecked)  # built now, not when the clock runs
    return unchecked


def _made(setting: Setting) -> Shield:
    chosen, latents = numbers(setting.protected), _encoded()
    space = latent_space(latent_model(_pipe()), tuple(latents.shape[1:]))
    return Shield(
        latents[chosen],
        space=space,
        radius=setting.radius,
        ids=[names()[i] for i in chosen.tolist()],
    )


@cache
def _extractor() -> Latents:
    return Latents("emoji", device="cpu")


@cache
def _encoded() -> Tensor:
    return encode_images(_pipe(), load_images().float() / 255)


def numbers(protected: str) -> Tensor:
    """The numbers in `load_images()` of the protected images."""
    return torch.arange(len(load_images())) if protected == "all" else truth("flag")


@cache
def names() -> dict[int, str]:
    """A name for each image: that of the first emoji that has it."""
    found: dict[int, str] = {}
    for entry in entries():
        found.setdefault(entry.image, entry.name)
    return found


@cache
def _protected(protected: str) -> Tensor:
    """The latents of the protected images, encoded anew, not read from the set on disk."""
    chosen = load_images()[numbers(protected)].float() / 255
    with torch.no_grad():
        vae = _pipe().vae
        encoded = torch.cat(
            [vae.encode(part * 2 - 1).latent_dist.mode() for part in chosen.split(8)]
        )
    return (encoded * vae.config.scaling_factor).flatten(1)


@cache
def _pipe() -> Any:
    return open_pipeline("emoji")


@torch.no_grad()
def _judged(pipe: Any, latents: Tensor, prompt: str) -> tuple[Tensor, Tensor]:
    """Whether each image is nearest to a right image, and whether the judge accepts it as one."""
    match = shown_by(decoded(pipe, latents))
    right = torch.isin(match.index, truth(prompt))
    return right, right & match.shown


@torch.no_grad()
def decoded(pipe: Any, latents: Tensor) -> Tensor:
    """The images (n, 3, 64, 64) in [0, 1] of final latents."""
    pixels = torch.cat(
        [
            pipe.vae.decode(part / pipe.vae.config.scaling_factor).sample
            for part in latents.split(32)
        ]
    )
    return (pixels / 2 + 0.5).clamp(0, 1)


def drawn_before(folder: Path, setting: str, prompt: str, seed: int) -> Tensor:
    """An image (3, 64, 64) of an earlier run, from its final latent."""
    return decoded(
        _pipe(), load_file(_file(folder / "latents" / setting, prompt))["latents"][seed : seed + 1]
    )[0]


def picture(number: int) -> Tensor:
    """A training image (3, 64, 64) in [0, 1]."""
    return load_images()[number] / 255


def protected_gaps() -> Tensor:
    """The distance (n,) of each training image to the nearest other."""
    return nearest(_protected("all"), _protected("all"), skip_own=True)[1]


def _write(latents: Tensor, folder: Path, prompt: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"latents": latents.contiguous()}, _file(folder, prompt), {"prompt": prompt})


def _file(folder: Path, prompt: str) -> Path:
    return folder / f"{hashlib.sha256(prompt.encode()).hexdigest()[:12]}.safetensors"
