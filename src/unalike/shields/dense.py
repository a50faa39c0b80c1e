"""Search by one matrix product with all vectors, on any device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from unalike.shields.search import Candidates, Probe, Search
from unalike.shields.vectors import Vectors

_BLOCK_VALUES = 1 << 24
_SPARE = 1 << 30
_ROUNDING = 4e-3
"""Rounding of a product relative to `||x||² + ||z||²`: that of bfloat16, which torch may be told to
use in float32 products.
"""


class Dense(Search):
    """Search with all vectors on a device, as they are stored, or in blocks that pass through it
    where they do not fit.

    Products are accumulated in float32, and only exclude: what their rounding leaves open is
    measured on the CPU in float64. So the result is the same on every device.

    Args:
        vectors: (n, d).
        device: where the products are computed.

    Cost: n · B products of d numbers for B vectors.

    Example:
        >>> from unalike.shields.vectors import Resident
        >>> Dense(Resident(np.eye(4, dtype=np.float32)), torch.device("cpu")).within(np.array([[0.9, 0.0, 0.0, 0.0]]), 1.0)
        [array([0])]
    """

    def __init__(self, vectors: Vectors, device: torch.device) -> None:
        super().__init__(vectors)
        self.device = device
        self._size = max(1, _BLOCK_VALUES // vectors.dimension)
        self._resident: list[Tensor] | None = (
            list(self._blocks()) if _fits(vectors, device) else None
        )

    @property
    def resident_bytes(self) -> int:
        """Bytes of the vectors on the device; 0 where they pass through."""
        return sum(block.nbytes for block in self._resident or ())

    def candidates(self, probes: Sequence[Probe], reach: np.ndarray) -> list[Candidates]:
        """For each of the probes (B) all rows that the product does not place at `reach` (B,) or
        beyond.
        """
        left: list[list[Candidates]] = [[] for _ in probes]
        first = 0
        for squared, slack in self._squared(probes):
            lower = (squared - slack).clamp_min(0).sqrt().double().cpu().numpy() * (1 - 1e-6)
            for i, r in enumerate(reach.tolist()):
                rows = np.flatnonzero(lower[i] < r)
                left[i].append(Candidates(rows + first, lower[i][rows]))
            first += squared.shape[1]
        self.counts["first"] += len(probes) * first
        return [
            Candidates(
                np.concatenate([c.rows for c in found]), np.concatenate([c.lower for c in found])
            )
            for found in left
        ]

    def tighter(self, probe: Probe, rows: np.ndarray, reach: float) -> np.ndarray:
        """Zeros: what the product leaves open is measured."""
        return np.zeros(len(rows))

    def cheap_order(self, probes: Sequence[Probe]) -> Iterator[np.ndarray]:
        """For each of the probes the squared distances (n,) that the product gives."""
        yield from torch.cat([squared for squared, _ in self._squared(probes)], dim=1).cpu().numpy()

    def _squared(self, probes: Sequence[Probe]) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each block in turn the squared distances (B, m) float32, and how far they may be
        off.
        """
        queries = torch.from_numpy(np.stack([probe.x for probe in probes])).float().to(self.device)
        own = queries.square().sum(dim=1, keepdim=True)
        for block in self._resident if self._resident is not None else self._blocks():
            rows = block.float()
            norms = own + rows.square().sum(dim=1)
            yield norms - 2 * (queries @ rows.T), _ROUNDING * norms

    def _blocks(self) -> Iterator[Tensor]:
        for _, block in self.vectors.blocks(self._size):
            yield torch.from_numpy(np.array(block)).to(self.device)


def _fits(vectors: Vectors, device: torch.device) -> bool:
    """Whether the vectors may stay on the device: where they are in memory anyway, and where a GPU
    has room for them.
    """
    if device.type != "cuda":
        return hasattr(vectors, "array")
    free, _ = torch.cuda.mem_get_info(device)
    return vectors.count * vectors.dimension * vectors.dtype.itemsize + _SPARE <= free
