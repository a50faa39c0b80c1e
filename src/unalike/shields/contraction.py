"""Map vectors to few numbers without increasing any distance, in units of the set's size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Contraction:
    """A map `φ` with `||φ(x) - φ(z)|| <= stretch · scale · ||x - z||`.

    `φ` has leading coordinates, norms of bands of further ones, and the norm of the rest.

    With an orthonormal basis `P` the squared distance is the sum of a part for each coordinate and
    one for what is orthogonal to all of them; in any subspace the norm of a difference is at least
    the difference of the norms. `stretch` is 1 up to the rounding of `P`.

    Attributes:
        mean: (d,) float64, subtracted first.
        scale: a power of two that multiplies what is left, so that float16 can hold the coordinates
            and float32 their squares; 1 for vectors of an ordinary size.
        basis: (k, d) float64, `P` by falling variance.
        leading: how many coordinates are taken one by one.
        edges: where the bands of the further coordinates begin, and k.
        stretch: at least 1, computed from the basis as it is stored.
    """

    mean: np.ndarray
    basis: np.ndarray
    leading: int
    edges: tuple[int, ...]
    stretch: float
    scale: float = 1.0

    @classmethod
    def of(
        cls, mean: np.ndarray, basis: np.ndarray, leading: int, scale: float = 1.0
    ) -> Contraction:
        """Make the map from a float32 mean and basis, with bands that double in width."""
        edges = [leading]
        while edges[-1] < len(basis):
            edges.append(min(len(basis), 2 * edges[-1]))
        basis = basis.astype(np.float64)
        excess = max(0.0, float(np.linalg.eigvalsh(basis @ basis.T)[-1]) - 1) if len(basis) else 0.0
        # No eigenvalue of P'P + (I - P'P)² is above 1 + excess + excess².
        return cls(
            mean.astype(np.float64),
            basis,
            leading,
            tuple(edges),
            (1 + excess + excess**2) ** 0.5 * (1 + 1e-12),
            scale,
        )

    @property
    def size(self) -> int:
        """Number of values of `φ`."""
        return self.leading + len(self.edges)

    def __call__(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`φ` (m, size) of rows (m, d), and the coordinates (m, k - leading) of its bands."""
        v = self.centred(rows)
        y = v @ self.basis.T
        return self.joined(y, np.linalg.norm(v - y @ self.basis, axis=1)), y[:, self.leading :]

    def centred(self, rows: np.ndarray) -> np.ndarray:
        """Subtract the mean from rows (m, d) and scale them; float64."""
        return (rows.astype(np.float64) - self.mean) * self.scale

    def joined(self, y: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """`φ` (m, size) from coordinates y (m, k) and the norm (m,) of the orthogonal rest."""
        bands = [
            np.linalg.norm(y[:, a:b], axis=1)
            for a, b in zip(self.edges, self.edges[1:], strict=False)
        ]
        return np.column_stack([y[:, : self.leading], *bands, rest])

    def rest_of(self, v: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The norm (m,) of `v - P'y`, as `||v||² - ||y||² + y'(PP' - I)y`.

        This does not go through the basis again.

        Off by less than `sqrt(8 d ε) ||v||`, where the direct way is by `8 d ε ||v||`, with
        float64's ε.
        """
        squared = (
            np.einsum("ij,ij->i", v, v)
            - np.einsum("ij,ij->i", y, y)
            + np.einsum("ij,ij->i", y @ self._defect, y)
        )
        return np.sqrt(squared.clip(0))

    @cached_property
    def _defect(self) -> np.ndarray:
        """`PP' - I` (k, k): the deviation of the stored basis from an orthonormal one."""
        return self.basis @ self.basis.T - np.eye(len(self.basis))
