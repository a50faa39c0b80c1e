"""Measure the shipped emoji model: `python -m training emoji measure --out record.json`.

Three things are recorded: how well the autoencoder reconstructs, how often a full name gives that
very image, and, for forty prompts with many right images each, how many of them 32 samples find
at three weights of classifier-free guidance.
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
from training.summary import summary
from unalike.models.emoji.data import captions, entries, load_images, normalised
from unalike.models.emoji.judge import count, nearest

# fmt: off
PROMPTS = (
    "heart", "cat", "flag", "clock", "moon", "face", "hand", "bird", "animal", "flower", "fruit",
    "vegetable", "sweets", "drink", "arrow", "circle", "square", "keycap", "zodiac", "ball", "shoe",
    "hat", "book", "car", "train", "boat", "building", "weather", "musical instrument", "sign",
    "person running", "woman running", "person swimming", "farmer", "police officer", "thumbs up",
    "family", "kiss", "people holding hands", "medal",
)
# fmt: on
"""Forty one-to-many prompts, with 5 to 261 right images each."""

VALIDATION = (
    "tree", "star", "cloud", "tool", "money", "celebration", "Japanese", "game", "fantasy",
    "handshake", "teacher", "person walking",
)  # fmt: skip
"""Twelve others to choose settings by, with 5 to 40 right images each."""


def draw(call: Callable[..., Any], prompts: Sequence[str], **settings: Any) -> Tensor:
    """Samples (n, 3, 64, 64) in [0, 1], one a prompt; settings as in `training.drawing.draw`."""
    return drawing.draw(call, "prompt", prompts, **settings)


@torch.no_grad()
def autoencoder_psnr(vae: Any, every: int = 1) -> float:
    """PSNR in dB over every such image, from the mean squared error, encoding to the posterior
    mean and decoding that.
    """
    squared, images = 0.0, load_images()[::every]
    for part in images.split(64):
        x = (part.float() / 127.5 - 1).to(vae.device)
        y = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        squared += float(((y - x) / 2).square().sum())
    return float(-10 * torch.log10(torch.tensor(squared / images.numel())))


def full_names(pipe: Any, *, guidance_scale: float, steps: int, every: int = 1) -> dict[str, float]:
    """Share of full names whose sample is nearest to that very image, and of those that the judge
    accepts as it.

    `named` asks for what `Captions.full` calls the image; `named_by_cldr` for its CLDR name
    alone, which for the default skin tone also stands for the other tones. A image that several
    emoji share counts for each of them.
    """
    wanted = range(0, len(entries()), every)
    images = torch.tensor([entries()[i].image for i in wanted])
    full, names = [captions()[i].full for i in wanted], [entries()[i].name for i in wanted]
    called = _found(pipe, full, images, guidance_scale=guidance_scale, steps=steps)
    short = [i for i, name in enumerate(names) if normalised(name) != normalised(full[i])]
    by_name = called.clone()
    by_name[short] = _found(
        pipe, [names[i] for i in short], images[short], guidance_scale=guidance_scale, steps=steps
    )
    rows = {"named": called, "named_by_cldr": by_name}
    result = {what: found[:, 0].float().mean().item() for what, found in rows.items()}
    return result | {
        f"{what}_and_shown": found[:, 1].float().mean().item() for what, found in rows.items()
    }


def _found(
    pipe: Any, prompts: Sequence[str], images: Tensor, *, guidance_scale: float, steps: int
) -> Tensor:
    """Whether each prompt's sample is nearest to its image, and whether the judge accepts it as
    that too: (n, 2) bool.
    """
    parts = [torch.zeros(0, 2, dtype=torch.bool)]
    for begin in track(range(0, len(prompts), 32), description="full names"):
        drawn = draw(
            pipe,
            prompts[begin : begin + 32],
            seed=begin,
            guidance_scale=guidance_scale,
            steps=steps,
        )
        match = nearest(drawn)
        right = match.index == images[begin : begin + 32]
        parts.append(torch.stack([right, right & match.shown], dim=1))
    return torch.cat(parts)


def one_to_many(
    pipe: Any,
    *,
    scales: Sequence[float],
    samples: int,
    steps: int,
    prompts: Sequence[str] = PROMPTS,
) -> list[dict[str, Any]]:
    """A record a prompt and guidance scale, of `Counts` without guidance."""
    records = []
    for prompt in track(prompts, description="one-to-many"):
        for scale in scales:
            counts = count(
                draw(pipe, [prompt] * samples, seed=0, guidance_scale=scale, steps=steps), prompt
            )
            records.append({"prompt": prompt, "guidance_scale": scale, **asdict(counts)})
    return records


def main(arguments: Sequence[str] | None = None) -> None:
    """Run this step from the command line."""
    from unalike.pipelines.loading import load

    parser = options.parser("emoji", "measure", __doc__)
    parser.add_argument("--model", default="emoji", help="a folder instead of the shipped model")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--every", type=int, default=1, help="ask for every such full name only")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    pipe = load(given.model)
    pipe.set_progress_bar_config(disable=True)
    record: dict[str, Any] = {
        "steps": given.steps,
        "samples": given.samples,
        "every": given.every,
        "scheduler": type(pipe.scheduler).__name__,
        "autoencoder_psnr": autoencoder_psnr(pipe.vae),
    }
    record["prompts"] = one_to_many(
        pipe, scales=(1.0, 3.0, 7.5), samples=given.samples, steps=given.steps
    )
    record["summary"] = summary(record["prompts"])
    record["full_names"] = full_names(
        pipe, guidance_scale=3.0, steps=given.steps, every=given.every
    )
    given.out.write_text(json.dumps(record, indent=1) + "\n")
