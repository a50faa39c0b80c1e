"""Distil `emoji` to few steps: `python -m training emoji-turbo distil --steps 4`.

A student of k steps goes in one step where the teacher goes in several: its prediction of the
clean image is trained so that one DDIM step from a state of a trajectory ends at a later state of
the same one (as in progressive distillation, Salimans and Ho 2022, arXiv:2202.00512, with fixed
segments). What is trained are low-rank changes of all convolutions and linear layers of the U-Net
(LoRA, Hu et al. 2021, arXiv:2106.09685).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from training import options
from training.emoji.text import CaptionSampler
from training.emoji_turbo.trajectories import CONFIG, Trajectories, embeddings
from training.loop import Checkpoint, Recipe, fit
from unalike.pipelines import load


class LowRank(nn.Module):
    """A change of a weight: `W + B A`, 0 before training."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        rank = min(rank, rows, columns)
        self.a = nn.Parameter(torch.empty(rank, columns))
        self.b = nn.Parameter(torch.zeros(rows, rank))
        nn.init.kaiming_uniform_(self.a, a=5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.b @ self.a).view_as(weight)


def add_adapters(unet: nn.Module) -> nn.ModuleDict:
    """Adapt every convolution and linear layer of a U-Net; returns what is to be trained, by the
    name of its layer with slashes in place of dots.
    """
    torch.manual_seed(CONFIG["seed"])
    unet.requires_grad_(False)
    adapters = nn.ModuleDict()
    for name, layer in list(unet.named_modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            adapters[name.replace(".", "/")] = LowRank(layer.weight, CONFIG["rank"])
    for name, adapter in adapters.items():
        layer = unet.get_submodule(name.replace("/", "."))
        parametrize.register_parametrization(layer, "weight", adapter)
    return adapters


def lora_weights(adapters: nn.ModuleDict, unet: nn.Module) -> dict[str, Tensor]:
    """The state dict that diffusers' `load_lora_weights` reads, without the prefix `unet.`."""
    found = {}
    for key, adapter in adapters.items():
        name = key.replace("/", ".")
        layer: Any = unet.get_submodule(name)
        own: Any = adapter
        a, b = own.a.detach(), own.b.detach()
        if isinstance(layer, nn.Conv2d):
            a, b = a.view(len(a), *layer.weight.shape[1:]), b.view(*b.shape, 1, 1)
        found |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
    return found


class Segments:
    """The parts of a trajectory that a student of `steps` steps goes at once.

    Attributes:
        boundaries: indices (steps + 1,) of the states between them.
        timesteps: (steps,) of the model at the beginning of each.
        alpha, sigma: (steps + 1,) at the boundaries; 1 and 0 at the end.
    """

    def __init__(self, steps: int, scheduler: Any) -> None:
        kept, trained = CONFIG["teacher"]["boundaries"], scheduler.config.num_train_timesteps
        self.boundaries = torch.arange(0, kept + 1, kept // steps)
        self.timesteps = trained - 1 - torch.arange(steps) * (trained // steps)
        kept_signal = torch.cat([scheduler.alphas_cumprod[self.timesteps], torch.ones(1)])
        self.alpha, self.sigma = kept_signal.sqrt(), (1 - kept_signal).sqrt()

    def target(self, states: Tensor, segment: Tensor) -> tuple[Tensor, Tensor]:
        """The states (B, …) where segments begin, and the velocities that lead to their ends.

        A DDIM step is x' = α' x0 + (σ'/σ)(x - α x0), so that it ends at x' for
        x0 = (x' - (σ'/σ) x) / (α' - (σ'/σ) α); the velocity is v = (α x - x0) / σ.
        """
        rows = torch.arange(len(states))
        x, end = (states[rows, self.boundaries[segment + i]] for i in (0, 1))
        alpha, sigma, next_alpha, next_sigma = (
            values[segment + i].view(-1, 1, 1, 1)
            for i in (0, 1)
            for values in (self.alpha, self.sigma)
        )
        ratio = next_sigma / sigma
        x0 = (end - ratio * x) / (next_alpha - ratio * alpha)
        return x, (alpha * x - x0) / sigma


def train(work: Path, steps: int, minutes: float) -> None:
    """Train from the checkpoint on; with fewer steps than four from the student of four."""
    pipe: Any = load("emoji")
    unet = pipe.unet.to(memory_format=torch.channels_last).train()
    adapters, checkpoint = add_adapters(unet), student(work, steps)
    if steps < 4 and not checkpoint.path.exists():
        student(work, 4).load_average(adapters)
    recipe = Recipe(seed=CONFIG["seed"], **CONFIG["recipes"][str(steps)])
    loss_at = _loss(pipe, unet, Trajectories.read(work), steps, recipe)
    fit(adapters, loss_at, recipe, checkpoint, minutes=minutes)


def student(work: Path, steps: int) -> Checkpoint:
    """The checkpoint of the student of so many steps."""
    return Checkpoint(work / f"student-{steps}.safetensors")


def _loss(
    pipe: Any, unet: nn.Module, data: Trajectories, steps: int, recipe: Recipe
) -> Callable[[int], Tensor]:
    """Mean squared error of the predicted velocity; every batch has all segments alike."""
    text = embeddings(pipe, CaptionSampler(CONFIG["captions"]).all_texts)
    segments = Segments(steps, pipe.scheduler)
    segment = torch.arange(recipe.batch) % steps

    def loss_at(step: int) -> Tensor:
        chosen = recipe.epoch_batch(step, len(data.captions))
        x, target = segments.target(data.states[chosen].float(), segment)
        velocity = unet(
            x.contiguous(memory_format=torch.channels_last),
            segments.timesteps[segment],
            text[data.captions[chosen].long()],
        ).sample
        return (velocity - target).square().mean()

    return loss_at


def main(arguments: Sequence[str] | None = None) -> None:
    """Run this step from the command line."""
    parser = options.training("emoji-turbo", "distil", __doc__)
    parser.add_argument("--steps", type=int, choices=(1, 2, 4), default=4)
    given = parser.parse_args(arguments)
    train(given.work, given.steps, given.minutes)
