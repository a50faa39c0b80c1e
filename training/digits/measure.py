"""Measure the shipped digits model: `python -m training digits measure --out record.json`.

Recorded are how well the autoencoder reconstructs, how often the classifier names held-out images
rightly, what the judge accepts of damaged ones, and, for each class and several weights of
classifier-free guidance, how many samples are right and how varied they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from training import drawing, options
from training.digits import damage
from training.summary import summary
from unalike.metrics import by_group, frechet_distance, manifolds
from unalike.models.digits.classifier import classify, features
from unalike.models.digits.data import CLASSES, held_out, load_images, load_labels
from unalike.models.digits.judge import count, nearest, shifted

SCALES = (1.0, 2.0, 4.0)


def draw(call: Callable[..., Any], labels: Sequence[int], **settings: Any) -> Tensor:
    """Samples (n, 3, 16, 16) in [0, 1], one a label; settings as in `training.drawing.draw`."""
    return drawing.draw(call, "class_labels", labels, **settings)


@torch.no_grad()
def reconstructed(vae: Any, images: Tensor) -> Tensor:
    """Images (n, 3, 16, 16) in [0, 1], encoded to the posterior mean and decoded."""
    parts = [
        vae.decode(vae.encode(x * 2 - 1).latent_dist.mean).sample / 2 + 0.5
        for x in images.to(vae.device).split(64)
    ]
    return torch.cat(parts).clamp(0, 1).cpu()


def autoencoder_psnr(vae: Any) -> float:
    """PSNR in dB over all images, from the mean squared error."""
    images = load_images() / 255
    return float(-10 * (reconstructed(vae, images) - images).square().mean().log10())


def classifier_accuracy() -> dict[str, float]:
    """On the held-out images: the share whose digit is the most probable of the ten, and how many
    there are.
    """
    chosen = held_out()
    named = classify(load_images()[chosen] / 255).argmax(1)
    return {
        "pictures": int(chosen.sum()),
        "accuracy": (named == load_labels()[chosen]).float().mean().item(),
    }


def partners(labels: Tensor, generator: torch.Generator, *, alike: bool) -> Tensor:
    """For each image a random other one, of the same class or of another, as indices (n,)."""
    same = labels[:, None] == labels
    same.fill_diagonal_(not alike)  # never the image itself
    return (torch.rand(same.shape, generator=generator) * (same == alike)).argmax(1)


def damaged(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Pictures (n, 3, 16, 16) in [0, 1], damaged in one way after another."""
    generator = torch.Generator().manual_seed(0)
    other, sibling = (images[partners(labels, generator, alike=alike)] for alike in (False, True))
    return {
        "as they are": images,
        "noise of 0.05": damage.noisy(images, 0.05, generator),
        "noise of 0.1": damage.noisy(images, 0.1, generator),
        "noise of 0.2": damage.noisy(images, 0.2, generator),
        "noise of 0.3": damage.noisy(images, 0.3, generator),
        "smudged by 0.1": damage.smudged(images, 0.1, generator),
        "smudged by 0.2": damage.smudged(images, 0.2, generator),
        "smudged by 0.3": damage.smudged(images, 0.3, generator),
        "shifted by one pixel": shifted(images, 1, -1),
        "shifted by two pixels": shifted(images, 0, 2),
        "turned by 10°": damage.turned(images, 10.0),
        "paler by 0.3": damage.paler(images, 0.3),
        "blurred by 0.7 pixels": damage.blurred(images, 0.7),
        "blurred by 1 pixel": damage.blurred(images, 1.0),
        "blurred by 1.5 pixels": damage.blurred(images, 1.5),
        "blurred by 2 pixels": damage.blurred(images, 2.0),
        "with a fifth of another digit": damage.blended(images, other, 0.2),
        "with a third of another digit": damage.blended(images, other, 1 / 3),
        "half of each of two digits": damage.blended(images, other, 0.5),
        "two digits over each other": damage.overlaid(images, other),
        "left half of one digit, right half of another": damage.halved(images, other),
        "upper half of one digit, lower half of another": damage.halved(images, other, across=True),
        "half of each of two images of a digit": damage.blended(images, sibling, 0.5),
    }


def judged(vae: Any) -> list[dict[str, Any]]:
    """For each damage to the held-out images, the shares that the judge accepts as their digit
    and as another one.
    """
    chosen = held_out()
    images, labels = load_images()[chosen] / 255, load_labels()[chosen]
    rows = []
    for what, changed in {
        **damaged(images, labels),
        "reconstructed by the autoencoder": reconstructed(vae, images),
    }.items():
        match = nearest(changed.clamp(0, 1))
        right = match.shown & (match.label == labels)
        rows.append(
            {
                "damage": what,
                "right": right.float().mean().item(),
                "wrong": (match.shown & ~right).float().mean().item(),
            }
        )
    return rows


def per_class(
    pipe: Any, *, scales: Sequence[float], samples: int, steps: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A record a class and guidance scale, of `Counts` and how many samples the classifier names
    rightly; and how near the samples of each scale come to the real images in the classifier's
    features, class by class and, for the Fréchet distance, all together.
    """
    records, sets = [], []
    real, labels = features(load_images() / 255), load_labels()
    for scale in track(scales, description="classes"):
        drawn = {
            label: draw(pipe, [label] * samples, seed=0, guidance_scale=scale, steps=steps)
            for label in range(CLASSES)
        }
        for label, images in drawn.items():
            named = int((classify(images).argmax(1) == label).sum())
            records.append(
                {
                    "label": label,
                    "guidance_scale": scale,
                    "named": named,
                    **asdict(count(images, label)),
                }
            )
        made, groups = (
            features(torch.cat(list(drawn.values()))),
            torch.arange(CLASSES).repeat_interleave(samples),
        )
        each = [
            asdict(m)
            for m in by_group(lambda g, r: manifolds(r, g), groups, made, (real, labels)).values()
        ]
        means = {name: sum(m[name] for m in each) / len(each) for name in each[0]}
        sets.append({"guidance_scale": scale, **means, "frechet": frechet_distance(real, made)})
    return records, sets


def overall(
    records: Sequence[dict[str, Any]], sets: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """A row a guidance scale: class accuracy by the classifier, what `counts.summary` says, and the
    figures of the sets.
    """
    rows = []
    for row, own in zip(summary(records), sets, strict=True):
        of_scale = [r for r in records if r["guidance_scale"] == row["guidance_scale"]]
        named = sum(r["named"] for r in of_scale) / sum(r["samples"] for r in of_scale)
        figures = {
            ("feature_precision" if name == "precision" else name): value
            for name, value in own.items()
        }
        rows.append({**figures, **row, "accuracy": named})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Run this step from the command line."""
    from unalike.pipelines.loading import load

    parser = options.parser("digits", "measure", __doc__)
    parser.add_argument("--model", default="digits", help="a folder instead of the shipped model")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    pipe = load(given.model)
    pipe.set_progress_bar_config(disable=True)
    records, sets = per_class(pipe, scales=SCALES, samples=given.samples, steps=given.steps)
    record: dict[str, Any] = {
        "steps": given.steps,
        "samples": given.samples,
        "scheduler": type(pipe.scheduler).__name__,
        "autoencoder_psnr": autoencoder_psnr(pipe.vae),
        "classifier": classifier_accuracy(),
        "judge": judged(pipe.vae),
        "classes": records,
        "summary": overall(records, sets),
    }
    given.out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
