"""The guards of shields for the images of a pipeline's call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from unalike.attach.diffusers.embedded import EmbeddedGuard
from unalike.attach.diffusers.embedding import Embed, in_embedding, require_fitting_embedding
from unalike.attach.diffusers.host import Host
from unalike.attach.run.guard import Guard, LatentGuard
from unalike.attach.run.models import Models
from unalike.attach.spaces import Space, embedding_model
from unalike.errors import OptionError, StoreError, UnsupportedError, named
from unalike.memory import Memory
from unalike.shields import Shield

Shields: TypeAlias = "Shield | Sequence[Shield] | None"
"""A protected set, or several in spaces of their own."""
Embeds: TypeAlias = "Embed | Sequence[Embed] | None"
"""The embeddings that made the vectors of those sets that are of one, in any order."""


def listed(given: Any) -> list[Any]:
    """The items of a list, one item in a list, and none for None."""
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def guards_of(
    pipe: Any,
    shield: Shields,
    embed: Embeds,
    arguments: dict[str, Any],
    steering: float = 0.0,
) -> tuple[Guard, ...]:
    """The guards that measure the latents of a call, one for each protected set.

    Args:
        pipe: a diffusers pipeline.
        shield: the protected sets.
        embed: what made the vectors of those of an embedding.
        arguments: of the call, by name.
        steering: the radius of the balls of latents that methods see, where that is the larger one.
    """
    size = arguments.get("height"), arguments.get("width")
    found: list[Guard] = []
    for own, with_ in _paired(shield, embed):
        if with_ is None:
            found.append(LatentGuard(own, pipe, steering))
        else:
            found.append(EmbeddedGuard(own, pipe, with_, size=size))
    return tuple(found)


def _paired(shield: Shields, embed: Embeds) -> list[tuple[Shield, Embed | None]]:
    """Each protected set with the embedding that made its vectors; None for one of latents, and
    where none did.
    """
    shields, embeds = listed(shield), listed(embed)
    if len(shields) == 1 and len(embeds) == 1:
        return [(shields[0], embeds[0])]
    made = {embedding_model(one): one for one in embeds}
    return [(own, made.get(Space.parse(own.space).model)) for own in shields]


def require_fitting_shield(pipe: Any, shield: Shields, embed: Embeds, models: Models) -> None:
    """Refuse a shield of another model, two of one space, and an embedding without a shield.

    Raises:
        OptionError: for an embedding without a shield, a shield of one without it, and two sets of
            one space.
        StoreError: for a shield of another model.
        UnsupportedError: for a pipeline whose latents cannot be decoded, where that is needed.
    """
    pairs, embeds = _paired(shield, embed), listed(embed)
    if embeds and not pairs:
        raise OptionError(
            "embed is given and shield is None; embed says what made a shield's vectors: pass "
            "both, or neither"
        )
    if unused := [one for one in embeds if not any(one is used for _, used in pairs)]:
        raise OptionError(
            f"embed has {embedding_model(unused[0])!r}, and no shield protects vectors of it; "
            "leave it out"
        )
    spaces = [own.space for own, _ in pairs]
    if twice := [space for space in spaces if spaces.count(space) > 1]:
        raise OptionError(
            named(
                "{shield} has two sets of {!r}; give one of each space, as `unalike shield add` "
                "makes of two",
                twice[0],
            )
        )
    for own, with_ in pairs:
        _require_fitting(pipe, own, with_, models)


def _require_fitting(pipe: Any, shield: Shield, embed: Embed | None, models: Models) -> None:
    if embed is not None or in_embedding(shield):
        require_fitting_embedding(shield, embed)
        guards_of(pipe, shield, embed, {})  # refuses what it cannot decode
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
    for name, values, kind in (
        ("memory", [] if memory is None else [memory], Memory),
        ("shield", listed(shield), Shield),
    ):
        for value in values:
            if not isinstance(value, kind):
                raise OptionError(
                    f"{name} is a {type(value).__name__}; allowed: a {kind.__name__} or None, as "
                    f"in {call}, {name}={kind.__name__}(…))"
                )
