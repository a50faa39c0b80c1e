"""Search by one matrix product with all vectors, on any device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unalike.kernels import power_of_two
from unalike.shields.search import Candidates, Probe, Search
from unalike.shields.vectors import Vectors

_BLOCK_VALUES = 1 << 24
_SPARE = 1 << 30
_PRODUCT = 4e-3
"""Rounding of a product's factors relative to `||x||² + ||z||²`: that of bfloat16, which torch may
be told to use in float32 products.
"""
_TINY = 1e-30  # more than what float32 takes for 0 adds up to
_FAR = 2.0**31  # beyond it all rows are at one distance, but for a millionth


@dataclass(frozen=True)
class _Block:
    """Rows (m, d) on the device, and the power of two near the largest of them less the centre.

    Attributes:
        ready: whether the rows are centred and scaled already, as float32 rows are kept.
    """

    rows: Tensor
    scale: float
    ready: bool


class Dense(Search):
    """Search with all vectors on a device.

    They stay there as they are stored, or pass through in blocks where they do not fit.

    Products are accumulated in float32, and only exclude: what their rounding leaves open is
    measured on the CPU in float64. So the result is the same on every device.

    Args:
        vectors: (n, d).
        device: where the products are computed.

    Cost: n · B products of d numbers for B vectors.

    Example:
        >>> from unalike.shields.vectors import Resident
        >>> search = Dense(Resident(np.eye(4, dtype=np.float32)), torch.device("cpu"))
        >>> search.within(np.array([[0.9, 0.0, 0.0, 0.0]]), 1.0)
        [array([0])]
    """

    def __init__(self, vectors: Vectors, device: torch.device) -> None:
        super().__init__(vectors)
        self.device = device
        self._size = max(1, _BLOCK_VALUES // vectors.dimension)
        _, first = next(iter(vectors.blocks(self._size)))
        self._centre = torch.from_numpy(first.mean(axis=0, dtype=np.float64).astype(np.float32))
        self._rounding = _PRODUCT + 2 * (vectors.dimension + 8) * 2.0**-24
        self._resident: list[_Block] | None = (
            list(self._blocks()) if _fits(vectors, device) else None
        )

    @property
    def resident_bytes(self) -> int:
        """Bytes of the vectors on the device; 0 where they pass through."""
        return sum(block.rows.nbytes for block in self._resident or ())

    def candidates(self, probes: Sequence[Probe], reach: np.ndarray) -> list[Candidates]:
        """For each probe (B) all rows that the product does not place at `reach` (B,) or beyond."""
        left: list[list[Candidates]] = [[] for _ in probes]
        first = 0
        for _, lower in self._squared(probes):
            for i, r in enumerate(reach.tolist()):
                rows = np.flatnonzero(~(lower[i] >= r))
                left[i].append(Candidates(rows + first, lower[i][rows]))
            first += lower.shape[1]
        self.counts["first"] += len(probes) * first
        return [
            Candidates(
                np.concatenate([c.rows for c in found]), np.concatenate([c.lower for c in found])
            )
            for found in left
        ]

    def tighter(self, probe: Probe, rows: np.ndarray, reach: float) -> np.ndarray:
        """Zeros: everything that the product leaves open is measured."""
        return np.zeros(len(rows))

    def cheap_order(self, probes: Sequence[Probe]) -> Iterator[np.ndarray]:
        """For each probe the squared distances (n,) by the product."""
        yield from np.concatenate([squared for squared, _ in self._squared(probes)], axis=1)

    def _squared(self, probes: Sequence[Probe]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield for each block squared distances (B, m) and lower bounds (B, m) of the distances.

        Rows and probes are centred, and divided by a power of two near the largest of the rows, so
        that float32 holds the squares.
        """
        x = np.stack([probe.x for probe in probes]) - self._centre.numpy().astype(np.float64)
        for block in self._resident if self._resident is not None else self._blocks():
            own = x / block.scale
            norm = np.linalg.norm(own, axis=1)
            far = norm > _FAR * self.vectors.dimension**0.5
            own[far] = 0
            queries = torch.from_numpy(own).float().to(self.device)
            rows = block.rows if block.ready else self._ready(block.rows, block.scale)
            norms = queries.square().sum(dim=1, keepdim=True) + rows.square().sum(dim=1)
            squared = norms - 2 * (queries @ rows.T)
            bound = (squared - self._rounding * norms - _TINY).clamp_min(0).sqrt()
            lower = bound.double().cpu().numpy() * (1 - 1e-6)
            lower[far] = norm[far, None] * (1 - 1e-6)
            yield squared.double().cpu().numpy() * block.scale**2, lower * block.scale

    def _blocks(self) -> Iterator[_Block]:
        for _, block in self.vectors.blocks(self._size):
            rows = torch.from_numpy(np.array(block)).to(self.device)
            scale = power_of_two(self._ready(rows, 1.0))
            ready = rows.dtype == torch.float32
            yield _Block(self._ready(rows, scale) if ready else rows, scale, ready)

    def _ready(self, rows: Tensor, scale: float) -> Tensor:
        return (rows.float() - self._centre.to(rows.device)) / scale


def _fits(vectors: Vectors, device: torch.device) -> bool:
    """Whether the vectors may stay on the device.

    They may where they are in memory anyway, or a GPU has room for them.
    """
    if device.type != "cuda":
        return hasattr(vectors, "array")
    free, _ = torch.cuda.mem_get_info(device)
    return vectors.count * vectors.dimension * vectors.dtype.itemsize + _SPARE <= free
