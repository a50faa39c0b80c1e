"""Assemble the trained parts into a float16 DiTPipeline on disk: `python -m
unalike.models.digits.export --work DIR`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import torch

from unalike.models.digits.autoencoder import frozen
from unalike.models.digits.data import NAMES
from unalike.models.digits.denoiser import build, scheduler
from unalike.models.training import Checkpoint

WEIGHTS = Path(__file__).parent / "weights"
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


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    print(f"{export(arguments.work, arguments.out) / 1e6:.1f} MB in {arguments.out}")


if __name__ == "__main__":
    main()
