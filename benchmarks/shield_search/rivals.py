"""The searches that are compared, built when they are needed, and the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.shield_search.brute import Found
from benchmarks.shield_search.results import ANEW, FLAT, IVF, OURS, TIERS, ivf_name
from benchmarks.shield_search.trajectories import Recorded
from unalike import tensorfile
from unalike.shields.bounds import Index
from unalike.shields.faiss import FaissFlat, FaissIVF
from unalike.shields.indexing import build
from unalike.shields.layered import Layered
from unalike.shields.trajectory import Trajectory
from unalike.shields.vectors import Mapped

_INDEX = ("benchmarks.index", 1)
_WARM = 2  # steps before the clock counts, which fetch what is cold


class Rivals:
    """The searches over one set.

    Args:
        vectors: the set.
        data: where the index of bounds is kept.
        nprobe: of the approximate index; none where only ours is measured.
    """

    def __init__(self, vectors: Mapped, data: Path, nprobe: Sequence[int]) -> None:
        self.vectors = vectors
        self.nprobe = tuple(nprobe)
        self._data = data
        self._layered: Layered | None = None
        self._seconds: dict[str, float] = {}
        self._resident: dict[str, int] = {}

    def ours(self, radius: float) -> Layered:
        """The exact search, whose index is built for a radius and kept in a file."""
        if self._layered is None:
            path = self._data / f"index-{self.vectors.count}.safetensors"
            if not path.is_file():
                start = time.perf_counter()
                index = build(self.vectors, radius)
                tensorfile.write(
                    path, *_INDEX, {"seconds": time.perf_counter() - start}, index.tensors()
                )
            header, tensors = tensorfile.read(path, *_INDEX)
            self._layered = Layered(self.vectors, Index.from_tensors(tensors))
            self._built(OURS, header["seconds"], self._layered.resident_bytes)
        return self._layered

    @cached_property
    def ivf(self) -> FaissIVF:
        """The approximate index as published: √n cells."""
        start = time.perf_counter()
        index = FaissIVF(self.vectors, nprobe=max(self.nprobe))
        self._built(IVF, time.perf_counter() - start, index.resident_bytes)
        return index

    def flat(self) -> FaissFlat:
        """The exhaustive index, made anew: it is too large to be kept beside the other."""
        start = time.perf_counter()
        index = FaissFlat(self.vectors)
        self._built(FLAT, time.perf_counter() - start, index.resident_bytes)
        return index

    def _built(self, name: str, seconds: float, resident: int) -> None:
        self._seconds.setdefault(name, seconds)
        self._resident[name] = resident

    def builds(self, earlier: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows so far, and one for each search of this set that is not among them."""
        known = {(row["vectors"], row["search"]) for row in earlier}
        own = [
            {
                "vectors": self.vectors.count,
                "search": name,
                "seconds": seconds,
                "resident_bytes": self._resident[name],
            }
            for name, seconds in self._seconds.items()
        ]
        return [*earlier, *(row for row in own if (row["vectors"], row["search"]) not in known)]


Within = Callable[[np.ndarray], list[np.ndarray]]


def timed(
    rivals: Rivals, radius: float, recorded: Recorded, there: list[list[Found]], *, flat_every: int
) -> list[dict[str, Any]]:
    """A row a rival, trajectory and step: seconds, those of processor time (`busy`), what was found
    of what is there, what ours counted.

    The rivals take turns, trajectory by trajectory, so that a busy moment hits all alike.

    Args:
        rivals: the searches.
        radius: that the index of ours is built for.
        recorded: the trajectories and the radius that is searched.
        there: for each trajectory and step what is really within.
        flat_every: the exhaustive index sees each so many steps of one trajectory alone, which has
            most to be found.
    """
    layered, r = rivals.ours(radius), recorded.radius
    rows: list[dict[str, Any]] = []
    for t, x0 in enumerate(recorded.x0.double().numpy()):
        run = Trajectory(layered, r)
        rows += _along(OURS, t, x0, there[t], run.within, layered=layered, run=run)
        rows += _along(ANEW, t, x0, there[t], lambda x: layered.within(x, r), layered=layered)
        for nprobe in rivals.nprobe:
            rivals.ivf.nprobe = nprobe
            rows += _along(ivf_name(nprobe), t, x0, there[t], lambda x: rivals.ivf.within(x, r))
    if rivals.nprobe:
        flat, t = rivals.flat(), _fullest(there)
        some = slice(None, None, flat_every)
        of_flat = _along(
            FLAT,
            t,
            recorded.x0[t].double().numpy()[some],
            there[t][some],
            lambda x: flat.within(x, r),
        )
        rows += [{**row, "step": row["step"] * flat_every} for row in of_flat]
    return rows


def _fullest(there: list[list[Found]]) -> int:
    """The trajectory that has most vectors within the radius."""
    totals = [sum(len(own) for found in steps for own in found.within) for steps in there]
    return totals.index(max(totals))


def _along(
    name: str,
    trajectory: int,
    x0: np.ndarray,
    there: Sequence[Found],
    within: Within,
    *,
    layered: Layered | None = None,
    run: Trajectory | None = None,
) -> list[dict[str, Any]]:
    if run is None:
        for x in x0[:_WARM]:
            within(x)
    rows = []
    for step, (x, true) in enumerate(zip(x0, there, strict=True)):
        before = dict(layered.counts) if layered else {}
        skipped = run.skipped if run else 0
        start, busy = time.perf_counter(), time.process_time()
        found = within(x)
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
        counts = {
            tier: layered.counts[tier] - before.get(tier, 0) if layered else 0 for tier in TIERS
        }
        total = sum(len(there) for there in true.within)
        right = [
            len(np.intersect1d(own, there)) for own, there in zip(found, true.within, strict=True)
        ]
        rows.append(
            {
                "search": name,
                "threads": torch.get_num_threads(),
                "trajectory": trajectory,
                "step": step,
                "images": len(x),
                "seconds": seconds,
                "busy": busy,
                "there": total,
                "found": sum(right),
                "wrong": sum(len(own) for own in found) - sum(right),
                "inside": sum(len(there) > 0 for there in true.within),
                "unseen": sum(
                    len(there) > 0 and not k for there, k in zip(true.within, right, strict=True)
                ),
                "skipped": (run.skipped - skipped) if run else 0,
                **counts,
            }
        )
    return rows
