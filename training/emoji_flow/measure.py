"""Measure the flow model: `python -m training emoji-flow measure --out record.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from training import options
from training.emoji.measure import full_names, one_to_many
from training.summary import summary
from unalike.pipelines import load
from unalike.pipelines.catalogue import MODELS

SCALES = (1.0, 2.0, 4.0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run this step from the command line."""
    parser = options.parser("emoji-flow", "measure", __doc__)
    parser.add_argument("--model", default="emoji-flow", help="a folder instead")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--every", type=int, default=1, help="ask for every such full name only")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    pipe = load(given.model)
    pipe.set_progress_bar_config(disable=True)
    call = partial(pipe, **MODELS["emoji-flow"].arguments)
    prompts = one_to_many(call, scales=SCALES, samples=given.samples, steps=given.steps)
    record = {
        "steps": given.steps,
        "samples": given.samples,
        "every": given.every,
        "prompts": prompts,
        "summary": summary(prompts),
        "full_names": {
            str(scale): full_names(call, guidance_scale=scale, steps=given.steps, every=given.every)
            for scale in SCALES[1:]
        },
    }
    given.out.write_text(json.dumps(record, indent=1) + "\n")
