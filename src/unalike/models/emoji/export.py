"""Assemble the trained parts into a float16 StableDiffusionPipeline on disk: `python -m
unalike.models.emoji.export --work DIR`.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import CLIPTokenizer

from unalike.models.emoji.denoiser import CONFIG, Denoiser, frozen_autoencoder
from unalike.models.training import Checkpoint

WEIGHTS = Path(__file__).parent / "weights"


def assemble(work: Path) -> Any:
    """The pipeline with the averaged weights of the latest checkpoints in `work`, in float32."""
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    model = Denoiser(tokenizer)
    Checkpoint(work / "denoiser.safetensors").load_average(model)
    pipeline: Any = (
        diffusers.StableDiffusionPipeline
    )  # its annotations ask for parts that it does without
    return pipeline(
        vae=frozen_autoencoder(work),
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


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    print(f"{export(arguments.work, arguments.out) / 1e6:.1f} MB in {arguments.out}")


if __name__ == "__main__":
    main()
