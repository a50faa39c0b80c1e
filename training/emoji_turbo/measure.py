"""Measure the students: `python -m training emoji-turbo measure --out record.json`.

As `emoji` is measured, for each number of steps; and how alike the images of one prompt are, beside
`emoji` at its own settings.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import track

from training import options
from training.emoji.measure import PROMPTS, draw, full_names
from training.summary import summary
from unalike.metrics import in_batch_similarity
from unalike.models.emoji.judge import count, features
from unalike.pipelines import load
from unalike.pipelines.catalogue import MODELS

STUDENTS = ("emoji-turbo", "emoji-turbo-2", "emoji-turbo-1")
SAMPLES = 32


def one_to_many(
    name: str, guidance_scale: float, steps: int, prompts: Sequence[str] = PROMPTS
) -> list[dict[str, Any]]:
    """A record a prompt: `Counts` of its samples, and their mean pairwise similarity."""
    pipe, records = load(name), []
    pipe.set_progress_bar_config(disable=True)
    for prompt in track(prompts, description=name):
        images = draw(pipe, [prompt] * SAMPLES, seed=0, guidance_scale=guidance_scale, steps=steps)
        records.append(
            {
                "prompt": prompt,
                "guidance_scale": guidance_scale,
                **asdict(count(images, prompt)),
                "similarity": in_batch_similarity(features(images)),
            }
        )
    return records


def measured(name: str, guidance_scale: float, steps: int, every: int) -> dict[str, Any]:
    """All that the card says of one model at one setting."""
    records = one_to_many(name, guidance_scale, steps)
    pipe = load(name)
    pipe.set_progress_bar_config(disable=True)
    return {
        "model": name,
        "steps": steps,
        "every": every,
        "prompts": records,
        "summary": summary(records),
        "similarity": sum(r["similarity"] for r in records) / len(records),
        "full_names": full_names(pipe, guidance_scale=guidance_scale, steps=steps, every=every),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run this step from the command line."""
    parser = options.parser("emoji-turbo", "measure", __doc__)
    parser.add_argument("--every", type=int, default=1, help="ask for every such full name only")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    record = [
        measured(name, MODELS[name].guidance_scale, MODELS[name].steps, given.every)
        for name in STUDENTS
    ]
    record += [
        {
            "model": "emoji",
            "steps": 25,
            "similarity": sum(r["similarity"] for r in records) / len(records),
            "prompts": records,
            "summary": summary(records),
        }
        for records in (one_to_many("emoji", scale, 25) for scale in (3.0, 7.5))
    ]
    given.out.write_text(json.dumps(record, indent=1) + "\n")
