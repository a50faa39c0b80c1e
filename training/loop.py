"""Training that resumes where it stopped: one loop, its checkpoints, weight averaging, and
randomness that the step alone determines.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from unalike import tensorfile

_KIND, _VERSION = "unalike.checkpoint", 1


@dataclass(frozen=True)
class Recipe:
    """How long and how fast a module is trained.

    Args:
        steps: optimiser steps in all; the learning rate falls along a cosine to a fiftieth of its
            peak at the last one.
        batch: samples a step.
        lr: peak learning rate of AdamW (betas 0.9 and 0.99).
        warmup: steps of linear rise to it.
        ema: decay of the weight average.
        seed: of everything random.
        weight_decay: of AdamW.
        restarts: pairs of a step and a peak: there the cosine so far ends, and one from that peak
            begins (Loshchilov and Hutter 2017, arXiv:1608.03983). So a training that is over can go
            on.
    """

    steps: int
    batch: int
    lr: float
    warmup: int
    ema: float
    seed: int = 0
    weight_decay: float = 0.0
    restarts: Sequence[tuple[int, float]] = ()

    def rate(self, step: int) -> float:
        """The learning rate at a step."""
        begins = [(0, self.lr), *self.restarts, (self.steps, 0.0)]
        leg = max(i for i, (begin, _) in enumerate(begins[:-1]) if begin <= step)
        begin, peak = begins[leg]
        if step < begin + self.warmup:
            return peak * (step - begin + 1) / self.warmup
        progress = min(
            1.0, (step - begin - self.warmup) / max(1, begins[leg + 1][0] - begin - self.warmup)
        )
        return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))

    def generator(self, step: int) -> torch.Generator:
        """The generator of everything random in one step, so that a resumed run repeats an
        uninterrupted one.
        """
        return torch.Generator().manual_seed(self.seed * 1_000_003 + step)

    def epoch_batch(self, step: int, n: int) -> Tensor:
        """The indices (batch,) of a step in shuffled epochs over `n` items; the rest of an epoch
        that fills no batch is left out.
        """
        epoch, within = divmod(step, n // self.batch)
        order = torch.randperm(
            n, generator=torch.Generator().manual_seed((self.seed + 1) * 1_000_003 + epoch)
        )
        return order[within * self.batch : (within + 1) * self.batch]


class WeightAverage:
    """Exponential moving average of a module's parameters, its decay rising as `(1 + t) / (10 + t)`
    at first.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after a step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, p in module.named_parameters():
            self.values[name].lerp_(p.detach(), 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Give the module the averaged weights."""
        for name, p in module.named_parameters():
            p.copy_(self.values[name])


@dataclass(frozen=True)
class Checkpoint:
    """One file with weights, averaged weights, optimiser state and the step, replaced in one go."""

    path: Path

    def save(
        self, module: nn.Module, average: WeightAverage, optimizer: torch.optim.Optimizer, step: int
    ) -> None:
        """Write everything that `load` needs to go on as if there had been no interruption."""
        tensors = {f"model.{k}": v for k, v in module.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in average.values.items()}
        for i, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optim.{i}.{k}": torch.as_tensor(v) for k, v in state.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        tensorfile.write(
            self.path,
            _KIND,
            _VERSION,
            {"step": step},
            {k: v.detach().cpu() for k, v in tensors.items()},
        )

    def load(
        self, module: nn.Module, average: WeightAverage, optimizer: torch.optim.Optimizer
    ) -> int:
        """Restore everything in place and return the step to go on from; 0 where there is no
        checkpoint yet.
        """
        if not self.path.exists():
            return 0
        header, tensors = tensorfile.read(self.path, _KIND, _VERSION)
        device = next(module.parameters()).device
        module.load_state_dict(
            {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        )
        average.values = {
            k.removeprefix("ema."): v.to(device) for k, v in tensors.items() if k.startswith("ema.")
        }
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optim."):
                _, index, name = key.split(".", 2)
                states.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict(
            {"state": states, "param_groups": optimizer.state_dict()["param_groups"]}
        )
        return header["step"]

    def load_average(self, module: nn.Module) -> None:
        """Give the module the averaged weights of the file.

        Raises:
            StoreError: when there is no such file.
        """
        _, tensors = tensorfile.read(self.path, _KIND, _VERSION)
        average = WeightAverage(module, 0.0)
        average.values = {
            k.removeprefix("ema."): v for k, v in tensors.items() if k.startswith("ema.")
        }
        average.copy_to(module)


def fit(
    module: nn.Module,
    loss_at: Callable[[int], Tensor],
    recipe: Recipe,
    checkpoint: Checkpoint,
    *,
    minutes: float = math.inf,
    save_every: int = 500,
    report: Callable[[str], None] = print,
) -> None:
    """Train the parameters of `module` that require gradients, from its checkpoint on; it has the
    averaged weights afterwards.

    Args:
        module: on its device.
        loss_at: the loss of a step, which draws all its randomness from `recipe.generator(step)`.
        recipe: how long and how fast.
        checkpoint: read at the beginning, written every `save_every` steps and at the end.
        minutes: stop, with a checkpoint, after this long.
        save_every: steps between checkpoints.
        report: gets a line every hundred steps.
    """
    torch.set_flush_denormal(True)  # denormal activations and moments slow a CPU step several times
    trained = [p for p in module.parameters() if p.requires_grad]
    average = WeightAverage(module, recipe.ema)
    optimizer = torch.optim.AdamW(
        trained, lr=recipe.lr, betas=(0.9, 0.99), weight_decay=recipe.weight_decay, fused=True
    )
    first = step = checkpoint.load(module, average, optimizer)
    begun, mean = time.monotonic(), 0.0
    while step < recipe.steps and time.monotonic() - begun < 60 * minutes:
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        loss = loss_at(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        average.update(module, step)
        step += 1
        mean = loss.item() if step == first + 1 else 0.99 * mean + 0.01 * loss.item()
        if step % 100 == 0:
            speed = recipe.batch * (step - first) / (time.monotonic() - begun)
            report(f"step {step}/{recipe.steps} loss {mean:.4f} {speed:.0f} samples/s")
        if step % save_every == 0:
            checkpoint.save(module, average, optimizer, step)
    checkpoint.save(module, average, optimizer, step)
    average.copy_to(module)
