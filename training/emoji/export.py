"""Write the trained parts as a float16 pipeline: `python -m training emoji export`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import CLIPTokenizer

from training import options
from training.emoji.denoiser import CONFIG, Denoiser, frozen_autoencoder
from training.loop import Checkpoint

WEIGHTS = options.SHIPPED / "emoji" / "weights"


def assemble(work: Path) -> Any:
    """The pipeline with the averaged weights of the latest checkpoints in `work`, in float32."""
    vae = frozen_autoencoder(work)
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    model = Denoiser(tokenizer)
    Checkpoint(work / "denoiser.safetensors").load_average(model)
    pipeline: Any = (
        diffusers.StableDiffusionPipeline
    )  # its annotations ask for parts that it does without
    return pipeline(
        vae=vae,
        text_encoder=model.text.eval(),
        tokenizer=tokenizer,
        unet=model.unet.eval(),
        scheduler=diffusers.DDIMScheduler(
            **CONFIG["scheduler"],
            set_alpha_to_one=True,
            steps_offset=1,
            timestep_spacing="trailing",
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def export(work: Path, out: Path) -> int:
    """Write the pipeline to `out` in float16, replacing what is there, and return its size in
    bytes.
    """
    pipe = assemble(work).to(torch.float16)
    if out.exists():
        shutil.rmtree(out)
    pipe.save_pretrained(out)
    (
        out / "tokenizer" / "tokenizer.json"
    ).unlink()  # says the same as the two smaller files that every CLIP tokenizer reads
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(work / "tokenizer" / name, out / "tokenizer" / name)
    return sum(f.stat().st_size for f in out.rglob("*") if f.is_file())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run this step from the command line."""
    parser = options.parser("emoji", "export", __doc__)
    options.add_work(parser, "emoji")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder to write")
    given = parser.parse_args(arguments)
    print(f"{export(given.work, given.out) / 1e6:.1f} MB in {given.out}")
