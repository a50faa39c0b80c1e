"""Write the trained parts as a float16 DiTPipeline: `python -m training digits export`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch

from training import options
from training.digits.autoencoder import frozen
from training.digits.denoiser import build, scheduler
from training.loop import Checkpoint
from unalike.models.digits.data import NAMES

WEIGHTS = options.SHIPPED / "digits" / "weights"
ID2LABEL = {i: f"{i}, {name}" for i, name in enumerate(NAMES)}
"""Each class with its names, as DiTPipeline takes them."""


def assemble(work: Path) -> Any:
    """The pipeline with the averaged weights of the latest checkpoints in `work`, in float32."""
    transformer = build()
    Checkpoint(work / "denoiser.safetensors").load_average(transformer)
    return diffusers.DiTPipeline(
        transformer=transformer, vae=frozen(work), scheduler=scheduler(), id2label=ID2LABEL
    )


def export(work: Path, out: Path) -> int:
    """Write the pipeline to `out` in float16, replacing what is there, and return its size in
    bytes.
    """
    pipe = assemble(work).to(torch.float16)
    if out.exists():
        shutil.rmtree(out)
    pipe.save_pretrained(out)
    index = (
        out / "model_index.json"
    )  # DiTPipeline reads the names of the classes from there, and does not write them
    content = json.loads(index.read_text("utf-8")) | {"id2label": ID2LABEL}
    index.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return sum(f.stat().st_size for f in out.rglob("*") if f.is_file())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run this step from the command line."""
    parser = options.parser("digits", "export", __doc__)
    options.add_work(parser, "digits")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder to write")
    given = parser.parse_args(arguments)
    print(f"{export(given.work, given.out) / 1e6:.1f} MB in {given.out}")
