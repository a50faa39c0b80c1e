"""Measure a radius for `radius="auto"` on the protected set and on unguided images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unalike.errors import OptionError, named
from unalike.kernels import power_of_two
from unalike.shields.vectors import Vectors

COPY = 0.5
"""Something is a copy of its nearest when that is nearer than this share of the mean distance of
the nearest fifty.
"""
NEIGHBOURS = 50
SAMPLED = 2000
_SHARE = {"protected": 0.5, "generated": 1.0}
_BLOCK_VALUES = 1 << 24
_FAR = 1e15  # times the size of the queries: all that is further is equally far


@dataclass(frozen=True)
class Calibration:
    """A measured radius.

    Attributes:
        radius: of the balls.
        explanation: what it was found from, ready for JSON: `quantile`; `copy_distance` where that
            was known; then for "protected" and,
            where some were drawn, "generated": `measured` (how many), `copies` (how many of them
            are copies), `distance` (the quantile of the others, None where all are copies),
            `copies_inside` and `others_inside` (the shares nearer than the radius, None where they
            are of nothing).
    """

    radius: float
    explanation: dict[str, Any]


def automatic_radius(
    protected: Tensor,
    generated: Tensor | None = None,
    quantile: float = 0.05,
    copy_distance: float | None = None,
) -> Calibration:
    """Half of a low quantile of the distances between protected images, copies left out.

    At most the same quantile of the distances of unguided images to the set. For features by which
    copies are told from others at a known distance it is that distance, and what is measured says
    how often it is wrong here.

    With half of that distance the balls of images that are unlike do not meet, and with no more
    than generations have that are no copies those stay as they are. An image at `d_1` from its
    nearest is a copy of it when `d_1 < 0.5 · mean(d_1 … d_50)`, over its nearest fifty. Where all
    are copies of something the radius is the largest distance of one.

    Source of the criterion: Carlini et al. 2023, "Extracting Training Data from Diffusion Models"
    (arXiv:2301.13188), with its constants. The choice of the radius is this package's.

    Args:
        protected: (n, 2) for protected images `d_1` and the mean over the nearest fifty, as
            `protected_distances` gives them; empty where there is but one.
        generated: (m, 2) the same for unguided generations, as `nearest_distances` gives them; None
            without any.
        quantile: between 0 and 1; larger makes larger balls.
        copy_distance: below which two images are copies in this space; None where that is not
            known.

    Raises:
        OptionError: for values that are no distances, and where nothing is left to measure.

    Example:
        >>> d = torch.tensor([[1.0, 9.0], [4.0, 5.0], [6.0, 7.0]])
        >>> found = automatic_radius(torch.tensor([[12.0, 13.0]]), d, quantile=0.5)
        >>> found.radius, found.explanation["generated"]["copies"]
        (5.0, 1)
    """
    if not 0 < quantile < 1:
        raise OptionError(
            f"quantile is {quantile}; it must be above 0 and below 1, as in quantile=0.05"
        )
    sets = {"protected": protected.double()} | (
        {} if generated is None else {"generated": generated.double()}
    )
    for name, d in sets.items():
        if (
            d.ndim != 2
            or d.shape[1] != 2
            or not torch.isfinite(d).all()
            or (d < 0).any()
            or (d[:, 0] > d[:, 1]).any()
        ):
            raise OptionError(
                f"{name} has shape {tuple(d.shape)}; allowed: (n, 2), the nearest distance and the "
                "mean, none below 0"
            )
    copies = {name: d[:, 0] < COPY * d[:, 1] for name, d in sets.items()}
    unlike = {name: _quantile(d[~copies[name], 0], quantile) for name, d in sets.items()}
    largest = max((d[:, 0].max().item() for d in sets.values() if len(d)), default=0.0)
    found = [value * _SHARE[name] for name, value in unlike.items() if value] or (
        [largest] if largest else []
    )
    found = found if copy_distance is None else [copy_distance]
    if not found:
        raise OptionError(
            named(
                "{radius} is 'auto', and there is nothing to measure it on: it takes at least two "
                "different protected images, or unguided generations; give a number, as in "
                "{radius=20}"
            )
        )
    radius = min(found)
    explanation: dict[str, Any] = {"quantile": quantile}
    if copy_distance is not None:
        explanation["copy_distance"] = copy_distance
    for name, d in sets.items():
        inside = d[:, 0] < radius
        explanation[name] = {
            "measured": len(d),
            "copies": int(copies[name].sum()),
            "distance": unlike[name],
            "copies_inside": _share(inside[copies[name]]),
            "others_inside": _share(inside[~copies[name]]),
        }
    return Calibration(radius, explanation)


def protected_distances(
    vectors: Vectors, *, seed: int = 0, tell: Callable[[float], None] = lambda share: None
) -> Tensor:
    """`nearest_distances` of protected vectors among the others: of all, or of 2,000 drawn.

    Args:
        vectors: n of d numbers; with fewer than two of them the result is empty.
        seed: of the sample.
        tell: called with the share that is done.

    Cost: O(min(n, 2000) n d), in float32 products.

    Example:
        >>> from unalike.shields.vectors import Resident
        >>> protected_distances(Resident(np.float32([[0], [1], [5]])))[:, 0]
        tensor([1., 1., 4.], dtype=torch.float64)
    """
    n = vectors.count
    if n < 2:
        return torch.empty(0, 2, dtype=torch.float64)
    own = (
        np.arange(n)
        if n <= SAMPLED
        else np.sort(np.random.default_rng(seed).choice(n, SAMPLED, replace=False))
    )
    return nearest_distances(vectors.rows(own).astype(np.float64), vectors, own=own, tell=tell)


def nearest_distances(
    x: np.ndarray,
    vectors: Vectors,
    *,
    own: np.ndarray | None = None,
    tell: Callable[[float], None] = lambda share: None,
) -> Tensor:
    """Distance to the nearest vector and mean over the nearest fifty, (m, 2) float64, of x (m, d).

    Over as many as there are, where there are fewer.

    Float32 products find those fifty, which are measured in float64: good for statistics, not for a
    guarantee.

    Args:
        x: (m, d) float64.
        vectors: n of d numbers.
        own: (m,) a row for each of x that does not count, since it is itself.
        tell: called with the share that is done.
    """
    size = max(64, _BLOCK_VALUES // vectors.dimension)
    # The centre is one that float32 holds, and a median, which an outlier does not move.
    centre = np.median(x[:64], axis=0).astype(np.float32).astype(np.float64)
    queries = torch.from_numpy(x - centre)
    scale = power_of_two(queries)
    queries = (queries / scale).float()
    squared = torch.full((len(x), 0), torch.inf)
    rows = torch.empty((len(x), 0), dtype=torch.int64)
    for first, block in vectors.blocks(size):
        z = torch.from_numpy(block.astype(np.float64) - centre) / scale
        z = z.clamp_(-_FAR, _FAR).float()
        d = (z.square().sum(1) - 2 * queries @ z.T) + queries.square().sum(1, keepdim=True)
        if own is not None:
            here = np.flatnonzero((own >= first) & (own < first + len(block)))
            d[here, own[here] - first] = torch.inf
        numbers = torch.arange(first, first + len(block)).expand(len(x), -1)
        squared, rows = torch.cat([squared, d], dim=1), torch.cat([rows, numbers], dim=1)
        squared, order = squared.topk(min(NEIGHBOURS, squared.shape[1]), largest=False)
        rows = rows.gather(1, order)
        tell((first + len(block)) / vectors.count)
    return _measured(x, vectors, rows, ~torch.isinf(squared))


def _measured(x: np.ndarray, vectors: Vectors, rows: Tensor, valid: Tensor) -> Tensor:
    """Smallest and mean distance of each x (m, d) to its valid candidates (m, k), in float64."""
    found = torch.full(rows.shape, torch.nan, dtype=torch.float64)
    for k in range(rows.shape[1]):
        for part in np.array_split(np.arange(len(x)), max(1, x.size // _BLOCK_VALUES)):
            apart = vectors.rows(rows[part, k].numpy()).astype(np.float64) - x[part]
            found[part, k] = torch.from_numpy(np.linalg.norm(apart, axis=1))
    found[~valid] = torch.nan
    return torch.stack([found.nan_to_num(torch.inf).amin(dim=1), found.nanmean(dim=1)], dim=1)


def _quantile(values: Tensor, quantile: float) -> float | None:
    return float(np.quantile(values.numpy(), quantile)) if len(values) else None


def _share(flags: Tensor) -> float | None:
    return flags.double().mean().item() if len(flags) else None
