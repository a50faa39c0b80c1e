"""The guard of a shield for the images of a pipeline's call."""

from __future__ import annotations

from typing import Any

from unalike.attach.diffusers.embedded import EmbeddedGuard
from unalike.attach.diffusers.embedding import Embed, in_embedding, require_fitting_embedding
from unalike.attach.diffusers.host import Host
from unalike.attach.run.guard import Guard, LatentGuard
from unalike.attach.run.models import Models
from unalike.attach.spaces import Space
from unalike.errors import OptionError, StoreError, UnsupportedError, named
from unalike.memory import Memory
from unalike.shields import Shield


def guard_of(
    pipe: Any, shield: Shield | None, embed: Embed | None, arguments: dict[str, Any]
) -> Guard | None:
    """The guard that measures the latents of a call against the shield; None without one.

    Args:
        pipe: a diffusers pipeline.
        shield: the protected set.
        embed: what made its vectors; None for a shield of latents.
        arguments: of the call, by name.
    """
    if shield is None:
        return None
    if embed is None:
        return LatentGuard(shield, pipe)
    size = arguments.get("height"), arguments.get("width")
    return EmbeddedGuard(shield, pipe, embed, size=size)


def require_fitting_shield(
    pipe: Any, shield: Shield | None, embed: Embed | None, models: Models
) -> None:
    """Refuse a shield of another model, and an embedding without a shield.

    Raises:
        OptionError: for an embedding without a shield, or a shield of one without it.
        StoreError: for a shield of another model.
        UnsupportedError: for a pipeline whose latents cannot be decoded, where that is needed.
    """
    if shield is None:
        if embed is not None:
            raise OptionError(
                "embed is given and shield is None; embed says what made a shield's vectors: pass "
                "both, or neither"
            )
        return
    if embed is not None or in_embedding(shield):
        require_fitting_embedding(shield, embed)
        guard_of(pipe, shield, embed, {})  # refuses what it cannot decode
        return
    if Space.parse(shield.space).model != models.latents:
        raise StoreError(
            named(
                "{shield} protects latents of {!r} and this pipeline's are of {!r}; give a set of "
                "this pipeline's autoencoder, as `shield_from_images` and `unalike shield build` "
                "make it",
                shield.space,
                models.latents,
            )
        )


def require_pipeline(pipe: Any, example: str) -> None:
    """Refuse what is no pipeline with a scheduler.

    Raises:
        UnsupportedError: with the call that would be right, `example`.
    """
    if Host(pipe).part("scheduler") is None or not callable(pipe):
        raise UnsupportedError(
            f"pipe is a {type(pipe).__name__}; allowed: a diffusers pipeline with a scheduler, as "
            f"in {example}"
        )


def require_stores(call: str, memory: Any, shield: Any) -> None:
    """Refuse anything but a memory and a shield.

    Args:
        call: how the call that takes them begins, for the message.
        memory, shield: what it was given.

    Raises:
        OptionError: naming what is allowed.
    """
    for name, value, kind in (("memory", memory, Memory), ("shield", shield, Shield)):
        if value is not None and not isinstance(value, kind):
            raise OptionError(
                f"{name} is a {type(value).__name__}; allowed: a {kind.__name__} or None, as in "
                f"{call}, {name}={kind.__name__}(…))"
            )
