"""What the training scripts of the shipped models share: resumable checkpoints, weight averaging, and a data order that a step determines."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


def cosine_lr(step: int, *, total: int, peak: float, warmup: int = 100, floor: float = 0.02) -> float:
    """Learning rate at `step`: linear warm-up to `peak`, then a cosine down to `floor · peak` at `total`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of everything random in one training step, so that a resumed run repeats an uninterrupted one."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def epoch_order(n: int, *, seed: int, start: int, batch: int) -> Iterator[Tensor]:
    """Index batches of size `batch` from shuffled epochs over `n` items, beginning as batch number `start` of the run."""
    per_epoch = n // batch
    step = start
    while True:
        epoch, within = divmod(step, per_epoch)
        order = torch.randperm(n, generator=step_generator(seed + 1, epoch))
        for i in range(within, per_epoch):
            yield order[i * batch : (i + 1) * batch]
            step += 1


class WeightAverage:
    """Exponential moving average of a module's parameters, with the usual warm-up `min(decay, (1 + t) / (10 + t))`."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, p in module.named_parameters():
            self.values[name].lerp_(p.detach(), 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        for name, p in module.named_parameters():
            p.copy_(self.values[name])


@dataclass
class Checkpoint:
    """One safetensors file with weights, averaged weights, optimiser state and the step; written atomically, never pickled."""

    path: Path

    def save(
        self, module: nn.Module, average: WeightAverage, optimizer: torch.optim.Optimizer, step: int, info: Mapping[str, float]
    ) -> None:
        tensors = {f"model.{k}": v for k, v in module.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in average.values.items()}
        for i, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optim.{i}.{k}": torch.as_tensor(v) for k, v in state.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        contiguous = {k: v.detach().contiguous().clone() for k, v in tensors.items()}
        save_file(contiguous, partial, metadata={"step": str(step), "info": json.dumps(dict(info))})
        os.replace(partial, self.path)

    def load_average(self, average: WeightAverage) -> None:
        """Take only the averaged weights."""
        with safe_open(self.path, framework="pt") as f:
            average.values = {k.removeprefix("ema."): f.get_tensor(k) for k in f.keys() if k.startswith("ema.")}  # noqa: SIM118

    def load(self, module: nn.Module, average: WeightAverage, optimizer: torch.optim.Optimizer) -> int:
        """Restore everything in place and return the step to go on from; 0 where there is no checkpoint."""
        if not self.path.exists():
            return 0
        with safe_open(self.path, framework="pt") as f:
            step = int(f.metadata()["step"])
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 - safe_open is no mapping
        module.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        average.values = {k.removeprefix("ema."): v for k, v in tensors.items() if k.startswith("ema.")}
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optim."):
                _, index, name = key.split(".", 2)
                states.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
        return step
