"""Boxes, masks and maps as cells of a grid: the places of latents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unalike.errors import OptionError

_HALF_OF_8_BITS = 127
_SLACK = 1e-6


def box_cells(box: Sequence[float], height: int, width: int) -> Tensor:
    """Which cells of a grid lie in a box: (1, height, width) bool.

    The edges are rounded to the nearest between cells; where nothing would be left, the row or column with the middle of the box is inside.

    Args:
        box: left, top, right, bottom, as shares of width and height.
        height, width: of the grid.

    Raises:
        OptionError: for anything that is not a box within the image.

    Example:
        >>> box_cells((0.5, 0.0, 1.0, 0.5), 2, 4).int()
        tensor([[[0, 0, 1, 1],
                 [0, 0, 0, 0]]], dtype=torch.int32)
    """
    left, top, right, bottom = require_box(box)
    rows, columns = _between(top, bottom, height), _between(left, right, width)
    cells = torch.zeros(1, height, width, dtype=torch.bool)
    cells[:, rows, columns] = True
    return cells


def require_box(box: Sequence[float]) -> tuple[float, float, float, float]:
    """The four numbers of a box.

    Raises:
        OptionError: for anything that is not a box within the image.
    """
    numbers = len(box) == 4 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in box)
    if not numbers or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
        raise OptionError(
            f"region is {tuple(box)!r}; a box is (left, top, right, bottom), shares of width and height from 0 to 1, with left below right "
            "and top below bottom, as in region=(0.25, 0.0, 0.75, 0.5)"
        )
    return box[0], box[1], box[2], box[3]


def _between(low: float, high: float, cells: int) -> slice:
    first, last = math.floor(low * cells + 0.5), math.floor(high * cells + 0.5)
    if first == last:
        first = min(int((low + high) / 2 * cells), cells - 1)
        last = first + 1
    return slice(first, last)


def mask_pixels(mask: Any) -> Tensor:
    """What a mask says of each of its pixels: (1 or B, h, w) bool on the CPU.

    Args:
        mask: a PIL image, or a tensor (h, w) or (B, h, w) of bool or numbers; above one half is inside, of 8-bit values 128 and above.

    Raises:
        OptionError: for a tensor of other dimensions or not finite, and for a mask with nothing inside.
    """
    pixels = mask if isinstance(mask, Tensor) else _grey(mask)
    if pixels.ndim not in (2, 3) or pixels.numel() == 0 or pixels.is_complex():
        raise OptionError(
            f"region is a mask of shape {tuple(pixels.shape)}; allowed: (height, width), or (images, height, width) with a mask for each image"
        )
    if not torch.isfinite(pixels).all():
        raise OptionError(
            "region is a mask with NaN or infinite values; allowed: bool, or numbers of which those above one half are inside"
        )
    inside = pixels.cpu() > (_HALF_OF_8_BITS if pixels.dtype == torch.uint8 else 0.5)
    if not inside.any():
        what = "128 or more of 255" if pixels.dtype == torch.uint8 else "above one half"
        raise OptionError(
            f"region is a mask with nothing inside: its largest value is {pixels.max().item():g}, and inside is what is {what}; "
            "give mask.bool() where everything but 0 is meant"
        )
    return inside if inside.ndim == 3 else inside[None]


def _grey(image: Any) -> Tensor:
    grey = image.convert("L")
    return torch.frombuffer(bytearray(grey.tobytes()), dtype=torch.uint8).reshape(grey.height, grey.width)


def mask_cells(pixels: Tensor, height: int, width: int) -> Tensor:
    """The cells of a grid of which at least half is inside: (B, height, width) bool, from pixels (B, h, w) bool.

    Where that is no cell of an image with something inside, it is those of which the largest share is.

    Example:
        >>> pixels = torch.tensor([[[1, 1, 1, 0], [1, 0, 0, 0]]], dtype=torch.bool)
        >>> mask_cells(pixels, 1, 2)
        tensor([[[ True, False]]])
    """
    share = _overlap(pixels.shape[1], height) @ pixels.double() @ _overlap(pixels.shape[2], width).T
    most = share.amax(dim=(1, 2), keepdim=True).clamp_max(0.5)
    return (share >= most - _SLACK) & (most > 0)


def _overlap(pixels: int, cells: int) -> Tensor:
    """Which share of each cell each pixel is, along one side: (cells, pixels), float64."""
    edges, marks = torch.arange(cells + 1).double() / cells, torch.arange(pixels + 1).double() / pixels
    low = torch.maximum(edges[:-1, None], marks[None, :-1])
    high = torch.minimum(edges[1:, None], marks[None, 1:])
    return (high - low).clamp_min(0) * cells


def separated(maps: Tensor) -> Tensor:
    """The cells where a map is high: (…, height, width) bool, from maps (…, height, width).

    Each map is cut in two where the groups differ most for their size, `share · (1 - share) · (mean inside - mean outside)²`. That needs
    no threshold to be chosen, and does not change where the map is scaled or shifted, as attention is from one step to the next.
    A map that is the same everywhere, but for rounding, is high everywhere.

    Source: Otsu 1979 (A threshold selection method from gray-level histograms), on the values themselves in place of a histogram.

    Cost: the cells are sorted.

    Example:
        >>> separated(torch.tensor([[0.1, 0.2, 0.9, 1.0]]))
        tensor([[False, False,  True,  True]])
    """
    flat = maps.flatten(-2).double()
    ordered = flat.sort(dim=-1, descending=True).values
    count = flat.shape[-1]
    inside = torch.arange(1, count + 1, device=flat.device)
    sums, total = ordered.cumsum(-1), ordered.sum(-1, keepdim=True)
    means = sums / inside
    others = (total - sums)[..., :-1] / (count - inside[:-1])
    gain = inside[:-1] * (count - inside[:-1]) * (means[..., :-1] - others) ** 2
    gain = gain.masked_fill(ordered[..., :-1] == ordered[..., 1:], -1)  # no cut runs between equal values
    flatness = (ordered[..., :1] - ordered[..., -1:]) <= _SLACK * flat.abs().amax(-1, keepdim=True)
    everything = torch.where(flatness, torch.inf, -0.5)
    best = torch.cat([gain, everything], dim=-1).argmax(-1, keepdim=True)
    return (flat >= ordered.gather(-1, best)).unflatten(-1, maps.shape[-2:])
