"""The settings of `unalike seeds`, checked before anything is loaded; torch is not imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unalike.errors import Literal, Option, OptionError, named
from unalike.options import LARGEST_SEED, option, require_allowed
from unalike.runs.pipeline_settings import PipelineSettings
from unalike.runs.settings import (
    AUTO,
    EXAMPLE_PROMPT,
    MOST_IMAGES,
    Folders,
    GenerateSettings,
    as_paths,
    as_texts,
)

MOST_CANDIDATES = 10_000
OBJECTIVES = ("farthest", "log-determinant", "vendi", "facility")
QUALITIES = ("typicality", "consistency", "agreement")


def _same(name: str) -> Any:
    """The option of this name of `GenerateSettings`."""
    f = GenerateSettings.__dataclass_fields__[name]
    return field(default=f.default, metadata=f.metadata)


@dataclass(frozen=True, kw_only=True)
class SeedsSettings(PipelineSettings):
    """The settings of `unalike seeds`, one field an option of the same name; those of the pipeline
    itself are of `PipelineSettings`.

    Args:
        prompts, model, shield_space, steps, guidance_scale, device, dtype: as of
            `GenerateSettings`.
        num: seeds to choose for each prompt.
        candidates: seeds to choose from, for each prompt.
        seed: the first of the candidates.
        step: by how many evaluations of the model a candidate is judged.
        objective, quality, weight: see `unalike.attach.Candidates`.
        memory: file of earlier generations to differ from; it stays as it is.
        shield: folder of a protected set; candidates that head into it are left out.
        batch_size: candidates evaluated at a time.

    Raises:
        OptionError: for a value outside what is allowed.

    Example:
        >>> SeedsSettings(prompts=("heart",)).candidates
        64
    """

    prompts: tuple[str, ...] = _same("prompts")
    num: int = option(8, "Seeds to choose for each prompt.", low=1, high=MOST_CANDIDATES)
    candidates: int = option(
        64, "Seeds to choose from, for each prompt.", low=1, high=MOST_CANDIDATES
    )
    model: str = _same("model")
    memory: Path | None = option(
        None,
        "Differ from the generations in this file, which stays as it is.",
        kind=Path,
        choices=(None,),
    )
    shield: Folders = option(
        (),
        "Leave out seeds that head into the protected set in this folder; repeat it for several.",
        kind=tuple,
        example=Literal("DIR"),
        paths=True,
    )
    shield_space: tuple[str, ...] | str | None = _same("shield_space")
    seed: int = option(0, "The first of the candidates.", low=0, high=LARGEST_SEED)
    steps: int | None = _same("steps")
    guidance_scale: float | None = _same("guidance_scale")
    step: int | str = option(
        AUTO,
        "Evaluations of the model that judge a seed; auto for 1 in up to 4 steps, else 2.",
        kind=int,
        low=1,
        choices=(AUTO,),
        example=1,
    )
    objective: str = option(OBJECTIVES[0], "What the seeds are chosen for.", choices=OBJECTIVES)
    quality: str | None = option(
        None, "What counts besides.", choices=(*QUALITIES, None), example=QUALITIES[0]
    )
    weight: float = option(0.25, "Weight of the quality.", low=0, high=1000)
    batch_size: int = option(16, "Seeds evaluated at a time.", low=1, high=MOST_IMAGES)
    device: str = _same("device")
    dtype: str = _same("dtype")

    def __post_init__(self) -> None:
        as_texts(self, "shield", "shield_space")
        require_allowed(self)
        self.require_consistent()
        if not self.prompts:
            raise OptionError(
                named("there is no prompt; give at least one, as in {}", EXAMPLE_PROMPT)
            )
        if self.candidates < self.num:
            raise OptionError(
                named(
                    "{candidates} is {} and {num} is {}; there must be at least as many candidates "
                    "as seeds to choose, as in {}",
                    self.candidates,
                    self.num,
                    Option("candidates", 4 * self.num),
                )
            )
        if self.shield_space and not self.shield:
            raise OptionError(
                named(
                    "{shield_space} is {!r}, and there is no protected set; give its folder, as in "
                    "{shield=DIR}",
                    self.shield_space[0],
                )
            )

    @property
    def shields(self) -> tuple[Path, ...]:
        """The folders of the protected sets."""
        return as_paths(self.shield)
