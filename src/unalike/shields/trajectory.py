"""Search along a trajectory, and reuse earlier searches while the prediction moves little."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.shields.search import Candidates, Probe, Search
from unalike.shields.vectors import require_queries

_FIRST_AHEAD = 0.5
_AHEAD = 3.0
_MOST_KEPT = 1 << 16
_READ = 4096
_WORTH = 0.01  # share of the rows whose second bound takes as long as a search for a batch


@dataclass(frozen=True)
class _Kept:
    """A full search for `probe`: all rows (k,) nearer than `beyond`.

    With lower bounds of their distances, and which of those are tight.
    """

    probe: Probe
    rows: np.ndarray
    lower: np.ndarray
    tight: np.ndarray
    beyond: float


class Trajectory:
    """The vectors within a radius of each prediction of a run, step by step.

    SPELL keeps a run out of these regions.

    With `m` a distance within which a full search at `x_s` found all candidates, every other row is
    at least `m - ||x - x_s||` from `x` (triangle inequality): while that is not below the radius
    only candidates are looked at, and of those only the ones whose own lower bound less `||x -
    x_s||` is below it. A search looks ahead by a multiple of the last step's motion.

    Attributes:
        radius: of the balls.
        steps: how many predictions were searched for, images counted one by one.
        skipped: at how many of them the full search was left out.

    Args:
        search: of the protected set.
        radius: of the balls.

    Example:
        >>> from unalike.shields.dense import Dense
        >>> from unalike.shields.vectors import Resident
        >>> search = Dense(Resident(np.eye(4, dtype=np.float32)), torch.device("cpu"))
        >>> run = Trajectory(search, radius=0.5)
        >>> steps = [np.array([[t, 0.0, 0.0, 0.0]]) for t in (0.2, 0.3, 0.6)]
        >>> [run.within(x)[0].tolist() for x in steps], run.skipped
        ([[], [], [0]], 1)
    """

    def __init__(self, search: Search, radius: float) -> None:
        self.search = search
        self.radius = radius
        self.steps = 0
        self.skipped = 0
        self._kept: Sequence[_Kept | None] = []
        self._last = np.empty((0, 0))

    def __len__(self) -> int:
        return self.search.vectors.count

    def within(self, x: np.ndarray) -> list[np.ndarray]:
        """For each prediction of x (B, d) the numbers of all rows nearer than the radius.

        Raises:
            OptionError: for predictions of another length.
            NumericsError: for NaN and infinity.
        """
        require_queries(x, self.search.vectors.dimension)
        if self._last.shape != x.shape:
            self._kept, self._last = [None] * len(x), np.full(x.shape, np.nan)
        probes, kept = [Probe(row) for row in x.copy()], self._kept
        moved = [
            np.inf if k is None else float(np.linalg.norm(row - k.probe.x)) * (1 + 1e-12)
            for row, k in zip(x, kept, strict=True)
        ]
        self.steps += len(x)
        if self._lost(moved):
            # Going through the index takes about as long for all images as for one, so all are
            # searched for anew.
            last_step = np.linalg.norm(x - self._last, axis=1)
            reach = self.radius + np.where(
                np.isnan(last_step), _FIRST_AHEAD * self.radius, _AHEAD * last_step
            )
            found = self.search.candidates(probes, reach)
            self._kept = [
                self._keep(*each) for each in zip(probes, found, reach.tolist(), strict=True)
            ]
            moved = [0.0] * len(x)
        else:
            self.skipped += len(x)
        self._last = x.copy()
        return [
            self._inside(probe, k, m)
            for probe, k, m in zip(probes, self._kept, moved, strict=True)
            if k is not None
        ]

    def touched(self, x0: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield the images of x0 (B, d) that lie in balls, with the centres (k, d) of those balls.

        Many centres come in parts.
        """
        if x0.shape[1] != self.search.vectors.dimension:
            raise OptionError(
                f"the shield holds vectors of {self.search.vectors.dimension} values and this "
                f"generation has {x0.shape[1]} an image; both must come from the same model at the "
                "same image size"
            )
        for image, rows in enumerate(self.within(x0.detach().double().cpu().numpy())):
            for part in np.split(rows, range(_READ, len(rows), _READ)):
                if len(part):
                    yield image, torch.from_numpy(self.search.vectors.rows(part)).to(x0)

    def _lost(self, moved: list[float]) -> bool:
        """Whether new searches would cost less than the earlier ones save.

        That is so where one excludes too little, or all together do.
        """
        worth = _WORTH * len(self)
        for kept, m in zip(self._kept, moved, strict=True):
            if kept is None or kept.beyond - m < self.radius:
                return True
            worth -= (kept.lower - m < self.radius).sum()
        return bool(worth < 0)

    def _keep(self, probe: Probe, found: Candidates, beyond: float) -> _Kept:
        """Keep the candidates of a search, or only the nearest of too many."""
        rows, lower = found.rows, found.lower
        if len(rows) > _MOST_KEPT:
            beyond = max(self.radius, float(np.partition(lower, _MOST_KEPT)[_MOST_KEPT]))
            rows, lower = rows[lower < beyond], lower[lower < beyond]
        return _Kept(probe, rows, lower, np.zeros(len(rows), dtype=bool), beyond)

    def _inside(self, probe: Probe, kept: _Kept, moved: float) -> np.ndarray:
        loose = (kept.lower - moved < self.radius) & ~kept.tight
        if loose.any():
            kept.lower[loose] = np.maximum(
                kept.lower[loose],
                self.search.tighter(kept.probe, kept.rows[loose], self.radius + moved),
            )
            kept.tight[loose] = True
        return self.search.nearer(probe, kept.rows[kept.lower - moved < self.radius], self.radius)
