"""Check that an embedding made the vectors of a shield."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from torch import Tensor

from unalike.attach.spaces import Space, embedding_model
from unalike.errors import OptionError, StoreError
from unalike.shields import Shield


class Extractor(Protocol):
    """An extractor of `unalike.extractors`."""

    @property
    def fingerprint(self) -> str:
        """The name."""
        ...

    def embed(self, images: Tensor) -> Tensor:
        """The vectors (n, d) of images (n, 3, h, w) in [0, 1], with gradients."""
        ...


Embed: TypeAlias = "Extractor | Callable[[Tensor], Tensor]"
"""An extractor, or a function from images (n, 3, h, w) in [0, 1] to vectors (n, d), which goes by
its name.
"""


def in_embedding(shield: Shield) -> bool:
    """True for a shield of vectors (m, d) of an embedding, False for one of latents."""
    return shield.embedding is not None or len(shield.shape) == 1


def require_fitting_embedding(shield: Shield, embed: Embed | None) -> None:
    """Refuses a protected set whose points this embedding did not make.

    Raises:
        OptionError: for a set of an embedding and none given, or something given that embeds
            nothing.
        StoreError: for a set of latents, or of another embedding.
    """
    kind = Space.parse(shield.space).model
    if embed is None:
        spelling = repr(shield.embedding or kind.partition("/")[0])
        raise OptionError(
            f"the shield protects vectors of the embedding {kind!r} and embed is None; pass what "
            "made them, as in "
            f"guide(pipe, shield=shield, embed=unalike.extractors.extractor({spelling}))"
        )
    if not callable(embedding_function(embed)):
        raise OptionError(
            f"embed is a {type(embed).__name__}; allowed: an extractor of unalike.extractors, or "
            "a function of images"
        )
    if not in_embedding(shield):
        raise StoreError(
            f"the shield protects latents of {kind!r}, which need no embedding; use guide(pipe, "
            "shield=shield)"
        )
    if kind != embedding_model(embed):
        raise StoreError(
            f"the shield protects vectors of the embedding {kind!r} and embed is "
            f"{embedding_model(embed)!r}; pass the one that made them, "
            "or build a shield with this one"
        )


def embedding_function(embed: Any) -> Any:
    """The function from images to vectors of an extractor; a function as it is."""
    return (
        embed.embed
        if isinstance(getattr(embed, "fingerprint", None), str) and hasattr(embed, "embed")
        else embed
    )
