import pytest
import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.metrics import Manifolds, manifolds


def drawn(n: int, d: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def by_hand(real: Tensor, generated: Tensor, k: int) -> Manifolds:
    """The definitions, one pair at a time."""

    def distance(a: Tensor, b: Tensor) -> float:
        return float((a.double() - b.double()).square().sum().sqrt())

    def radius(own: Tensor, i: int) -> float:
        return sorted(distance(own[i], own[j]) for j in range(len(own)) if j != i)[k - 1]

    radii = [radius(real, i) for i in range(len(real))]
    inside = [[distance(x, g) <= radii[i] for g in generated] for i, x in enumerate(real)]
    balls = [sum(row[j] for row in inside) for j in range(len(generated))]
    recalled = [
        any(distance(x, g) <= radius(generated, j) for j, g in enumerate(generated)) for x in real
    ]
    return Manifolds(
        precision=sum(b > 0 for b in balls) / len(balls),
        recall=sum(recalled) / len(recalled),
        density=sum(balls) / len(balls) / k,
        coverage=sum(any(row) for row in inside) / len(inside),
    )


@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("block", [1, 50, 2**24])
def test_figures_are_those_of_the_definitions_when_blocks_are_of_any_size(
    k: int, block: int
) -> None:
    real, generated = drawn(30), 0.7 * drawn(25, seed=1) + 0.5
    found, wanted = manifolds(real, generated, k, block=block), by_hand(real, generated, k)
    for name in ("precision", "recall", "density", "coverage"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name)), name


def test_all_is_found_when_the_sets_are_equal() -> None:
    found = manifolds(drawn(20), drawn(20), k=2)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density == pytest.approx(
        1.5
    )  # each sample is in its own ball and, on average, in two others


def test_nothing_is_found_when_the_sets_are_far_apart() -> None:
    assert manifolds(drawn(20), drawn(20) + 1000, k=3) == Manifolds(0, 0, 0, 0)


def test_recall_and_coverage_fall_and_precision_does_not_when_a_mode_is_missing() -> None:
    real = torch.cat([drawn(40), drawn(40, seed=1) + 100])
    found = manifolds(real, drawn(40, seed=2), k=5)
    assert found.precision > 0.8
    assert found.recall <= 0.5
    assert found.coverage <= 0.5


def test_balls_of_radius_0_hold_copies_when_real_samples_are_repeated() -> None:
    real = drawn(4).repeat_interleave(3, dim=0)
    assert manifolds(real, real[::3], k=2) == Manifolds(
        precision=1, recall=1, density=1.5, coverage=1
    )


def test_figures_stay_when_both_sets_are_far_from_the_origin() -> None:
    real, generated = drawn(30).double(), drawn(25, seed=1).double()
    assert manifolds(real + 1e6, generated + 1e6, 3) == manifolds(real, generated, 3)


@pytest.mark.parametrize("k", [0, 10, 12])
def test_error_names_k_when_it_does_not_fit(k: int) -> None:
    with pytest.raises(OptionError, match=rf"k is {k}; .*\(20 real, 10 generated\)"):
        manifolds(drawn(20), drawn(10), k)
