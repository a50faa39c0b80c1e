"""Bound distances to many vectors from below, from a tenth of their bytes.

An exact search keeps these bounds in memory and reads in full only what they leave open.

A vector that a bound places beyond the radius is beyond it, whatever was rounded on the way: each
rounding error is measured, or bounded by the arithmetic that made it, and taken off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from unalike.errors import StoreError
from unalike.shields.contraction import Contraction
from unalike.shields.vectors import Vectors

_LEADING = 64
_MOST_COORDINATES = 512
_BASIS_VALUES = 1 << 22  # 32 MiB to read for each step's predictions
_SAMPLED_VALUES = 1 << 25
_QUERIES, _MEASURED = 48, 2048
_BLOCK_VALUES = 1 << 24
_UNIT = 2.0**-24  # of float32 arithmetic
_UNSCALED = 1e-3, 1e4  # norms that float16 and float32 hold well as they are
_SOUND = 1e-9, 1e9  # norms whose float32 squares are normal numbers, with room for the query's
_FAR = 2.0**30
SECOND_TIERS = ("coordinates", "signs")


@dataclass(frozen=True)
class Query:
    """A vector prepared for the bounds.

    `phi` (size,), the further coordinates (k - leading,), and the vector less the mean (d,),
    scaled; all float64.
    """

    phi: np.ndarray
    further: np.ndarray
    centred: np.ndarray

    @cached_property
    def norm(self) -> float:
        """Norm of the centred and scaled vector."""
        return float(np.linalg.norm(self.centred))


@dataclass(frozen=True)
class Index:
    """What stays in memory of n vectors: `φ` of each, and a second, tighter tier.

    The second tier is the further coordinates one by one, in float16, or, where the spectrum is
    flat and coordinates say little, the sign of every component: with `u` the unit vector of the
    signs of `z - mean`, `||x - z||² >= (<x, u> - <z, u>)² + (||x - <x, u> u|| - ||z - <z, u>
    u||)²`.

    Attributes:
        contraction: the map `φ`.
        phi: (n, size + 1) float32, `[-2 φ(z), ||φ(z)||²]`, so that one matrix product gives `||φ(x)
            - φ(z)||² - ||φ(x)||²`.
        second: "coordinates" or "signs".
        further: (n, k - leading) float16 for "coordinates", (n, ⌈d/8⌉) uint8 for "signs".
        along: (n, 2) float32, `<z, u>` and `||z - <z, u> u||`, for "signs"; (n, 0) otherwise.
        errors: largest norm of the rounding errors of a row of `phi` and of `further`.
        measured: share of vectors that each choice of the second tier excluded when it was chosen.
    """

    contraction: Contraction
    phi: np.ndarray
    second: str
    further: np.ndarray
    along: np.ndarray
    errors: tuple[float, float]
    measured: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.phi)

    @property
    def resident_bytes(self) -> int:
        """Bytes in memory, including the map."""
        c = self.contraction
        return sum(a.nbytes for a in (c.mean, c.basis, self.phi, self.further, self.along))

    def queries(self, x: np.ndarray) -> list[Query]:
        """Prepare the rows (B, d) of `x`."""
        v = self.contraction.centred(x)
        y = v @ self.contraction.basis.T
        return [
            Query(*each)
            for each in zip(
                self.contraction.joined(y, self.contraction.rest_of(v, y)),
                y[:, self.contraction.leading :],
                v,
                strict=True,
            )
        ]

    def first(self, queries: list[Query], rows: slice) -> np.ndarray:
        """Values (m, B) float32 for `first_limit`, of these rows (m,).

        `||φ(x) - φ(z)||² - ||φ(x)||²` for each query `x` and row `z`.
        """
        phi = [np.zeros_like(q.phi) if self.is_far(q) else q.phi for q in queries]
        right = np.column_stack([np.stack(phi), np.ones(len(queries))]).astype(np.float32)
        return self.phi[rows] @ right.T

    def first_limit(self, query: Query, reach: float) -> float:
        """The value of `first` from which on a row is at least `reach` away."""
        if self.is_far(query):
            return -np.inf if self._far_lower(query) >= reach else np.inf
        reach = reach * self.contraction.scale
        squared = ((reach + self._off(query)) * self.contraction.stretch + self.errors[0]) ** 2 * (
            1 + 1e-9
        )
        return (
            squared
            - float(query.phi @ query.phi)
            + self._rounding(query)
            + np.finfo(np.float64).tiny
        )

    def first_lower(self, query: Query, values: np.ndarray) -> np.ndarray:
        """Lower bounds (m,) float64 of the distances, from values (m,) of `first`."""
        if self.is_far(query):
            return np.full(len(values), self._far_lower(query))
        squared = values.astype(np.float64) + float(query.phi @ query.phi) - self._rounding(query)
        return (
            (
                (np.sqrt(squared.clip(0)) - self.errors[0]) / self.contraction.stretch
                - self._off(query)
            )
            * (1 - 1e-9)
        ).clip(0) / self.contraction.scale

    def lower(self, query: Query, rows: np.ndarray, reach: float) -> np.ndarray:
        """Lower bounds (m,) float64 of the distances to these rows (m,), by both tiers.

        Bounds at `reach` or beyond may be less tight than they could be.

        Of the further coordinates those of the first band are looked at first, and the others where
        that leaves a row nearer than `reach`.
        """
        if self.is_far(query):
            return np.full(len(rows), self._far_lower(query))
        return self._lower(query, rows, reach * self.contraction.scale) / self.contraction.scale

    def _lower(self, query: Query, rows: np.ndarray, reach: float) -> np.ndarray:
        """`lower` in units of the contraction's scale."""
        chosen = torch.from_numpy(rows)
        squares = (
            torch.from_numpy(self.phi).index_select(0, chosen)[:, :-1].double() / 2
            + torch.from_numpy(query.phi)
        ).square_()
        total = squares.sum(dim=1)
        bound = self._loosened(total.sqrt() - self.errors[0], query)
        if self.second == "signs":
            return np.maximum(
                bound, ((self._by_signs(query, rows) - self._off(query)) * (1 - 1e-9)).clip(0)
            )
        lead, first = self.contraction.leading, self.contraction.edges[:2]
        for width, bands in (
            (first[-1] - lead, 1),
            (self.further.shape[1], len(self.contraction.edges) - 1),
        ):
            near = np.flatnonzero(bound < reach)
            if width and len(near):
                # The coordinates take the place of the norms of their bands.
                left = torch.from_numpy(near)
                others = (
                    total[left] - squares[:, lead : lead + bands][left].sum(dim=1)
                ).clamp_min_(0).sqrt_() - self.errors[0]
                apart = self._further_apart(query, chosen[left], width)
                bound[near] = np.maximum(
                    bound[near],
                    self._loosened(torch.hypot(others.clamp_min(0), apart.clamp_min(0)), query),
                )
        return bound

    def _loosened(self, bound: Tensor, query: Query) -> np.ndarray:
        """Bounds on `φ` less the rounding of the basis and of float64 arithmetic."""
        return (
            ((bound / self.contraction.stretch - self._off(query)) * (1 - 1e-9))
            .clamp_min_(0)
            .numpy()
        )

    def _further_apart(self, query: Query, rows: Tensor, width: int) -> Tensor:
        """Lower bounds of the distances in the first further coordinates.

        The rounding of float32 arithmetic and of float16 storage is taken off.
        """
        apart = torch.from_numpy(self.further)[:, :width].index_select(
            0, rows
        ).float() - torch.from_numpy(query.further[:width].astype(np.float32))
        norm = apart.square_().sum(dim=1).double().sqrt_()
        return (
            norm * (1 - (width + 4) * _UNIT)
            - 2 * _UNIT * float(np.linalg.norm(query.further))
            - self.errors[1]
        )

    def _by_signs(self, query: Query, rows: np.ndarray) -> np.ndarray:
        d, norm = len(query.centred), query.norm
        bits = np.unpackbits(self.further[rows], axis=1, count=d).astype(
            np.float64
        )  # float32 would lose too much in `across`
        along = (2 * (bits @ query.centred) - query.centred.sum()) / d**0.5
        off = self._off(query)
        across = np.sqrt((norm**2 - along**2).clip(0))
        stored = self.along[rows].astype(np.float64)
        return (
            np.hypot(along - stored[:, 0], across - stored[:, 1])
            - self.errors[1]
            - np.sqrt(2 * norm * off)
        )

    @cached_property
    def sound(self) -> bool:
        """Whether float32 and float16 can hold what is stored, so that the bounds are proofs.

        False for vectors of a size that the scale does not suit, as earlier releases stored them.
        """
        low, high = _SOUND
        fits = low <= self._largest <= high and all(map(math.isfinite, self.errors))
        return fits or not self.phi.any()

    def is_far(self, query: Query) -> bool:
        """Whether a query is so far off that all rows are at one distance, up to a millionth.

        Float32 could not hold the products of such a query.
        """
        return query.norm > _FAR * (1 + self._largest)

    def _far_lower(self, query: Query) -> float:
        return query.norm * (1 - 1e-6) / self.contraction.scale

    @cached_property
    def _largest(self) -> float:
        """Largest `||φ(z)||`."""
        return float(self.phi[:, -1].max(initial=0.0)) ** 0.5

    def _rounding(self, query: Query) -> float:
        """More than the float32 arithmetic of `first` can change a value."""
        return (
            4
            * (self.contraction.size + 4)
            * _UNIT
            * (float(np.linalg.norm(query.phi)) + self._largest) ** 2
        )

    def _off(self, query: Query) -> float:
        """More than the float64 arithmetic behind `φ` can change a bound."""
        relative, norm = 8 * len(query.centred) * 2.0**-53, query.norm
        return relative * (norm + self._largest) + relative**0.5 * norm

    def _fits(self) -> bool:
        """Whether the arrays have sizes and types that belong together."""
        c, n = self.contraction, len(self.phi)
        (k, d), signs = c.basis.shape, self.second == "signs"
        further = ((n, -(-d // 8)), np.uint8) if signs else ((n, k - c.leading), np.float16)
        expected = (
            (self.phi, (n, c.size + 1), np.float32),
            (self.further, *further),
            (self.along, (n, 2 if signs else 0), np.float32),
        )
        return (
            c.mean.shape == (d,)
            and 0 <= c.leading <= k
            and all(a.shape == shape and a.dtype == dtype for a, shape, dtype in expected)
        )

    def extended(self, vectors: Vectors) -> Index:
        """Index more vectors; the first `len(self)` of them are those of this index.

        The map stays as it is.
        """
        size = max(1, _BLOCK_VALUES // vectors.dimension)
        ahead = np.arange(len(self), vectors.count)
        parts = [
            self,
            *(
                _index(self.contraction, self.second, vectors.rows(rows))
                for rows in np.split(ahead, range(size, len(ahead), size))
            ),
        ]
        return replace(
            self,
            phi=np.concatenate([p.phi for p in parts]),
            further=np.concatenate([p.further for p in parts]),
            along=np.concatenate([p.along for p in parts]),
            errors=tuple(np.max([p.errors for p in parts], axis=0).tolist()),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Convert the index to tensors, for a file."""
        c = self.contraction
        arrays = {
            "mean": c.mean.astype(np.float32),
            "basis": c.basis.astype(np.float32),
            "phi": self.phi,
            "further": self.further,
            "along": self.along,
            "errors": np.array(self.errors),
            # Releases that know no scale refuse a layout of three numbers.
            "layout": np.array(
                [c.leading, SECOND_TIERS.index(self.second)]
                + ([] if c.scale == 1 else [math.frexp(c.scale)[1] - 1])
            ),
            "measured": np.array([self.measured.get(name, math.nan) for name in SECOND_TIERS]),
        }
        return {
            name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Index:
        """Restore the index that `tensors` converted.

        Raises:
            StoreError: where a tensor is missing or they do not fit each other.
        """
        try:
            a = {name: tensor.numpy() for name, tensor in tensors.items()}
            leading, second, *exponent = (int(v) for v in a["layout"])
            scale = 2.0 ** sum(exponent)
            contraction = Contraction.of(a["mean"], a["basis"], leading, scale)
            shares = zip(SECOND_TIERS, a["measured"].tolist(), strict=True)
            index = cls(
                contraction,
                phi=a["phi"],
                second=SECOND_TIERS[second],
                further=a["further"],
                along=a["along"],
                errors=(float(a["errors"][0]), float(a["errors"][1])),
                measured={name: share for name, share in shares if not math.isnan(share)},
            )
            fits = index._fits()
        except (KeyError, ValueError, IndexError, TypeError, OverflowError) as error:
            raise StoreError(
                f"the search index is damaged ({error}); use a backup, or build the protected set "
                "again"
            ) from error
        if not fits:
            raise StoreError(
                "the search index is damaged: its parts do not belong together; use a backup, or "
                "build the protected set again"
            )
        return index


def build(vectors: Vectors, radius: float, *, budget: float = 0.1, seed: int = 0) -> Index:
    """Build the index of a set of vectors, with the second tier that excludes more of them.

    The choice is measured on a sample: for points between the mean and sampled vectors, as
    predictions along a trajectory are, the share of the sampled vectors that the bounds place
    beyond `radius`.

    Args:
        vectors: n of d numbers, at least one.
        radius: what the search will be asked for, about.
        budget: what may stay in memory, as a share of the vectors in float16. Tiny sets may take
            more: the mean, and 12 bytes a vector.
        seed: of the sample that the basis and the choice are made from.

    Source: the basis is found by randomised subspace iteration (Halko, Martinsson & Tropp 2011,
    arXiv:0909.4061).

    Cost: one pass over the vectors, O(n d k) in float64 with k at most 512.

    Example:
        >>> from unalike.shields.vectors import Resident
        >>> z = np.random.default_rng(0).normal(size=(500, 64)).astype(np.float32)
        >>> index = build(Resident(z), radius=4.0)
        >>> lower = index.lower(index.queries(z[:1])[0], np.arange(500), reach=4.0)
        >>> len(index), bool((lower <= np.linalg.norm(z - z[0], axis=1)).all())
        (500, True)
    """
    n, d = vectors.count, vectors.dimension
    rng = np.random.default_rng(seed)
    chosen = np.sort(
        rng.choice(n, size=min(n, max(64, min(8192, _SAMPLED_VALUES // d))), replace=False)
    )
    sample = vectors.rows(chosen).astype(np.float32)
    mean = sample.mean(axis=0)
    centred = sample - mean
    scale = _scale(_largest_norm(centred))
    centred = centred if scale == 1 else (centred.astype(np.float64) * scale).astype(np.float32)
    maps = {
        second: Contraction.of(mean, basis, min(_LEADING, len(basis)), scale)
        for second, basis in _bases(centred, n, budget, seed).items()
    }
    measured = {
        second: _excluded(_index(c, second, sample[:_MEASURED]), sample, radius, rng)
        for second, c in maps.items()
    }
    best = max(measured, key=lambda second: measured[second])
    index = _of_all(maps[best], best, vectors)
    if not index.sound:  # the sample was smaller than the set
        largest = max(_largest_norm(rows - mean) for _, rows in vectors.blocks())
        index = _of_all(replace(maps[best], scale=_scale(largest)), best, vectors)
    return replace(index, measured=measured)


def _of_all(contraction: Contraction, second: str, vectors: Vectors) -> Index:
    empty = np.empty((0, vectors.dimension), np.float32)
    return _index(contraction, second, empty).extended(vectors)


def _scale(largest: float) -> float:
    """The power of two to multiply vectors by, given their largest norm less the mean."""
    low, high = _UNSCALED
    return 1.0 if low <= largest <= high or largest == 0 else 2.0 ** (7 - math.frexp(largest)[1])


def _bases(centred: np.ndarray, n: int, budget: float, seed: int) -> dict[str, np.ndarray]:
    """Principal components (k, d) for each second tier, as many as the budget has room for."""
    d, room = centred.shape[1], budget * 2 * n * centred.shape[1]

    def coordinates(k: int) -> float:
        leading = min(_LEADING, k)
        return 8 * k * d + n * (
            4 * (leading + 2 + math.ceil(math.log2(max(1, k / max(1, leading)))))
            + 2 * (k - leading)
        )

    def signs(k: int) -> float:
        return 8 * k * d + n * (4 * (k + 2) + math.ceil(d / 8) + 8)

    most = min(_MOST_COORDINATES, max(_LEADING, _BASIS_VALUES // d), *centred.shape)
    sizes = {"coordinates": next((k for k in range(most, 0, -1) if coordinates(k) <= room), 0)}
    if signs(0) <= room:
        sizes["signs"] = next(k for k in range(min(_LEADING, most), -1, -1) if signs(k) <= room)
    with torch.random.fork_rng(
        devices=[]
    ):  # torch's randomised SVD draws from the global generator
        torch.manual_seed(seed)
        components = torch.svd_lowrank(
            torch.from_numpy(centred), q=max(1, *sizes.values()), niter=2
        )[2].T.numpy()
    return {second: components[:k] for second, k in sizes.items()}


def _index(contraction: Contraction, second: str, rows: np.ndarray) -> Index:
    """Index these rows (m, d)."""
    phi, coordinates = contraction(rows)
    with np.errstate(over="ignore", invalid="ignore"):  # `Index.sound` tells
        stored = phi.astype(np.float32)
        further = coordinates.astype(np.float16)
        squares = (stored.astype(np.float64) ** 2).sum(axis=1, keepdims=True).astype(np.float32)
    along, error = np.empty((len(rows), 0), np.float32), 0.0
    if second == "coordinates":
        error = _largest_norm(further - coordinates)
    else:
        v = contraction.centred(rows)
        further = np.packbits(v >= 0, axis=1)
        inner = np.abs(v).sum(axis=1) / v.shape[1] ** 0.5
        exact = np.column_stack([inner, np.sqrt(((v**2).sum(axis=1) - inner**2).clip(0))])
        along = exact.astype(np.float32)
        error = _largest_norm(along - exact) + 1e-7 * _largest_norm(
            exact
        )  # the second is a small difference of squares
    return Index(
        contraction,
        np.hstack([-2 * stored, squares]),
        second,
        further,
        along,
        (_largest_norm(stored - phi), error),
    )


def _largest_norm(rows: np.ndarray) -> float:
    parts = np.array_split(rows, 1 + rows.size // _BLOCK_VALUES)
    return float(
        np.max(
            [np.sqrt((part.astype(np.float64) ** 2).sum(axis=1)).max(initial=0.0) for part in parts]
        )
    )


def _excluded(index: Index, sample: np.ndarray, radius: float, rng: np.random.Generator) -> float:
    """Share of the indexed rows that the bounds place beyond the radius.

    Measured at points between the mean and sampled vectors.
    """
    ends = sample[rng.choice(len(sample), size=min(len(sample), _QUERIES), replace=False)]
    share = np.linspace(0, 1, len(ends))[:, None]
    rows = np.arange(len(index))
    mean = index.contraction.mean
    return float(
        np.mean(
            [
                (index.lower(query, rows, radius) >= radius).mean()
                for query in index.queries(mean + share * (ends - mean))
            ]
        )
    )
