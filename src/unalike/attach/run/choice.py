"""Choose among candidates by their predictions, and say which were chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Chosen:
    """The seeds that were chosen for one prompt.

    Attributes:
        prompt: its text or class name; None where the pipeline has none.
        seeds: in the order of choice.
        distances: from the prediction of each to the nearest other chosen one of the prompt, in
            the units of the features; infinite where it is the only one.
        gains: the objective's gain of each, quality included.
        dropped: seeds of candidates that head into the protected set.
    """

    prompt: str | None
    seeds: list[int]
    distances: list[float]
    gains: list[float]
    dropped: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Choice:
    """Seeds whose images are unlike each other; `print` shows a line for each prompt.

    Attributes:
        prompts: the chosen seeds of each prompt.
        num: how many of each prompt.
        candidates: how many of each prompt were evaluated.
        step: by how many evaluations of the model each was judged.
        steps: how many evaluations an image takes.
        calls: evaluations of one image that were spent; with classifier-free guidance both halves
            are one.
        objective: name of the objective.
        latents: the predictions (prompts · num, …) of the chosen, float32, on the CPU.
    """

    prompts: list[Chosen]
    num: int
    candidates: int
    step: int
    steps: int
    calls: int
    objective: str
    latents: Tensor = field(repr=False, compare=False)

    @property
    def seeds(self) -> list[int]:
        """The chosen seeds, `num` of each prompt, prompt by prompt."""
        return [seed for chosen in self.prompts for seed in chosen.seeds]

    @property
    def distances(self) -> list[float]:
        """The distance of each to the nearest other chosen one of its prompt."""
        return [distance for chosen in self.prompts for distance in chosen.distances]

    def generators(self, device: torch.device | str = "cpu") -> list[torch.Generator]:
        """A new generator with each of the seeds, as `generator=` of the pipeline takes them."""
        return [torch.Generator(device).manual_seed(seed) for seed in self.seeds]

    def __str__(self) -> str:
        lines = [
            f"{self.num} of {self.candidates} seeds by {self.step} of {self.steps} evaluations"
        ]
        for chosen in self.prompts:
            seeds = " ".join(map(str, chosen.seeds))
            lines.append(seeds if chosen.prompt is None else f"{chosen.prompt!r}: {seeds}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The choice without the predictions, ready for JSON; None for infinite distances."""
        own = {name: value for name, value in vars(self).items() if name != "latents"}
        return {**own, "prompts": [_plain(chosen) for chosen in self.prompts]}


def _plain(chosen: Chosen) -> dict[str, Any]:
    return {**asdict(chosen), "distances": [_finite(d) for d in chosen.distances]}


def _finite(number: float) -> float | None:
    return number if number < float("inf") else None


def take(values: Tensor, chosen: Sequence[Sequence[int]]) -> Tensor:
    """The rows of all groups, group by group."""
    return values[[i for rows in chosen for i in rows]]
