"""Write the trained students as LoRAs in float16: `python -m training emoji-turbo export`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch

from training import options
from training.emoji_turbo.distil import add_adapters, lora_weights, student
from unalike.pipelines import load

FOLDER = options.SHIPPED / "emoji" / "turbo"


def export(work: Path, steps: int, out: Path) -> Path:
    """Write the LoRA of the student of so many steps, replacing what is there."""
    pipe: Any = load("emoji")
    adapters = add_adapters(pipe.unet)
    student(work, steps).load_average(adapters)
    weights = {
        name: weight.to(torch.float16).contiguous()
        for name, weight in lora_weights(adapters, pipe.unet).items()
    }
    file = out / f"emoji-turbo-{steps}.safetensors"
    diffusers.StableDiffusionPipeline.save_lora_weights(
        out, unet_lora_layers={**weights}, weight_name=file.name
    )
    return file


def main(arguments: Sequence[str] | None = None) -> None:
    """Run this step from the command line."""
    parser = options.parser("emoji-turbo", "export", __doc__)
    options.add_work(parser, "emoji-turbo")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write")
    given = parser.parse_args(arguments)
    for steps in (4, 2, 1):
        if student(given.work, steps).path.exists():
            file = export(given.work, steps, given.out)
            print(f"{file.stat().st_size / 1e6:.1f} MB in {file}")
