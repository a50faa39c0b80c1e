import math
from typing import Any

import pytest
import torch
from torch import Tensor

from unalike import scores
from unalike.errors import OptionError
from unalike.kernels import Cosine, Gaussian

ORDERS = [0.5, 1, 2, 3, math.inf]


def rows(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("order", [0, *ORDERS])
def test_scores_are_exact_when_the_kernels_are_cosines(order: float):
    X, Y = rows(40, 5), rows(40, 3, 1)
    for approximate, exact in [
        (scores.approximate_vendi(X, order), scores.vendi(X, order)),
        (scores.approximate_conditional_vendi(X, Y, order), scores.conditional_vendi(X, Y, order)),
        (scores.approximate_information_vendi(X, Y, order), scores.information_vendi(X, Y, order)),
    ]:
        assert approximate.value == pytest.approx(exact, rel=1e-9)
        assert (approximate.error, approximate.bias) == (0, 0)


@pytest.mark.parametrize("order", ORDERS)
def test_vendi_is_one_when_all_samples_are_alike(order: float):
    found = scores.approximate_vendi(
        rows(1, 4).repeat(50, 1), order, kernel=Gaussian(0.7), frequencies=32
    )
    assert found.value == pytest.approx(1)
    assert found.error == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_vendi_is_the_number_of_kinds_when_kinds_are_far_apart(order: float):
    kinds = 100 * torch.eye(3, dtype=torch.float64).repeat(20, 1)
    found = scores.approximate_vendi(kinds, order, kernel=Gaussian(1.0), frequencies=128)
    assert abs(found.value - 3) < 4 * found.error
    assert 0 < found.error < 0.15


@pytest.mark.parametrize("order", ORDERS)
def test_scores_are_within_their_error_when_samples_are_few_enough_to_know_better(order: float):
    X, Y = rows(60, 3), rows(60, 2, 1)
    kernels: dict[str, Any] = {"kernel": Gaussian(1.5), "prompt_kernel": Gaussian(2.0)}
    drawn = {"frequencies": 128, "seed": 1}
    for approximate, exact in [
        (
            scores.approximate_vendi(X, order, kernel=Gaussian(1.5), **drawn),
            scores.vendi(X, order, kernel=Gaussian(1.5)),
        ),
        (
            scores.approximate_conditional_vendi(X, Y, order, **drawn, **kernels),
            scores.conditional_vendi(X, Y, order, **kernels),
        ),
        (
            scores.approximate_information_vendi(X, Y, order, **drawn, **kernels),
            scores.information_vendi(X, Y, order, **kernels),
        ),
    ]:
        assert abs(approximate.value - approximate.bias - exact) < 4 * approximate.error
        assert approximate.error < 0.15 * exact


@pytest.mark.parametrize("kernels", [{"kernel": Gaussian(1.5)}, {"prompt_kernel": Gaussian(2.0)}])
def test_conditional_vendi_is_within_its_error_when_one_kernel_is_a_cosine(kernels: dict[str, Any]):
    X, Y = rows(80, 3), rows(80, 2, 1)
    found = scores.approximate_conditional_vendi(X, Y, 2, frequencies=128, **kernels)
    assert abs(found.value - scores.conditional_vendi(X, Y, 2, **kernels)) < 4 * found.error
    assert found.error < 1


@pytest.mark.parametrize("order", [1, 2])
def test_error_is_the_deviation_of_the_values_when_frequencies_are_drawn_again(order: float):
    X = rows(60, 3)
    found = [
        scores.approximate_vendi(X, order, kernel=Gaussian(1.5), frequencies=32, seed=seed)
        for seed in range(50)
    ]
    deviation = torch.tensor([f.value for f in found]).std().item()
    assert sum(f.error for f in found) / 50 == pytest.approx(deviation, rel=0.3)


def test_bias_says_what_is_missing_when_frequencies_are_few():
    X = rows(60, 3)
    exact = scores.vendi(X, kernel=Gaussian(1.0))
    found = [
        scores.approximate_vendi(X, kernel=Gaussian(1.0), frequencies=32, seed=seed)
        for seed in range(20)
    ]
    missing, told = sum(f.value - exact for f in found) / 20, sum(f.bias for f in found) / 20
    assert missing < -0.1 * exact
    assert told == pytest.approx(missing, rel=0.3)


def test_rke_is_right_on_average_when_frequencies_are_few():
    X, K = rows(100, 8), Gaussian(1.0)
    inverse = [
        1 / scores.approximate_vendi(X, 2, kernel=K, frequencies=16, seed=seed).value
        for seed in range(200)
    ]
    plain = 1 / scores.rke(X, kernel=K) + 1 / (
        2 * 16
    )  # about what the pairs of a frequency with itself would add
    assert sum(inverse) / 200 == pytest.approx(1 / scores.rke(X, kernel=K), rel=0.1)
    assert sum(inverse) / 200 < plain / 2


def test_result_is_the_same_when_the_seed_is():
    X = rows(30, 3)
    one, other, third = (
        scores.approximate_vendi(X, kernel=Gaussian(1.0), frequencies=16, seed=seed)
        for seed in (3, 3, 4)
    )
    assert one == other
    assert one != third


def test_global_generator_is_not_used_when_frequencies_are_drawn():
    before = torch.get_rng_state()
    scores.approximate_vendi(rows(5, 3), kernel=Gaussian(1.0), frequencies=8)
    assert torch.get_rng_state().equal(before)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"order": -1}, "order is -1"),
    ({"X": torch.tensor([[1.0, math.nan]])}, "X has NaN or infinite values"),
    ({"X": torch.zeros(2, 3)}, "row 0 of X is all zeros"),
    ({"X": torch.ones(3)}, r"X has the shape \(3,\)"),
    ({"kernel": Gaussian(1.0), "frequencies": 12}, "frequencies is 12; it must be a multiple of 8"),
    (
        {"X": torch.ones(2, 5000)},
        r"features of the kernel are 5000 \(5000 numbers a row\); at most 4096",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_vendi_is_refused_when_the_input_is_wrong(arguments: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=message):
        scores.approximate_vendi(**{"X": torch.eye(3), **arguments})


def test_conditional_scores_are_refused_when_samples_and_prompts_differ_in_number():
    for score in (scores.approximate_conditional_vendi, scores.approximate_information_vendi):
        with pytest.raises(OptionError, match="X has 4 samples and Y has 3 prompts"):
            score(torch.eye(4), torch.eye(3), kernel=Cosine())
