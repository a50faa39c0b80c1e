"""`radius="auto"`: a radius measured on the protected set itself and on what the model draws unguided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.shields.vectors import Vectors

COPY = 3
"""A generation is a copy when its second distance is more than so many times its first."""
SAMPLED = 2000
_REFINED = 8
_BLOCK_VALUES = 1 << 24


@dataclass(frozen=True)
class Calibration:
    """A measured radius.

    Attributes:
        radius: of the balls.
        explanation: what it was found from, ready for JSON: `quantile`; `protected` with `measured` (how many) and `distance` (their
            quantile); and `generated`, None where none were drawn, with `measured`, `copies` (how many), `distance` (the quantile of those
            that are no copies), `copies_inside` and `others_inside` (the shares nearer than the radius), each None where it is of nothing.
    """

    radius: float
    explanation: dict[str, Any]


def automatic_radius(protected_nearest: Tensor, generated: Tensor | None = None, quantile: float = 0.05) -> Calibration:
    """The smaller of a low quantile of how far protected vectors are from each other, and one of how far generations are that copy none.

    Balls of it leave most protected images distinguishable, and most of what the model makes by itself where it is. A generation with
    distances `d_1 <= d_2` to its nearest two protected vectors is a copy when `d_1 < d_2 / 3`.

    Source of the criterion of copies: Yoon et al. 2023, "Diffusion Probabilistic Models Generalize when They Fail to Memorize". The choice
    of the radius is this package's.

    Args:
        protected_nearest: (n,) distance of each protected vector to the nearest other; empty where there is but one.
        generated: (m, 2) `d_1` and `d_2` of unguided generations; `d_2` is infinite where one vector is protected. None without any.
        quantile: between 0 and 1; larger makes larger balls.

    Raises:
        OptionError: for values that are no distances, and where nothing is left to measure.

    Example:
        >>> d = torch.tensor([[1.0, 9.0], [4.0, 5.0], [6.0, 7.0]])
        >>> found = automatic_radius(torch.full((9,), 8.0), d, quantile=0.5)
        >>> found.radius, found.explanation["generated"]["copies"]
        (5.0, 1)
    """
    if not 0 < quantile < 1:
        raise OptionError(f"quantile is {quantile}; it must be above 0 and below 1, as in quantile=0.05")
    others = protected_nearest.double()
    if not torch.isfinite(others).all() or (others <= 0).any():
        raise OptionError("protected_nearest must be finite distances above 0, one for each protected vector to the nearest other")
    candidates = {"protected": _quantile(others, quantile)}
    copies = torch.empty(0, dtype=torch.bool)
    if generated is not None:
        d = generated.double()
        if d.ndim != 2 or d.shape[1] != 2 or torch.isnan(d).any() or (d < 0).any() or (d[:, 0] > d[:, 1]).any():
            raise OptionError(f"generated has shape {tuple(d.shape)}; allowed: (m, 2), the smaller distance first, none below 0")
        copies = COPY * d[:, 0] < d[:, 1]
        candidates["generated"] = _quantile(d[~copies, 0], quantile)
    found = [value for value in candidates.values() if value]
    if not found:
        raise OptionError(
            "radius is 'auto', and there is nothing to measure it on: it takes at least two different protected images, or unguided "
            "generations that are no copies; give a number, as in --radius 20"
        )
    radius = min(found)
    explanation: dict[str, Any] = {
        "quantile": quantile,
        "protected": {"measured": len(others), "distance": candidates["protected"]},
        "generated": None,
    }
    if generated is not None:
        inside = generated[:, 0].double() < radius
        explanation["generated"] = {
            "measured": len(generated),
            "copies": int(copies.sum()),
            "distance": candidates["generated"],
            "copies_inside": _share(inside[copies]),
            "others_inside": _share(inside[~copies]),
        }
    return Calibration(radius, explanation)


def protected_distances(vectors: Vectors, *, seed: int = 0, tell: Callable[[float], None] = lambda share: None) -> Tensor:
    """The distance (m,) float64 of protected vectors to the nearest other: of all, or of 2,000 drawn from this seed, against all.

    Args:
        vectors: n of d numbers; with fewer than two of them the result is empty.
        seed: of the sample.
        tell: called with the share that is done.

    Cost: O(min(n, 2000) n d), in float32 products.

    Example:
        >>> from unalike.shields.vectors import Resident
        >>> protected_distances(Resident(np.float32([[0], [1], [5]])))
        tensor([1., 1., 4.], dtype=torch.float64)
    """
    n = vectors.count
    if n < 2:
        return torch.empty(0, dtype=torch.float64)
    own = np.arange(n) if n <= SAMPLED else np.sort(np.random.default_rng(seed).choice(n, SAMPLED, replace=False))
    return nearest_distances(vectors.rows(own).astype(np.float64), vectors, own=own, tell=tell)[:, 0]


def nearest_distances(
    x: np.ndarray, vectors: Vectors, *, own: np.ndarray | None = None, tell: Callable[[float], None] = lambda share: None
) -> Tensor:
    """The distances (m, 2) float64 of the vectors x (m, d) to their nearest two; infinity where there are not so many.

    Float32 products find the nearest eight, which are measured in float64: good for statistics, not for a guarantee.

    Args:
        x: (m, d) float64.
        vectors: n of d numbers.
        own: (m,) a row for each of x that does not count, since it is itself.
        tell: called with the share that is done.
    """
    size = max(64, _BLOCK_VALUES // vectors.dimension)
    centre = x.mean(axis=0)
    queries = torch.from_numpy((x - centre).astype(np.float32))
    squared = torch.full((len(x), 0), torch.inf)
    rows = torch.empty((len(x), 0), dtype=torch.int64)
    for first, block in vectors.blocks(size):
        z = torch.from_numpy(block.astype(np.float32) - centre.astype(np.float32))
        d = (z.square().sum(1) - 2 * queries @ z.T) + queries.square().sum(1, keepdim=True)
        if own is not None:
            here = np.flatnonzero((own >= first) & (own < first + len(block)))
            d[here, own[here] - first] = torch.inf
        numbers = torch.arange(first, first + len(block)).expand(len(x), -1)
        squared, rows = torch.cat([squared, d], dim=1), torch.cat([rows, numbers], dim=1)
        squared, order = squared.topk(min(_REFINED, squared.shape[1]), largest=False)
        rows = rows.gather(1, order)
        tell((first + len(block)) / vectors.count)
    return _measured(x, vectors, rows, ~torch.isinf(squared))


def _measured(x: np.ndarray, vectors: Vectors, rows: Tensor, valid: Tensor) -> Tensor:
    """The two smallest of the distances of each x (m, d) to the candidates (m, k) that are valid, by differences in float64."""
    found = torch.full((len(x), max(2, rows.shape[1])), torch.inf, dtype=torch.float64)
    for k in range(rows.shape[1]):
        for part in np.array_split(np.arange(len(x)), max(1, x.size // _BLOCK_VALUES)):
            apart = vectors.rows(rows[part, k].numpy()).astype(np.float64) - x[part]
            found[part, k] = torch.from_numpy(np.linalg.norm(apart, axis=1))
    found[:, : rows.shape[1]][~valid] = torch.inf
    return found.sort(dim=1).values[:, :2]


def _quantile(values: Tensor, quantile: float) -> float | None:
    return float(np.quantile(values.numpy(), quantile)) if len(values) else None


def _share(flags: Tensor) -> float | None:
    return flags.double().mean().item() if len(flags) else None
