"""Sample `emoji` with guidance: `python -m training emoji-turbo trajectories`.

A trajectory starts at noise and ends at a clean image: DPM-Solver++ 2M (Lu et al. 2022,
arXiv:2211.01095), and a guidance scale that the student is to have built in. States on the way are
kept, from which students of any number of steps that divides theirs can learn, for several epochs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from training import options
from training.emoji.text import CaptionSampler, entry_weights
from unalike.files import replacing
from unalike.pipelines import load

CONFIG = json.loads((Path(__file__).parent / "train.json").read_text())
BATCH, BATCHES = 128, 8
"""Trajectories in a batch, and batches in a file."""


class Teacher:
    """The shipped `emoji` with classifier-free guidance."""

    def __init__(self) -> None:
        pipe: Any = load("emoji")
        self.config = pipe.scheduler.config
        self.unet = pipe.unet.to(memory_format=torch.channels_last).eval()
        self.captions = CaptionSampler(CONFIG["captions"])
        self.weights = entry_weights(**CONFIG["weights"])
        self.embeddings = embeddings(pipe, self.captions.all_texts)
        self.empty = self.embeddings[self.captions.all_texts.index("")]

    @torch.no_grad()
    def batch(self, seed: int) -> tuple[Tensor, Tensor]:
        """Captions (B,) and states (B, boundaries + 1, 16, 8, 8) of a batch, noise first."""
        settings, generator = CONFIG["teacher"], torch.Generator().manual_seed(seed)
        entry = torch.multinomial(self.weights, BATCH, replacement=True, generator=generator)
        caption = self.captions.draw(entry, generator)
        x = torch.randn(BATCH, 16, 8, 8, generator=generator)
        solver: Any = diffusers.DPMSolverMultistepScheduler.from_config(
            self.config, algorithm_type="dpmsolver++", solver_order=2, timestep_spacing="trailing"
        )
        solver.set_timesteps(settings["steps"])
        text = torch.cat([self.empty.expand(BATCH, -1, -1), self.embeddings[caption]])
        states = [x]
        for i, t in enumerate(solver.timesteps):
            twice = torch.cat([x, x]).contiguous(memory_format=torch.channels_last)
            without, given = self.unet(twice, t, text).sample.chunk(2)
            guided = without + settings["guidance_scale"] * (given - without)
            x = solver.step(guided, t, x).prev_sample
            if (i + 1) % (settings["steps"] // settings["boundaries"]) == 0:
                states.append(x)
        return caption, torch.stack(states, dim=1)


@torch.no_grad()
def embeddings(pipe: Any, captions: Sequence[str]) -> Tensor:
    """What the U-Net is given for each caption: (n, tokens, width)."""
    ids = pipe.tokenizer(
        list(captions), padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    return torch.cat([pipe.text_encoder(part).last_hidden_state for part in ids.split(256)])


@dataclass(frozen=True)
class Trajectories:
    """All that was sampled: captions (n,) and states (n, boundaries + 1, 16, 8, 8) in float16."""

    captions: Tensor
    states: Tensor

    @classmethod
    def read(cls, work: Path) -> Trajectories:
        """Read every finished file of a folder."""
        files = sorted((work / "trajectories").glob("*.safetensors"))
        if not files:
            raise FileNotFoundError(
                f"there are no trajectories in {work}; run emoji-turbo trajectories first"
            )
        parts = [load_file(file) for file in files]
        return cls(torch.cat([p["caption"] for p in parts]), torch.cat([p["x"] for p in parts]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run this step from the command line."""
    parser = options.training("emoji-turbo", "trajectories", __doc__)
    parser.add_argument("--files", type=int, default=13, help=f"{BATCH * BATCHES} each")
    given = parser.parse_args(arguments)
    folder, teacher = given.work / "trajectories", Teacher()
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_flush_denormal(True)
    begun = time.monotonic()
    for k in range(given.files):
        file = folder / f"{k:05d}.safetensors"
        if file.exists():
            continue
        if time.monotonic() - begun > 60 * given.minutes:
            break
        parts = [teacher.batch(10_000_000 + k * BATCHES + i) for i in range(BATCHES)]
        with replacing(file) as (unfinished,):
            save_file(
                {
                    "caption": torch.cat([part[0] for part in parts]).int(),
                    "x": torch.cat([part[1] for part in parts]).half(),
                },
                unfinished,
            )
        print(f"{file.name}: {BATCH * BATCHES} trajectories")
