"""Layered, dense and along a trajectory: each search against brute force, with the cases that
bounds get wrong if they are wrong.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unalike.errors import StoreError
from unalike.shields.bounds import Index
from unalike.shields.contraction import Contraction
from unalike.shields.dense import Dense
from unalike.shields.indexing import build
from unalike.shields.layered import Layered
from unalike.shields.search import Search
from unalike.shields.trajectory import Trajectory
from unalike.shields.vectors import Resident

CPU = torch.device("cpu")
KINDS = ("spread", "steep", "duplicates", "equal", "line", "far", "sphere")


def made(kind: str, n: int, d: int, seed: int) -> np.ndarray:
    """n vectors of which many are equal, or nearly, or at the same distance."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, d))
    if kind == "steep":
        z *= 10.0 / (1 + np.arange(d))
    elif kind == "duplicates":
        z = z[rng.integers(0, max(1, n // 4), size=n)]
    elif kind == "equal":
        z = np.repeat(z[:1], n, axis=0)
    elif kind == "line":
        z = np.outer(rng.integers(-3, 4, size=n), np.ones(d))
    elif kind == "far":
        z += 1000
    elif kind == "sphere":
        z /= np.linalg.norm(z, axis=1, keepdims=True)
    return z


def distances(x: np.ndarray, vectors: Resident) -> np.ndarray:
    return np.stack([np.linalg.norm(vectors.array.astype(np.float64) - row, axis=1) for row in x])


def searches(vectors: Resident, radius: float) -> list[Search]:
    tenth, all_coordinates = build(vectors, radius), build(vectors, radius, budget=20)
    assert all_coordinates.contraction.basis.shape[0] >= min(vectors.count, vectors.dimension, 32)
    return [
        Layered(vectors, tenth),
        Layered(vectors, all_coordinates),
        Layered(vectors, by_signs(vectors)),
        Dense(vectors, CPU),
    ]


def by_signs(vectors: Resident) -> Index:
    """An index whose second tier is signs, whatever excludes more."""
    from unalike.shields.bounds import index_of

    sample = vectors.array.astype(np.float32)
    contraction = Contraction.of(
        sample.mean(axis=0), np.empty((0, vectors.dimension), np.float32), 0
    )
    return index_of(contraction, "signs", vectors.array)


def queries(vectors: Resident, seed: int) -> np.ndarray:
    """Points of the set, near it, between two of it, beside it and at its mean."""
    rng = np.random.default_rng(seed)
    z = vectors.array.astype(np.float64)
    near = z[0] + 1e-3 * rng.normal(size=z.shape[1])
    return np.stack(
        [z[0], near, (z[0] + z[-1]) / 2, z[-1] + rng.normal(size=z.shape[1]), z.mean(axis=0)]
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 120),
    d=st.sampled_from([1, 2, 7, 40, 150]),
    half=st.booleans(),
    rank=st.floats(0, 1),
)
def test_all_rows_within_the_radius_are_found_when_compared_with_brute_force(
    seed, kind, n, d, half, rank
):
    vectors = Resident(made(kind, n, d, seed).astype(np.float16 if half else np.float32))
    x = queries(vectors, seed + 1)
    exact = distances(x, vectors)
    positive = exact[exact > 0]
    radius = (
        float(np.quantile(positive, rank, method="nearest")) if len(positive) else 1.0
    )  # a distance that occurs: on the boundary
    for search in searches(vectors, radius):
        for r in (radius, np.nextafter(radius, np.inf), radius / 2):
            for found, row in zip(search.within(x, r), exact, strict=True):
                np.testing.assert_array_equal(found, np.flatnonzero(row < r))
        index, distance = search.nearest(x)
        np.testing.assert_array_equal(index, exact.argmin(axis=1))
        np.testing.assert_array_equal(distance, exact.min(axis=1))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(KINDS),
    speed=st.floats(0, 2),
    layered=st.booleans(),
)
def test_nothing_is_missed_when_earlier_searches_are_relied_on(seed, kind, speed, layered):
    vectors = Resident(made(kind, 80, 12, seed).astype(np.float32))
    rng = np.random.default_rng(seed)
    radius = float(np.median(distances(vectors.array[:4].astype(np.float64), vectors))) or 1.0
    run = Trajectory(
        Layered(vectors, build(vectors, radius)) if layered else Dense(vectors, CPU), radius
    )
    x = vectors.array[:3].astype(np.float64) + rng.normal(size=(3, 12))
    for step in range(12):
        for found, row in zip(run.within(x), distances(x, vectors), strict=True):
            np.testing.assert_array_equal(found, np.flatnonzero(row < radius))
        x = x + speed * 0.6**step * radius * rng.normal(size=x.shape) / 12**0.5
    assert run.steps == 36


def test_full_searches_are_skipped_when_predictions_settle():
    vectors = Resident(made("spread", 500, 20, 0).astype(np.float32))
    search = Dense(vectors, CPU)
    run = Trajectory(search, 1.0)
    for step in range(20):
        run.within(np.full((2, 20), 3.0 + 0.5**step))
    assert run.skipped > run.steps / 2
    assert search.counts["first"] == (run.steps - run.skipped) * 500


def test_fewer_candidates_are_kept_when_there_are_more_than_are_worth_it(monkeypatch):
    from unalike.shields import trajectory

    monkeypatch.setattr(trajectory, "_MOST_KEPT", 5)
    monkeypatch.setattr(trajectory, "_READ", 5)
    vectors = Resident(made("sphere", 60, 8, 1).astype(np.float32))
    run = Trajectory(Dense(vectors, CPU), 0.9)
    for shift in np.linspace(0, 1, 15):
        x = np.full((1, 8), shift / 4)
        np.testing.assert_array_equal(
            run.within(x)[0], np.flatnonzero(distances(x, vectors)[0] < 0.9)
        )
        parts = [rows for _, rows in run.touched(torch.from_numpy(x))]
        assert sum(len(rows) for rows in parts) == (distances(x, vectors)[0] < 0.9).sum()
        assert all(len(rows) <= 5 for rows in parts)


def test_bounds_exclude_most_when_the_spectrum_is_steep_and_signs_are_chosen_when_it_is_flat():
    rng = np.random.default_rng(0)
    flat, steep = rng.normal(size=(2, 3000, 256)).astype(np.float32)
    steep *= 1 / (1 + np.arange(256, dtype=np.float32))
    for rows, second in ((flat, "signs"), (steep, "coordinates")):
        typical = float(np.median(np.linalg.norm(rows[:500] - rows[500:1000], axis=1)))
        index = build(Resident(rows), 0.5 * typical)
        assert index.second == second
        assert index.measured[second] == max(index.measured.values())
        assert index.resident_bytes <= 0.1 * 2 * rows.size + 8 * 256
        search = Layered(Resident(rows), index)
        search.within(rows[:8].astype(np.float64), 0.3 * typical)
        assert search.counts["full"] < 0.1 * search.counts["first"]


def test_index_is_the_same_when_written_read_and_extended():
    rows = made("steep", 200, 30, 3).astype(np.float16)
    whole = build(Resident(rows), 1.0, budget=3)
    part = Index(
        whole.contraction,
        whole.phi[:120],
        whole.second,
        whole.further[:120],
        whole.along[:120],
        whole.errors,
        whole.measured,
    ).extended(Resident(rows))
    read = Index.from_tensors(whole.tensors())
    for index in (part, read):
        for name in ("phi", "further", "along"):
            np.testing.assert_array_equal(getattr(index, name), getattr(whole, name))
        assert (index.second, index.errors, index.measured) == (
            whole.second,
            whole.errors,
            whole.measured,
        )
        assert index.contraction.stretch == whole.contraction.stretch
    with pytest.raises(StoreError, match="the search index is damaged"):
        Index.from_tensors({k: v for k, v in whole.tensors().items() if k != "phi"})
    with pytest.raises(StoreError, match="do not belong together"):
        Index.from_tensors({**whole.tensors(), "phi": whole.tensors()["phi"][1:]})


def test_result_is_the_same_when_vectors_pass_through_the_device_in_blocks(monkeypatch):
    from unalike.shields import dense

    vectors = Resident(made("spread", 50, 6, 4).astype(np.float16))
    x = queries(vectors, 5)
    resident = Dense(vectors, CPU)
    monkeypatch.setattr(dense, "_BLOCK_VALUES", 40)
    monkeypatch.setattr(dense, "_fits", lambda vectors, device: False)
    passing = Dense(vectors, CPU)
    assert (resident.resident_bytes, passing.resident_bytes) == (vectors.array.nbytes, 0)
    for a, b in zip(resident.within(x, 2.0), passing.within(x, 2.0), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(resident.nearest(x)[0], passing.nearest(x)[0])
