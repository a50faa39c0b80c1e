"""The conditions of a run: which images share a prompt, and the embeddings of the prompts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from unalike.attach.run.encoders import Encoder
from unalike.errors import OptionError, UnsupportedError
from unalike.kernels import unit_rows

T = TypeVar("T")


@dataclass(frozen=True)
class Conditions:
    """The conditions of the `B` images of a call.

    Attributes:
        images: B.
        groups: (B,) int64, equal for images of the same prompt.
        texts: a prompt or a class name for each image; None where the host has none.
        embeddings: (B, p) float32, each of norm 1; None where the host has none.
        padding: (B, L) bool, which tokens of the prompts are padding; None where nobody asked, or
            it is not known.
    """

    images: int
    groups: Tensor
    texts: list[str] | None
    embeddings: Tensor | None
    padding: Tensor | None = None


def given_groups(groups: Sequence[int] | Tensor | None) -> Tensor | None:
    """The `groups` argument as (B,) int64; None for None.

    Raises:
        OptionError: for anything but whole numbers, at least one.

    Example:
        >>> given_groups(["cat", "dog"])
        Traceback (most recent call last):
            ...
        unalike.errors.OptionError: groups is ['cat', 'dog']; allowed: a whole number for each ...
    """
    if groups is None:
        return None
    try:
        numbers = torch.as_tensor(groups).reshape(-1)
    except (TypeError, ValueError, RuntimeError):
        numbers = torch.zeros(0)
    if len(numbers) == 0 or numbers.is_floating_point() or numbers.is_complex():
        raise OptionError(
            f"groups is {groups!r}; allowed: a whole number for each image, "
            "as in groups=[0, 0, 1, 1]"
        )
    return numbers.to(torch.int64)


def grouped(
    images: int, given: Tensor | None, keys: Sequence[Hashable] | None, embeddings: Tensor | None
) -> Tensor:
    """Prompt groups (B,) int64 on the CPU: those given, else equal keys share one, else equal
    embeddings; with none of these all images do.

    Example:
        >>> grouped(3, None, ["cat", "dog", "cat"], None)
        tensor([0, 1, 0])
    """
    if given is not None:
        return given
    if keys is not None:
        order = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        return torch.tensor([order[key] for key in keys], dtype=torch.int64)
    if embeddings is not None:
        return torch.unique(embeddings, dim=0, return_inverse=True)[1].cpu()
    return torch.zeros(images, dtype=torch.int64)


def spread(items: Sequence[T], images: int, what: str) -> list[T]:
    """One item for each image, from one for each prompt; images of a prompt follow each other.

    Raises:
        UnsupportedError: when the number of images is no multiple of that of items; `what` names
            them.
    """
    if images % len(items):
        raise UnsupportedError(
            f"this call has {len(items)} {what} and {images} images, which do not go together; "
            "repeat each prompt, so that there is one for each image"
        )
    return [item for item in items for _ in range(images // len(items))]


def encode_prompts(encoder: Encoder, texts: Sequence[str]) -> Tensor:
    """The embeddings (B, p) of the texts of B images, float32 and each of norm 1; the encoder sees
    each text once.

    Raises:
        OptionError: when it returns anything but a finite tensor with a row for each text.
    """
    unique = list(dict.fromkeys(texts))
    rows = encoder(unique)
    if (
        not isinstance(rows, Tensor)
        or rows.ndim != 2
        or len(rows) != len(unique)
        or not torch.isfinite(rows).all()
    ):
        got = (
            f"shape {tuple(rows.shape)}" if isinstance(rows, Tensor) else f"a {type(rows).__name__}"
        )
        raise OptionError(
            f"prompt_encoder returned {got} for {len(unique)} prompts; "
            f"it must return a finite tensor ({len(unique)}, p)"
        )
    return unit_rows(rows.detach().float()[[unique.index(text) for text in texts]])
