"""Sets and queries of any size and offset, in memory and on disk, against brute force in float64:
every answer is right, or refused.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unalike.errors import NumericsError, OptionError
from unalike.shields.bounds import Index
from unalike.shields.calibration import protected_distances
from unalike.shields.dense import Dense
from unalike.shields.indexing import build
from unalike.shields.layered import Layered
from unalike.shields.shield import Shield
from unalike.shields.store import open_folder
from unalike.shields.trajectory import Trajectory
from unalike.shields.vectors import Resident, Vectors
from unalike.shields.writer import Writer

CPU = torch.device("cpu")


def brute_force(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Distances (B, n) by differences in float64, scaled so that no square vanishes."""
    apart = x[:, None] - rows.astype(np.float64)
    largest = np.abs(apart).max(axis=2, keepdims=True)
    largest[largest == 0] = 1
    return largest[..., 0] * np.sqrt(((apart / largest) ** 2).sum(axis=2))


def queries(rows: np.ndarray, scale: float, seed: int) -> np.ndarray:
    """Rows, points near them, between them, at the mean, and far off."""
    rng = np.random.default_rng(seed)
    z = rows[:4].astype(np.float64)
    noise = scale * rng.normal(size=z.shape)
    parts = [
        z,
        z + 1e-3 * noise,
        z + noise,
        (z + z[::-1]) / 2,
        z.mean(axis=0)[None],
        z + 1e9 * noise,
    ]
    return np.concatenate(parts)


def require_right(vectors: Vectors, search, x: np.ndarray) -> None:
    rows = vectors.rows(np.arange(vectors.count))
    exact = brute_force(x, rows)
    radii = np.quantile(exact[exact > 0], [0.02, 0.3, 0.9]) if exact.any() else [1.0]
    for radius in radii:
        for found, row in zip(search.within(x, float(radius)), exact, strict=True):
            sure = np.abs(row - radius) > 1e-12 * radius
            there = np.isin(np.arange(len(row)), found)
            np.testing.assert_array_equal(there[sure], (row < radius)[sure])
    index, distance = search.nearest(x)
    np.testing.assert_allclose(distance, exact.min(axis=1), rtol=1e-12)
    np.testing.assert_allclose(exact[np.arange(len(x)), index], exact.min(axis=1), rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    exponent=st.floats(-38, 14),
    offset=st.sampled_from([0.0, 1.0, 1e3, 1e4, 1e6]),
    outlier=st.booleans(),
    n=st.integers(1, 70),
    d=st.sampled_from([1, 3, 40]),
)
def test_search_is_exact_when_vectors_have_any_size_and_offset(
    seed, exponent, offset, outlier, n, d
):
    scale = 10.0**exponent
    rng = np.random.default_rng(seed)
    z = scale * rng.normal(size=(n, d)) + offset * min(scale, 1e8)
    if outlier:
        z[-1] *= 1e6 if scale < 1e6 else 1e-6
    vectors = Resident(np.clip(z, -1e15, 1e15).astype(np.float32))
    x = queries(vectors.array, scale, seed)
    require_right(vectors, Dense(vectors, CPU), x)
    for budget in (0.1, 20):
        require_right(vectors, Layered(vectors, build(vectors, scale, budget=budget)), x)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 10**6),
    exponent=st.floats(-36, 13),
    offset=st.sampled_from([0.0, 1e3, 1e6]),
    half=st.booleans(),
)
def test_shield_on_disk_is_right_when_vectors_have_any_size_and_offset(
    tmp_path_factory, seed, exponent, offset, half
):
    scale = 10.0 ** (exponent / 12 if half else exponent)
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(scale * rng.normal(size=(80, 5)) + offset * min(scale, 1e8)).float()
    if half and z.abs().max() > 6e4:
        z = z * (6e4 / z.abs().max())
    folder = tmp_path_factory.mktemp("set") / "s"
    memory = Shield(z, space="m/5", radius=scale)
    memory.save(folder, dtype="float16" if half else "float32")
    shield = Shield.open(folder)
    stored = shield.vectors.rows(np.arange(len(shield)))
    x = torch.from_numpy(queries(stored, scale, seed))
    exact = brute_force(x.numpy(), stored).min(axis=1)
    sure = np.abs(exact - shield.reach) > 1e-9 * shield.reach
    np.testing.assert_array_equal(shield.inside(x).numpy()[sure], (exact < shield.reach)[sure])
    np.testing.assert_allclose(shield.nearest(x)[1], exact, rtol=1e-12)
    moved, _ = shield.move_out(x)
    assert (brute_force(moved.numpy(), stored).min(axis=1) >= shield.reach * (1 - 1e-12)).all()


def test_inside_is_seen_when_many_long_vectors_are_beyond_float16(tmp_path: Path):
    rng = np.random.default_rng(0)
    z = (1e6 * rng.normal(size=(3000, 512)) / (1 + np.arange(512))).astype(np.float32)
    Shield(torch.from_numpy(z), space="m/512", radius=1e4).save(tmp_path / "s")
    shield = Shield.open(tmp_path / "s")
    x = torch.from_numpy(z[:8]) + 10
    assert shield.inside(x).all()
    assert shield.nearest(x)[0].tolist() == [shield.ids.index(str(i)) for i in range(8)]
    shield.inside(x)
    search = shield.search()
    assert isinstance(search, Layered)
    assert search.counts["full"] < 0.2 * search.counts["first"]  # the bounds do their work there


def test_added_vectors_are_found_when_they_are_of_another_size(tmp_path: Path):
    rng = np.random.default_rng(0)
    small = torch.from_numpy(rng.normal(size=(50, 8))).float()
    Shield(small, space="m/8", radius=1.0).save(tmp_path / "s")
    with Writer.append(tmp_path / "s") as writer:
        writer.add(1e12 * small, [f"large {i}" for i in range(50)])
        writer.finish()
    shield = Shield.open(tmp_path / "s")
    x = torch.cat([small[:4], 1e12 * small[:4]])
    assert isinstance(shield.search(), Layered)
    assert shield.inside(x).all()
    assert (shield.nearest(x)[1] == 0).all()


@pytest.mark.parametrize("scale", [1e6, 1e-25])
def test_index_of_an_earlier_release_is_left_aside_when_its_bounds_prove_nothing(
    tmp_path: Path, monkeypatch, scale: float
):
    from unalike.shields import bounds, indexing

    monkeypatch.setattr(indexing, "_UNSCALED", (0.0, math.inf))  # as they were made
    monkeypatch.setattr(bounds.Index, "sound", True)
    z = torch.from_numpy(scale * np.random.default_rng(0).normal(size=(400, 300))).float()
    Shield(z, space="m/300", radius=0.1 * scale).save(tmp_path / "s")
    monkeypatch.undo()
    index = Index.from_tensors(open_folder(tmp_path / "s").index)
    assert index.contraction.scale == 1
    shield = Shield.open(tmp_path / "s")
    assert isinstance(shield.search(), Dense) == (not index.sound)
    assert shield.inside(z[:5]).all()
    assert shield.nearest(z[:5])[0].tolist() == [0, 1, 2, 3, 4]


def test_index_keeps_its_scale_when_written_and_read():
    z = Resident(
        np.float32(1e-22) * np.random.default_rng(0).normal(size=(60, 9)).astype(np.float32)
    )
    index = build(z, 1e-22)
    read = Index.from_tensors(index.tensors())
    assert index.contraction.scale == read.contraction.scale > 1e20
    assert len(index.tensors()["layout"]) == 3


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e160])
def test_query_is_refused_when_it_is_nowhere(tmp_path: Path, saved: bool, value: float):
    shield = Shield(torch.eye(3), space="m/3", radius=0.5)
    if saved:
        shield.save(tmp_path / "s")
        shield = Shield.open(tmp_path / "s")
    x = torch.zeros(2, 3, dtype=torch.float64)
    x[1, 2] = value
    for ask in (shield.inside, shield.nearest, shield.move_out):
        with pytest.raises(NumericsError, match=r"row 1 of the 2 .* neither inside nor outside"):
            ask(x)
    with pytest.raises(NumericsError, match="row 1"):
        shield.search().within(x.numpy(), 1.0)
    with pytest.raises(NumericsError, match="row 1"):
        Trajectory(shield.search(), 0.5).within(x.numpy())
    with pytest.raises(NumericsError, match="row 1"):
        list(shield.trajectory("m/3").touched(x))


def test_inside_is_right_when_the_query_has_infinities_in_half_precision_only():
    shield = Shield(torch.full((1, 2), 7e4), space="m/2", radius=1.0)
    with pytest.raises(NumericsError, match="row 0"):
        shield.inside(torch.full((1, 2), 7e4).half())
    assert shield.inside(torch.full((1, 2), 7e4)).all()


@pytest.mark.parametrize("radius", [1e-200, 1e200, math.nan, -0.0, "wide", None, True])
def test_radius_is_refused_when_its_square_is_no_number(radius: object):
    with pytest.raises(OptionError, match="radius is "):
        Shield(torch.eye(2), space="m/2", radius=radius)  # pyright: ignore[reportArgumentType]


def test_radius_may_be_a_number_of_numpy():
    assert Shield(torch.eye(2), space="m/2", radius=np.float32(0.5)).radius == 0.5  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "latents", [torch.eye(2, dtype=torch.complex64), torch.zeros(2, 0), torch.zeros(()), [[1.0]]]
)
def test_latents_are_refused_when_they_are_no_rows_of_real_numbers(latents):
    with pytest.raises(OptionError, match="latents is "):
        Shield(latents, space="m/2", radius=1.0)
    shield = Shield(torch.eye(2), space="m/2", radius=1.0)
    with pytest.raises(OptionError, match="latents"):
        shield.inside(latents)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    exponent=st.floats(-36, 12),
    offset=st.sampled_from([0.0, 1e3, 1e6]),
    outlier=st.booleans(),
)
def test_automatic_radius_scales_with_the_set(seed, exponent, offset, outlier):
    rng = np.random.default_rng(seed)
    z = 10.0**exponent * (rng.normal(size=(30, 4)) + offset)
    if outlier:
        z[0] *= 100
    rows = z.astype(np.float32)
    found = protected_distances(Resident(rows)).numpy()
    exact = np.sort(brute_force(rows.astype(np.float64), rows), axis=1)
    np.testing.assert_allclose(found[:, 0], exact[:, 1], rtol=1e-9)
    np.testing.assert_allclose(found[:, 1], exact[:, 1:].mean(axis=1), rtol=1e-9)
