"""What is drawn beside which protected images, and how those are kept out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.base import PromptJob
from training.emoji.measure import PROMPTS
from unalike.models.emoji.data import captions, entries, truth

BATCH = 16
LATENT_RADIUS = 9.0
"""Of the balls around latents: the largest one of `benchmarks.shield_emoji`."""
PROBED = 2
"""The cells that the approximate search looks into."""
NONE, IVF, PUBLISHED, FINISHED = GUARDS = ("none", "ivf", "published", "finished")
"""How images are kept out: not at all; SPELL by an approximate search, as published; SPELL by the
exact search and a move at the end, `on_violation="move"`; and `on_violation="redraw"` with two
sets, of latents and of copy-detection features.
"""


@dataclass(frozen=True)
class Model:
    """How a model is run, and how many images of each prompt are drawn with it: where all training
    images are protected, so that most are drawn again several times, and where fewer are.
    """

    steps: int
    guidance_scale: float
    images_of_all: int
    images: int


MODELS = {"emoji-turbo": Model(4, 1.0, 16, 64), "emoji": Model(20, 2.0, 4, 8)}


@dataclass(frozen=True)
class Setting:
    """A model beside a protected set.

    Args:
        model: in `MODELS`.
        protected: "all" images that it was trained on, its "flags" of countries and regions, or its
            single "hearts" of one colour.
        guard: one of `GUARDS`.
    """

    model: str
    protected: str
    guard: str

    @property
    def name(self) -> str:
        """In a file name."""
        return f"{self.model}-{self.protected}-{self.guard}"


def protected(name: str) -> Tensor:
    """The numbers in `load_images()` of a protected set, ascending."""
    if name == "all":
        return torch.arange(1 + max(entry.image for entry in entries()))
    if name == "flags":
        own = {entry.image for entry in entries() if entry.name.startswith("flag: ")}
    else:
        own = {entry.image for entry in entries() if entry.name in _HEARTS}
    return torch.tensor(sorted(own))


_HEARTS = {
    f"{colour} heart"
    for colour in (
        "red", "pink", "orange", "yellow", "green", "blue", "light blue", "purple", "brown",
        "black", "grey", "white",
    )
}  # fmt: skip

_EVERY = len(entries()) // 12
PROMPTS_OF: dict[str, tuple[str, ...]] = {
    "all": (*PROMPTS[::2], *(captions()[i * _EVERY].full for i in range(12))),
    "flags": (
        "flag", "flag: France", "flag: Japan", "flag: Brazil", "flag: Kenya", "chequered flag",
        "crossed flags", "heart", "house", "ball",
    ),
    "hearts": (
        "heart", "red heart", "blue heart", "black heart", "heart with arrow", "two hearts",
        "couple with heart", "flag", "fruit", "ball",
    ),
}  # fmt: skip
"""The prompts beside each protected set: some name what is protected, some nothing of it, and
`flag` and `heart` both.
"""


def answered(prompt: str, name: str) -> bool:
    """Whether a prompt has a right image that is not protected."""
    return not bool(torch.isin(truth(prompt), protected(name)).all())


def _images(model: str, name: str) -> int:
    own = MODELS[model]
    return own.images_of_all if name == "all" else own.images


@dataclass(frozen=True)
class Size:
    """How much is drawn: the models, and every so many of the prompts and images."""

    models: tuple[str, ...] = tuple(MODELS)
    guards: tuple[str, ...] = GUARDS
    sets: tuple[str, ...] = tuple(PROMPTS_OF)
    every: int = 1

    def jobs(self) -> list[Job]:
        """All of them, prompt by prompt, so that what disturbs the machine for a while disturbs all
        guards alike.
        """
        return [
            Job(Setting(model, name, guard), prompt, max(2, _images(model, name) // self.every))
            for model in self.models
            for name in self.sets
            for prompt in PROMPTS_OF[name][:: self.every]
            for guard in self.guards
        ]


SMOKE = Size(("emoji-turbo",), (NONE, FINISHED), ("hearts",), 8)


Job = PromptJob[Setting]
