"""Regions: the part of an image that a method acts on, as a box, a mask, or words of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from unalike.errors import Option, OptionError, named
from unalike.guidance.context import Context
from unalike.images import read_image


class PILImage(Protocol):
    """The part of a PIL image's interface that is used."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        ...

    def convert(self, mode: str, /) -> Any:
        """The image with pixels of another kind."""
        ...

    def tobytes(self) -> bytes:
        """The pixels."""
        ...


Region: TypeAlias = str | Sequence[str] | Sequence[float] | Tensor | PILImage
"""A region as users give it. Methods keep it as a str, a tuple, or a bool mask (h, w) or (B, h, w).
"""


def checked(region: Any, owner: str) -> str | tuple[str, ...] | tuple[float, ...] | Tensor | None:
    """A region in the form that methods keep: lists as tuples, masks as bool tensors.

    Args:
        region: None for everywhere; a word or phrase of the prompt, or a list of some; a box
            `(left, top, right, bottom)` of four numbers in [0, 1], shares of width and height; or a
            mask, a PIL image or a tensor (h, w) or (B, h, w). Of a PIL image the luminance counts,
            inside from 128; of floats what is above 0.5 is inside; whole numbers are 8-bit ones
            where any is above 1.
        owner: the method, for messages.

    Raises:
        OptionError: for anything else, an empty word, a box that is empty or reaches beyond the
            image, and a mask of another number of dimensions, without values, or with NaN or
            infinity.

    Example:
        >>> checked(["cat", "hat"], "SPELL")
        ('cat', 'hat')
        >>> checked(torch.tensor([[0.2, 0.7]]), "SPELL")
        tensor([[False,  True]])
        >>> checked((0.5, 0, 0.5, 1), "SPELL")
        Traceback (most recent call last):
        ...
        unalike.errors.OptionError: SPELL: region is (0.5, 0, 0.5, 1); allowed of a box: 0 <= ...
    """
    if region is None:
        return None
    if isinstance(region, str):
        return _words((region,), owner)[0]
    if isinstance(region, Tensor):
        return _mask(region, owner)
    if all(hasattr(region, name) for name in ("convert", "tobytes", "size")):
        return _luminance(region, owner) >= 128
    if isinstance(region, list | tuple) and len(region) > 0:
        if all(isinstance(part, str) for part in region):
            return _words(region, owner)
        if len(region) == 4 and all(
            isinstance(side, int | float) and not isinstance(side, bool) for side in region
        ):
            return _box(region, owner)
    raise OptionError(
        f"{owner}: region is {shown(region)}; allowed: a box (left, top, right, bottom), a mask (a "
        "PIL image or a tensor (h, w) or "
        f"(B, h, w)), words of the prompt, or None for everywhere, as in {owner}(region=(0.0, 0.0, "
        "0.5, 1.0))"
    )


def inside(region: Region | None, x0: Tensor, context: Context, owner: str) -> Tensor | None:
    """The mask (B or 1, d) of a region over flattened predictions x0 (B, …); None for everywhere.

    Raises:
        OptionError: where the host cannot locate regions.
    """
    if region is None:
        return None
    if context.masks is None:
        raise OptionError(
            named(
                "{} is {}, and there is nothing here that says where in the latents that is; "
                "sample with guide(pipe, …), pass masks= to Run, or set {}",
                Option("region", owner=owner),
                shown(region),
                Option("region", None, owner),
            )
        )
    mask = context.masks(region).to(x0.device, torch.bool)
    return mask.expand(len(mask), *x0.shape[1:]).flatten(1)


def restricted(x: Tensor, mask: Tensor | None) -> Tensor:
    """Rows (B, d) with exact zeros outside of the mask (B or 1, d); themselves for None."""
    return x if mask is None else torch.where(mask, x, 0)


def shown(region: Any) -> str:
    """A region in a few words, for messages and records.

    Example:
        >>> shown("cat"), shown(torch.ones(8, 8))
        ("'cat'", 'a mask of shape (8, 8)')
    """
    if isinstance(region, Tensor):
        return f"a mask of shape {tuple(region.shape)}"
    return (
        repr(region)
        if region is None or isinstance(region, str | int | float | list | tuple)
        else f"a {type(region).__name__}"
    )


def _words(words: Sequence[str], owner: str) -> tuple[str, ...]:
    if any(not word.strip() for word in words):
        raise OptionError(
            named(
                "{} has an empty word; allowed: words of the prompt, as in {}",
                Option("region", owner=owner),
                Option("region", "cat", owner),
            )
        )
    return tuple(words)


def _box(box: Sequence[float], owner: str) -> tuple[float, ...]:
    left, top, right, bottom = box
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise OptionError(
            named(
                "{} is {}; allowed of a box: 0 <= left < right <= 1 and 0 <= top < bottom <= 1, as "
                "in {} for the left half",
                Option("region", owner=owner),
                tuple(box),
                Option("region", (0.0, 0.0, 0.5, 1.0), owner),
            )
        )
    return tuple(float(side) for side in box)


def _mask(mask: Tensor, owner: str) -> Tensor:
    if mask.ndim not in (2, 3) or mask.numel() == 0 or mask.is_complex():
        raise OptionError(
            f"{owner}: region is {shown(mask)} and {mask.dtype}; allowed of a mask: (h, w) or (B, "
            "h, w) real numbers, at least one, as in "
            f"{owner}(region=torch.ones(64, 64))"
        )
    if not torch.isfinite(mask).all():
        raise OptionError(
            f"{owner}: region is {shown(mask)} with NaN or infinite values; allowed: bool or "
            "finite numbers"
        )
    mask = mask.detach()
    if mask.dtype == torch.bool:
        return mask.clone()
    return mask > 0.5 if mask.is_floating_point() or mask.max() <= 1 else mask >= 128


def _luminance(image: Any, owner: str) -> Tensor:
    """The luminance (h, w) of a PIL image, 0 to 255, transparent parts black."""
    try:
        image = read_image(image, ground="black")
    except ValueError as error:
        raise OptionError(f"{owner}: region cannot be read as a mask: {error}") from error
    width, height = image.size
    if width * height == 0:
        raise OptionError(
            f"{owner}: region is an image of {width} × {height} pixels; allowed of a mask: at "
            "least one pixel"
        )
    pixels = bytearray(image.convert("L").tobytes())
    return torch.frombuffer(pixels, dtype=torch.uint8).view(height, width)
