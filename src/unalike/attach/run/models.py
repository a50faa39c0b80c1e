"""Names of the models behind a run's latents and prompts, and memories that belong to them."""

from __future__ import annotations

from dataclasses import dataclass

from unalike.attach.spaces import Space
from unalike.errors import StoreError, named
from unalike.memory import Memory


@dataclass(frozen=True)
class Models:
    """Names of what makes the latents and what embeds the prompts (see `spaces`)."""

    latents: str
    prompts: str


def require_same_models(memory: Memory, models: Models) -> None:
    """Refuses a memory that holds samples, and none of these models; other sizes are fine.

    Raises:
        StoreError: naming both.
    """
    held = memory.spaces()
    if held and not any(_models_of(Space.parse(name)) == models for name in held):
        other = next(iter(held))
        raise StoreError(
            named(
                "the memory holds samples of another model ({}) and none of this one ({} {}), and "
                "they cannot be compared; give each model a memory of its own, as in {memory=FILE}",
                other,
                models.latents,
                models.prompts,
            )
        )


def _models_of(space: Space) -> Models:
    return Models(space.model, space.prompts)
