"""Write the trained transformer in float16: `python -m training emoji-flow export`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch

from training import options
from training.emoji_flow.denoiser import build, scheduler
from training.loop import Checkpoint
from unalike.pipelines import load
from unalike.pipelines.flow_parts import flow_parts

FOLDER = options.SHIPPED / "emoji" / "flow"


def assemble(work: Path) -> Any:
    """The pipeline with the averaged weights of the latest checkpoint in `work`, in float32."""
    model = build()
    Checkpoint(work / "denoiser.safetensors").load_average(model)
    pipeline: Any = diffusers.StableDiffusion3Pipeline
    return pipeline(transformer=model.eval(), scheduler=scheduler(), **flow_parts(load("emoji")))


def export(work: Path, out: Path) -> int:
    """Write the transformer, the scheduler and the index of the pipeline to `out` in float16,
    replacing what is there, and return their size in bytes; the other parts are those of `emoji`.
    """
    pipe = assemble(work)
    pipe.transformer.to(torch.float16).save_pretrained(out / "transformer")
    pipe.scheduler.save_pretrained(out / "scheduler")
    pipe.save_config(out)
    return sum(f.stat().st_size for f in out.rglob("*") if f.suffix != ".md" and f.is_file())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run this step from the command line."""
    parser = options.parser("emoji-flow", "export", __doc__)
    options.add_work(parser, "emoji-flow")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write")
    given = parser.parse_args(arguments)
    print(f"{export(given.work, given.out) / 1e6:.1f} MB in {given.out}")
