"""The feature extractor that a protected set on disk was built with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from unalike.errors import Literal, Option, OptionError, named

if TYPE_CHECKING:
    from unalike.extractors.base import Extractor
    from unalike.shields import Shield


def embeddings_of(
    shields: Sequence[Shield], spaces: Iterable[str], *, device: str = "auto"
) -> list[Extractor]:
    """The extractors of all protected sets of features.

    Args:
        shields: the sets.
        spaces: other spellings of their features, in any order.
        device: "auto", or a device of torch.

    Raises:
        OptionError: for a space that none of the sets needs, and as `embedding_of`.
    """
    left, found = list(spaces), []
    for shield in shields:
        kind = (shield.embedding or "").partition(":")[0]
        own = next((space for space in left if space.partition(":")[0] == kind), None)
        if own is None and len(shields) == 1 and left:
            own = left[0]  # which cannot be right, and the error says why
        if own is not None:
            left.remove(own)
        found.append(embedding_of(shield, own, device=device))
    if left:
        raise OptionError(
            named("{shield_space} is {!r}, and no protected set is of it; leave it out", left[0])
        )
    return [embed for embed in found if embed is not None]


def embedding_of(shield: Shield, space: str | None, *, device: str = "auto") -> Extractor | None:
    """The extractor of a protected set's features, its network loaded; None for a set of latents.

    A set built with a network from a folder knows that folder by its own name alone, so `space` has
    to say where it is.

    Args:
        shield: the set.
        space: another spelling of its features, with a folder that they are in; None for its own.
        device: "auto", or a device of torch.

    Raises:
        OptionError: for a space that is not needed, of other features, or not to be had.

    Example:
        >>> import torch
        >>> from unalike.shields import Shield
        >>> space = "AutoencoderKL-1c0ffee5/4x8x8"
        >>> embedding_of(Shield(torch.zeros(1, 4, 8, 8), space=space, radius=1.0), None) is None
        True
    """
    from unalike.extractors import extractor

    own = shield.embedding
    if own is None:
        if space is not None:
            raise OptionError(
                named(
                    "{shield_space} is {!r}, and the protected set is one of latents, which needs "
                    "none; leave it out",
                    space,
                )
            )
        return None
    kind = own.partition(":")[0]
    if space is not None and space.partition(":")[0] != kind:
        raise OptionError(
            named(
                "{shield_space} is {!r}, and the protected set is one of {}; give that, or leave "
                "it "
                "out",
                space,
                own,
            )
        )
    try:
        return extractor(space or own, device=device)
    except OptionError as error:
        if space is not None or ":" not in own:
            raise
        raise OptionError(
            named(
                "the protected set is one of {}, a network that is not to be had by that name; say "
                "where its files are, as in {} ({})",
                own,
                Option("shield_space", Literal(f"{kind}:FOLDER")),
                error,
            )
        ) from error
