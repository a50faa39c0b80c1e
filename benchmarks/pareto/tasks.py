"""The two models that the comparison is made on: what is asked of them, and how what they draw is
judged and turned into features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from training.digits import measure as digits_measure
from training.emoji import measure as emoji_measure
from unalike.models import digits, emoji
from unalike.models.counts import Counts
from unalike.pipelines.loading import load

STEPS = 20


@dataclass(frozen=True)
class Unit:
    """Samples that belong together: those of a prompt, from a seed on. Intervals come from drawing
    units anew.

    Args:
        prompt: a prompt, or the digit of a class as text.
        seed: of its first sample; sample `i` has the seed `seed + i`.
    """

    prompt: str
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.prompt} from seed {self.seed}" if self.seed else self.prompt


@dataclass(frozen=True)
class Task:
    """A model and what is asked of it.

    Args:
        name: of the model in the catalogue.
        validation: units that settings are chosen on.
        test: units that are reported; no prompt is in both.
        unguided: the weight of classifier-free guidance of the unguided sampling that all is
            compared with.
        low: a low weight, at which the number of samples that cover a set is counted too.
        validation_samples: of each unit of `validation`; those of `test` have 32.
        small: prompts of which 90% of the right images are to be found.
    """

    name: str
    validation: tuple[Unit, ...]
    test: tuple[Unit, ...]
    unguided: float
    low: float
    validation_samples: int
    small: tuple[str, ...] = ()

    def draw(
        self,
        call: Callable[..., Any],
        unit: Unit,
        samples: int,
        *,
        guidance_scale: float,
        batch: int,
    ) -> Tensor:
        """Samples (n, 3, h, w) of a unit in [0, 1], with STEPS steps."""
        arguments = {
            "seed": unit.seed,
            "guidance_scale": guidance_scale,
            "steps": STEPS,
            "batch": batch,
        }
        if self.name == "digits":
            return digits_measure.draw(call, [int(unit.prompt)] * samples, **arguments)
        return emoji_measure.draw(call, [unit.prompt] * samples, **arguments)

    def count(self, images: Tensor, prompt: str) -> Counts:
        """How many samples the judge of the model accepts as right, and how many different right
        images they show.
        """
        return (
            digits.count(images, prompt)
            if self.name == "digits"
            else emoji_measure.count(images, prompt)
        )

    def shown(self, images: Tensor, prompt: str) -> Tensor:
        """For each sample (n,) the right image that it shows, or -1 where it shows none."""
        match, right = _model(self.name).nearest(images), _model(self.name).truth(prompt)
        return torch.where(match.shown & torch.isin(match.index, right), match.index, -1)

    def features(self, pipe: Any, images: Tensor) -> Tensor:
        """What distances between images are measured in (n, d): the classifier's features of
        digits, the autoencoder's latents of emoji.
        """
        if self.name == "digits":
            return digits.features(images)
        with torch.inference_mode():
            return torch.cat(
                [
                    pipe.vae.encode(part * 2 - 1).latent_dist.mean.flatten(1)
                    for part in images.split(64)
                ]
            )

    def real(self, pipe: Any, prompt: str) -> Tensor:
        """The features (k, d) of all right images of a prompt."""
        return _real(self.name, pipe)[_model(self.name).truth(prompt)]

    def principal(self, pipe: Any) -> Tensor:
        """Principal directions (d, 64 at most) of the features of all real images, in which
        Fréchet distances are measured.
        """
        return _principal(self.name, pipe)


def _model(name: str) -> ModuleType:
    return digits if name == "digits" else emoji


@cache
def _real(name: str, pipe: Any) -> Tensor:
    return TASKS[name].features(pipe, _model(name).load_images() / 255)


@cache
def _principal(name: str, pipe: Any) -> Tensor:
    centred = _real(name, pipe).double()
    centred = centred - centred.mean(dim=0)
    return torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -64:].float()


def open_pipeline(name: str) -> Any:
    """The model, with its denoiser in bfloat16, which is half as fast again on processors that have
    it; all else stays in float32.
    """
    pipe = load(name)
    pipe.set_progress_bar_config(disable=True)
    denoiser: nn.Module = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    denoiser.to(torch.bfloat16)
    denoiser.register_forward_pre_hook(
        lambda module, args, kwargs: (_cast(args, torch.bfloat16), _cast(kwargs, torch.bfloat16)),
        with_kwargs=True,
    )
    denoiser.register_forward_hook(lambda module, args, output: _cast(output, torch.float32))
    return pipe


def _cast(values: Any, dtype: torch.dtype) -> Any:
    """All floating-point tensors inside in another precision."""
    if isinstance(values, Tensor):
        return values.to(dtype) if values.is_floating_point() else values
    if isinstance(values, dict):
        cast = {key: _cast(value, dtype) for key, value in values.items()}
        return cast if type(values) is dict else type(values)(**cast)
    return tuple(_cast(value, dtype) for value in values) if isinstance(values, tuple) else values


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="emoji",
            validation=tuple(map(Unit, emoji_measure.VALIDATION)),
            test=tuple(map(Unit, emoji_measure.PROMPTS)),
            unguided=7.5,
            low=2.0,
            validation_samples=16,
            small=("heart", "moon", "square", "shoe", "medal"),
        ),
        Task(
            name="digits",
            validation=tuple(Unit(digit, 1000) for digit in "0358"),
            test=tuple(Unit(digit, seed) for digit in "124679" for seed in (0, 100)),
            unguided=4.0,
            low=1.0,
            validation_samples=32,
        ),
    )
}
