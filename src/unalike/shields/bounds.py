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

_BLOCK_VALUES = 1 << 24
_UNIT = 2.0**-24  # of float32 arithmetic
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
    """The part of n vectors that stays in memory: `φ` of each, and a second, tighter tier.

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
                index_of(self.contraction, self.second, vectors.rows(rows))
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


def index_of(contraction: Contraction, second: str, rows: np.ndarray) -> Index:
    """Index these rows (m, d)."""
    phi, coordinates = contraction(rows)
    with np.errstate(over="ignore", invalid="ignore"):  # `Index.sound` tells
        stored = phi.astype(np.float32)
        further = coordinates.astype(np.float16)
        squares = (stored.astype(np.float64) ** 2).sum(axis=1, keepdims=True).astype(np.float32)
    along, error = np.empty((len(rows), 0), np.float32), 0.0
    if second == "coordinates":
        error = largest_norm(further - coordinates)
    else:
        v = contraction.centred(rows)
        further = np.packbits(v >= 0, axis=1)
        inner = np.abs(v).sum(axis=1) / v.shape[1] ** 0.5
        exact = np.column_stack([inner, np.sqrt(((v**2).sum(axis=1) - inner**2).clip(0))])
        along = exact.astype(np.float32)
        error = largest_norm(along - exact) + 1e-7 * largest_norm(
            exact
        )  # the second is a small difference of squares
    return Index(
        contraction,
        np.hstack([-2 * stored, squares]),
        second,
        further,
        along,
        (largest_norm(stored - phi), error),
    )


def largest_norm(rows: np.ndarray) -> float:
    """Largest Euclidean norm of rows (m, d), in float64; 0 for none."""
    parts = np.array_split(rows, 1 + rows.size // _BLOCK_VALUES)
    return float(
        np.max(
            [np.sqrt((part.astype(np.float64) ** 2).sum(axis=1)).max(initial=0.0) for part in parts]
        )
    )
