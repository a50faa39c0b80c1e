"""The models of the comparison: what is loaded, and how it is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unalike.errors import OptionError, StoreError, close_to
from unalike.pipelines.catalogue import MODELS as CATALOGUE
from unalike.pipelines.loading import find

FEW = 20
"""Runs of fewer steps have other settings of the methods."""


@dataclass(frozen=True)
class Model:
    """One row of the comparison.

    Args:
        name: of tables, folders and `--models`.
        source: as `unalike.load` takes it.
        steps: evaluations of an image.
        scale: the guidance scale; None for the one of the catalogue.
        lora: whether the denoiser has a LoRA.
    """

    name: str
    source: str
    steps: int
    scale: float | None = None
    lora: bool = False

    @property
    def guidance_scale(self) -> float:
        """The guidance scale of plain sampling; 1 where guidance is built in."""
        return self.scale or CATALOGUE[self.source].guidance_scale or 1.0

    @property
    def few(self) -> bool:
        """Whether methods have their settings for few steps."""
        return self.steps < FEW


MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model("emoji-turbo-1", "emoji-turbo-1", steps=1, scale=1.0, lora=True),
        Model("emoji-turbo-2", "emoji-turbo-2", steps=2, scale=1.0, lora=True),
        Model("emoji-turbo", "emoji-turbo", steps=4, scale=1.0, lora=True),
        Model("emoji-flow-4", "emoji-flow", steps=4),
        Model("emoji-flow-8", "emoji-flow", steps=8),
        Model("emoji-flow-28", "emoji-flow", steps=28),
        Model("emoji-cfg2", "emoji", steps=20, scale=2.0),
        Model("emoji-cfg7.5", "emoji", steps=20, scale=7.5),
    )
}


def installed() -> list[str]:
    """The names of the models whose weights are in this installation."""
    return [name for name, model in MODELS.items() if _missing(model) is None]


def require(names: Sequence[str]) -> list[str]:
    """The names, each once, in the order of the table.

    Raises:
        OptionError: for a model that the table does not have.
        StoreError: for one whose weights are not in this installation.
    """
    for name in names:
        if name not in MODELS:
            close = close_to(name, MODELS)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise OptionError(
                f"--models has {name!r}; allowed: {', '.join(map(repr, MODELS))}{hint}"
            )
        missing = _missing(MODELS[name])
        if missing is not None:
            raise StoreError(
                f"--models has {name!r}, and its weights are not in this installation; leave it "
                f"out, as in --models {' '.join(installed())}"
            ) from missing
    return [name for name in MODELS if name in names]


def _missing(model: Model) -> Exception | None:
    """Why a model cannot be loaded; None where it can."""
    try:
        find(model.source)
    except (OptionError, StoreError) as error:
        return error
    return None
