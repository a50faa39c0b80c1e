"""What is drawn and beside which protected images."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.base import PromptJob
from training.emoji.measure import PROMPTS
from unalike.models.emoji.data import captions, entries

STEPS = 20
GUIDANCE_SCALE = 2.0
BATCH = 40


@dataclass(frozen=True)
class Setting:
    """How images are kept out.

    Args:
        guard: "none", "exact" (SPELL and the check after the last step), "image" (the same for the
            finished image, encoded again) or "ivf" (SPELL as published: approximate search, no
            check).
        radius: of the balls; 0 for "none".
        nprobe: cells searched by "ivf"; 0 otherwise.
        protected: "all" images that the model was trained on, or its "flags" alone.
    """

    guard: str
    radius: float = 0.0
    nprobe: int = 0
    protected: str = "all"

    @property
    def name(self) -> str:
        """In a file name."""
        return f"{self.guard}-{self.protected}-{self.radius:g}-{self.nprobe}"


@dataclass(frozen=True)
class Size:
    """How much is drawn.

    Args:
        names: full names, each of one image.
        words: head words, each of many images.
        images: of each prompt, drawn at once.
        images_again: of each prompt where the finished image is kept out, which takes a decoding
            and an encoding a step.
        fewer: the comparisons beside exact protection of all images are made on each `fewer`-th
            prompt.
        radii: of the balls.
        nprobe: cells that the approximate search looks into.
    """

    names: int = 32
    words: int = 32
    images: int = BATCH
    images_again: int = 10
    fewer: int = 4
    radii: tuple[float, ...] = (4.0, 6.0, 9.0)
    nprobe: tuple[int, ...] = (1, 2, 10)

    def settings(self) -> list[Setting]:
        """All of them, the unguarded first, which the others are compared with."""
        exact = [Setting("exact", radius) for radius in self.radii]
        ivf = [Setting("ivf", radius, nprobe) for radius in self.radii for nprobe in self.nprobe]
        middle = self.radii[len(self.radii) // 2]
        return [
            Setting("none"),
            *exact,
            Setting("exact", middle, protected="flags"),
            Setting("image", middle),
            *ivf,
        ]

    def prompts(self) -> list[str]:
        """Full names at even steps through all images, then head words."""
        every = len(entries()) // self.names
        return [captions()[i * every].full for i in range(self.names)] + list(PROMPTS[: self.words])


SMOKE = Size(names=1, words=1, images=2, images_again=1, radii=(4.0,), nprobe=(1,))


Job = PromptJob[Setting]


def jobs(size: Size) -> list[Job]:
    """All of them, prompt by prompt, so that what disturbs the machine for a while disturbs all
    settings alike.
    """
    return [
        Job(setting, prompt, size.images_again if setting.guard == "image" else size.images)
        for i, prompt in enumerate(size.prompts())
        for setting in size.settings()
        if i % size.fewer == 0
        or setting.guard == "none"
        or (setting.guard == "exact" and (setting.protected == "all" or "flag" in prompt))
    ]
