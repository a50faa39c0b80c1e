"""Convert boxes, masks and maps to cells of a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_SLACK = 1e-6


def box_cells(box: Sequence[float], height: int, width: int) -> Tensor:
    """The cells of a grid that lie in a box: (1, height, width) bool.

    The edges are rounded to the nearest between cells; where nothing would be left, the row or
    column with the middle of the box is inside.

    Args:
        box: left, top, right, bottom, as shares of width and height.
        height, width: of the grid.

    Example:
        >>> box_cells((0.5, 0.0, 1.0, 0.5), 2, 4).int()
        tensor([[[0, 0, 1, 1],
                 [0, 0, 0, 0]]], dtype=torch.int32)
    """
    left, top, right, bottom = box
    rows, columns = _between(top, bottom, height), _between(left, right, width)
    cells = torch.zeros(1, height, width, dtype=torch.bool)
    cells[:, rows, columns] = True
    return cells


def _between(low: float, high: float, cells: int) -> slice:
    first, last = math.floor(low * cells + 0.5), math.floor(high * cells + 0.5)
    if first == last:
        first = min(int((low + high) / 2 * cells), cells - 1)
        last = first + 1
    return slice(first, last)


def mask_cells(pixels: Tensor, height: int, width: int) -> Tensor:
    """The cells of a grid of which at least half is inside: (B, height, width) bool, from pixels
    (B, h, w) bool.

    Where that is no cell of an image with something inside, it is those of which the largest share
    is.

    Example:
        >>> pixels = torch.tensor([[[1, 1, 1, 0], [1, 0, 0, 0]]], dtype=torch.bool)
        >>> mask_cells(pixels, 1, 2)
        tensor([[[ True, False]]])
    """
    share = _overlap(pixels.shape[1], height) @ pixels.double() @ _overlap(pixels.shape[2], width).T
    most = share.amax(dim=(1, 2), keepdim=True).clamp_max(0.5)
    return (share >= most - _SLACK) & (most > 0)


def _overlap(pixels: int, cells: int) -> Tensor:
    """The share of each cell that each pixel covers, along one side: (cells, pixels)."""
    edges, marks = (
        torch.arange(cells + 1).double() / cells,
        torch.arange(pixels + 1).double() / pixels,
    )
    low = torch.maximum(edges[:-1, None], marks[None, :-1])
    high = torch.minimum(edges[1:, None], marks[None, 1:])
    return (high - low).clamp_min(0) * cells


def separated(maps: Tensor) -> Tensor:
    """The cells where a map is high: (…, height, width) bool, from maps (…, height, width).

    Each map is cut in two where the groups differ most for their size, `share · (1 - share) · (mean
    inside - mean outside)²`. That needs no threshold to be chosen, and does not change where the
    map is scaled or shifted, as attention is from one step to the next. A map that is the same
    everywhere, but for rounding, is high everywhere.

    Source: Otsu 1979 (A threshold selection method from gray-level histograms), on the values
    themselves in place of a histogram.

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
    gain = gain.masked_fill(
        ordered[..., :-1] == ordered[..., 1:], -1
    )  # no cut runs between equal values
    flatness = (ordered[..., :1] - ordered[..., -1:]) <= _SLACK * flat.abs().amax(-1, keepdim=True)
    everything = torch.where(flatness, torch.inf, -0.5)
    best = torch.cat([gain, everything], dim=-1).argmax(-1, keepdim=True)
    return (flat >= ordered.gather(-1, best)).unflatten(-1, maps.shape[-2:])
