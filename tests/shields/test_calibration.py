import numpy as np
import pytest
import torch
from tests.shields import sets

from unalike.errors import OptionError
from unalike.shields import calibration
from unalike.shields.calibration import automatic_radius, nearest_distances, protected_distances
from unalike.shields.vectors import Resident

APART = torch.stack(
    [torch.arange(1.0, 101.0), torch.arange(1.0, 101.0) * 1.5], dim=1
)  # none a copy, quantile q at 1 + 99 q


def test_radius_is_the_quantile_of_the_protected_when_nothing_was_drawn():
    found = automatic_radius(torch.cat([APART, torch.tensor([[0.1, 9.0]])]), quantile=0.05)
    assert found.radius == pytest.approx(5.95 / 2)
    assert found.explanation == {
        "quantile": 0.05,
        "protected": {
            "measured": 101,
            "copies": 1,
            "distance": pytest.approx(5.95),
            "copies_inside": 1.0,
            "others_inside": pytest.approx(0.02),
        },
    }


def test_copies_do_not_count_when_generations_were_drawn():
    copies = torch.tensor([[0.1, 9.0], [0.2, 9.0], [0.2, 0.41]])
    found = automatic_radius(10 + APART, torch.cat([copies, APART / 10]), quantile=0.5)
    assert found.radius == pytest.approx(5.05)
    assert found.explanation["protected"]["distance"] == pytest.approx(60.5)
    generated = found.explanation["generated"]
    assert (
        generated["measured"],
        generated["copies"],
        generated["copies_inside"],
        generated["others_inside"],
    ) == (103, 3, 1.0, 0.5)


def test_half_of_the_mean_distance_is_no_copy_when_it_is_exactly_that():
    assert (
        automatic_radius(APART, torch.tensor([[1.0, 2.0]])).explanation["generated"]["copies"] == 0
    )
    assert (
        automatic_radius(APART, torch.tensor([[1.0, 2.1]])).explanation["generated"]["copies"] == 1
    )


def test_protected_distances_decide_when_they_are_smaller_or_all_else_are_copies():
    assert automatic_radius(APART, torch.tensor([[25.0, 30.0]]), quantile=0.5).radius == 25
    assert automatic_radius(APART, torch.tensor([[90.0, 91.0]]), quantile=0.5).radius == 25.25
    found = automatic_radius(APART, torch.tensor([[1.0, 91.0]]), quantile=0.5)
    assert (
        found.radius,
        found.explanation["generated"]["distance"],
        found.explanation["generated"]["others_inside"],
    ) == (
        25.25,
        None,
        None,
    )


def test_largest_distance_of_a_copy_decides_when_all_are_copies():
    found = automatic_radius(torch.tensor([[1.0, 9.0]]), torch.tensor([[2.0, 9.0], [3.0, 9.0]]))
    assert (found.radius, found.explanation["generated"]["copies_inside"]) == (3.0, 0.5)


def test_generations_decide_when_only_one_is_protected():
    none = torch.empty(0, 2)
    with pytest.raises(OptionError, match=r"nothing to measure it on.*radius=20"):
        automatic_radius(none)
    assert automatic_radius(none, torch.tensor([[3.0, 3.0]])).radius == 3


@pytest.mark.parametrize("quantile", [0, 1, -0.1, float("nan")])
def test_quantile_is_refused_when_it_is_not_between_0_and_1(quantile):
    with pytest.raises(OptionError, match="quantile is"):
        automatic_radius(APART, quantile=quantile)


@pytest.mark.parametrize(
    "distances",
    [[[2.0, 1.0]], [[-1.0, 1.0]], [[float("nan"), 1.0]], [[1.0, float("inf")]], [1.0, 2.0]],
)
def test_distances_are_refused_when_they_are_none(distances):
    with pytest.raises(OptionError, match="protected has shape"):
        automatic_radius(torch.tensor(distances))
    with pytest.raises(OptionError, match="generated has shape"):
        automatic_radius(APART, torch.tensor(distances))


def brute_force(x: np.ndarray, z: np.ndarray, *, own: bool = False) -> np.ndarray:
    apart = np.linalg.norm(x[:, None].astype(np.float64) - z[None].astype(np.float64), axis=2)
    if own:
        np.fill_diagonal(apart, np.inf)
    apart = np.sort(apart, axis=1)[:, : min(50, len(z) - own)]
    return np.stack([apart[:, 0], apart.mean(axis=1)], axis=1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_distances_are_those_of_brute_force_when_vectors_come_in_blocks(monkeypatch, dtype, offset):
    monkeypatch.setattr(calibration, "_BLOCK_VALUES", 64 * 6)
    z = (sets.latents(200).flatten(1).numpy() + offset).astype(dtype)
    z[70] = z[3] + dtype(0.0625)
    x = z[:9].astype(np.float64) + 0.01
    assert np.allclose(nearest_distances(x, Resident(z)).numpy(), brute_force(x, z), rtol=1e-12)
    assert np.allclose(
        protected_distances(Resident(z)).numpy(), brute_force(z, z, own=True), rtol=1e-12
    )


def test_mean_is_that_of_all_when_there_are_fewer_than_fifty():
    one = Resident(np.ones((1, 4), dtype=np.float32))
    assert nearest_distances(np.zeros((2, 4)), one).tolist() == [[2.0, 2.0]] * 2
    assert len(protected_distances(one)) == 0


def test_sample_is_drawn_from_the_seed_when_the_set_is_large(monkeypatch):
    monkeypatch.setattr(calibration, "SAMPLED", 40)
    z = sets.latents(150).flatten(1).numpy()
    shares = []
    some = protected_distances(Resident(z), seed=3, tell=shares.append)
    every = brute_force(z, z, own=True)[:, 0]
    assert len(some) == 40
    assert np.isclose(some[:, :1].numpy(), every[None], rtol=1e-12).any(axis=1).all()
    assert torch.equal(some, protected_distances(Resident(z), seed=3))
    assert not torch.equal(some, protected_distances(Resident(z), seed=4))
    assert shares == [1.0]
