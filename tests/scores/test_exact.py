import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unalike import scores
from unalike.errors import OptionError
from unalike.kernels import Gaussian

ORDERS = [0, 0.5, 1, 1.5, 2, 5, math.inf]


def rows(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gram(n: int, d: int, seed: int = 0, bandwidth: float = 1.0) -> torch.Tensor:
    x = rows(n, d, seed)
    return Gaussian(bandwidth)(x, x)


grams = st.builds(
    gram, st.integers(1, 7), st.integers(1, 4), st.integers(0, 1000), st.floats(0.3, 3)
)
orders = st.one_of(st.floats(0.05, 8), st.sampled_from([1.0, 2.0, math.inf]))


@pytest.mark.parametrize("order", ORDERS)
def test_vendi_is_one_when_all_samples_are_alike(order: float):
    assert scores.vendi(rows(1, 4).repeat(6, 1), order) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("order", ORDERS)
def test_vendi_is_n_when_samples_have_nothing_in_common(order: float):
    assert scores.vendi(torch.eye(5), order) == pytest.approx(5)


@pytest.mark.parametrize("order", ORDERS)
def test_vendi_is_the_number_of_kinds_when_kinds_are_equally_frequent(order: float):
    assert scores.vendi(torch.eye(3).repeat(4, 1), order) == pytest.approx(3)


@pytest.mark.parametrize("order", ORDERS)
def test_vendi_is_the_hill_number_when_kinds_differ_in_frequency(order: float):
    kinds = torch.eye(3)[[0, 0, 0, 0, 0, 1, 1, 1, 2, 2]]
    p = [0.5, 0.3, 0.2]
    if order == 1:
        expected = math.exp(-sum(q * math.log(q) for q in p))
    elif order == math.inf:
        expected = 1 / max(p)
    else:
        expected = sum(q**order for q in p) ** (1 / (1 - order))
    assert scores.vendi(kinds, order) == pytest.approx(expected)


@pytest.mark.parametrize("order", [0.5, 1, 2, 3, math.inf])
def test_vendi_follows_the_eigenvalues_when_two_samples_are_partly_alike(order: float):
    p = [(1 + 0.6) / 2, (1 - 0.6) / 2]  # of [[1, 0.6], [0.6, 1]] / 2
    expected = {1: math.exp(-sum(q * math.log(q) for q in p)), math.inf: 1 / p[0]}.get(order)
    if expected is None:
        expected = sum(q**order for q in p) ** (1 / (1 - order))
    assert scores.vendi(
        gram=torch.tensor([[1, 0.6], [0.6, 1]], dtype=torch.float64), order=order
    ) == pytest.approx(expected)


@settings(max_examples=30, deadline=None)
@given(grams, orders)
def test_vendi_lies_between_one_and_n_when_of_any_order(K: torch.Tensor, order: float):
    assert 1 - 1e-9 <= scores.vendi(gram=K, order=order) <= len(K) * (1 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(grams, orders, orders)
def test_vendi_falls_when_the_order_grows(K: torch.Tensor, one: float, other: float):
    low, high = sorted((one, other))
    assert scores.vendi(gram=K, order=low) >= scores.vendi(gram=K, order=high) * (1 - 1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 7), orders, st.randoms(use_true_random=False))
def test_scores_stay_the_same_when_samples_are_permuted(n: int, order: float, random: Any):
    X, Y = rows(n, 3, 0), rows(n, 2, 1)
    turned = random.sample(range(n), n)
    assert scores.vendi(X[turned], order) == pytest.approx(scores.vendi(X, order), rel=1e-6)
    assert scores.conditional_vendi(X[turned], Y[turned], order) == pytest.approx(
        scores.conditional_vendi(X, Y, order), rel=1e-6
    )


@pytest.mark.parametrize("off", [-1e-4, 1e-4, -1e-6, 1e-6])
def test_entropy_is_continuous_when_the_order_is_near_one(off: float):
    K = gram(6, 2)
    assert scores.entropy(K, 1 + off) == pytest.approx(scores.entropy(K, 1), abs=2 * abs(off))


def test_entropy_of_a_large_order_approaches_that_of_infinity_when_it_grows():
    K = gram(6, 2)
    assert scores.entropy(K, 1e6) == pytest.approx(scores.entropy(K, math.inf), rel=1e-5)


def test_rke_equals_the_vendi_score_of_order_two_when_taken_from_eigenvalues():
    K = gram(7, 3)
    eigenvalues = torch.linalg.eigvalsh(K / 7)
    expected = 1 / eigenvalues.square().sum().item()
    assert scores.rke(gram=K) == pytest.approx(expected)
    assert scores.vendi(gram=K, order=2) == pytest.approx(expected)
    assert scores.vendi(gram=K, order=2 + 1e-7) == pytest.approx(
        expected, rel=1e-6
    )  # this one does go through eigenvalues


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 7), orders)
def test_vendi_is_the_product_of_its_parts_when_conditioned(n: int, order: float):
    X, Y = rows(n, 3, 0), rows(n, 2, 1)
    kernels: dict[str, Any] = {"kernel": Gaussian(0.9), "prompt_kernel": Gaussian(0.5)}
    parts = scores.conditional_vendi(X, Y, order, **kernels) * scores.information_vendi(
        X, Y, order, **kernels
    )
    assert parts == pytest.approx(scores.vendi(X, order, kernel=Gaussian(0.9)), rel=1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_conditional_vendi_is_one_when_prompts_determine_samples(order: float):
    prompts = torch.eye(3).repeat_interleave(4, dim=0)
    samples = rows(3, 8).repeat_interleave(4, dim=0)
    assert scores.conditional_vendi(samples, prompts, order) == pytest.approx(1)


@pytest.mark.parametrize("order", ORDERS)
def test_conditional_vendi_counts_within_prompts_when_prompts_are_unlike(order: float):
    prompts, samples = (
        torch.eye(3).repeat_interleave(4, dim=0),
        torch.eye(4).repeat(3, 1),
    )  # the same four samples for each prompt
    assert scores.conditional_vendi(samples, prompts, order) == pytest.approx(4)
    assert scores.information_vendi(samples, prompts, order) == pytest.approx(1)


def test_conditional_vendi_is_the_vendi_score_when_there_is_one_prompt():
    X = rows(6, 3)
    assert scores.conditional_vendi(X, torch.ones(6, 2)) == pytest.approx(scores.vendi(X))


def test_conditional_rke_equals_the_score_of_order_two_when_both_are_given_grams():
    K_X, K_Y = gram(6, 3, 0), gram(6, 2, 1)
    expected = (K_Y**2).sum().item() / ((K_X * K_Y) ** 2).sum().item()
    assert scores.conditional_rke(gram=K_X, prompt_gram=K_Y) == pytest.approx(expected)
    assert scores.conditional_vendi(gram=K_X, prompt_gram=K_Y, order=2) == pytest.approx(expected)


def test_features_and_grams_agree_when_they_are_of_the_same_samples():
    X, Y = rows(5, 3, 0), rows(5, 2, 1)
    given_features = scores.conditional_vendi(
        X, Y, kernel=Gaussian(0.7), prompt_kernel=Gaussian(0.4)
    )
    assert scores.conditional_vendi(
        gram=Gaussian(0.7)(X, X), prompt_gram=Gaussian(0.4)(Y, Y)
    ) == pytest.approx(given_features)


def test_features_are_flattened_when_they_are_images():
    X = rows(4, 12)
    assert scores.vendi(X.view(4, 3, 2, 2)) == scores.vendi(X)


def test_rank_is_not_inflated_by_rounding_when_the_gram_is_single_precision():
    kinds = torch.nn.functional.normalize(rows(3, 40).float()).repeat(5, 1)
    assert scores.vendi(gram=(kinds @ kinds.T), order=0) == pytest.approx(3)
    assert scores.conditional_vendi(
        gram=kinds @ kinds.T, prompt_gram=torch.ones(15, 15, dtype=torch.float64), order=0
    ) == pytest.approx(3)


def test_half_precision_features_are_scored_exactly_when_they_repeat():
    assert scores.vendi(rows(3, 8).half().repeat(4, 1), order=0) == pytest.approx(3)


NAN = torch.tensor([[1.0, math.nan], [0.0, 1.0]])

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "nothing to score: pass features X"),
    (
        {"X": torch.eye(2), "gram": torch.eye(2)},
        "gram is a kernel matrix already; leave out the features X",
    ),
    ({"gram": torch.eye(2), "kernel": Gaussian(1.0)}, "gram is a kernel matrix already"),
    ({"X": torch.eye(2), "order": -1}, "order is -1; it must be a number of at least 0"),
    ({"X": torch.eye(2), "order": math.nan}, "order is nan"),
    ({"X": NAN}, "X has NaN or infinite values"),
    ({"X": torch.ones(3)}, r"X has the shape \(3,\); it must be \(n, …\)"),
    ({"X": torch.ones(0, 3)}, r"X has the shape \(0, 3\)"),
    ({"X": torch.tensor([[1.0, 0.0], [0.0, 0.0]])}, "row 1 of X is all zeros"),
    ({"gram": NAN}, "gram has NaN or infinite values"),
    ({"gram": torch.ones(2, 3)}, r"gram has the shape \(2, 3\); a kernel matrix is square"),
    ({"gram": torch.ones(0, 0)}, r"gram has the shape \(0, 0\)"),
    (
        {"gram": torch.eye(2).half()},
        r"gram has the dtype torch.float16; a kernel matrix must be float32 or float64",
    ),
    (
        {"gram": torch.tensor([[1.0, 0.5], [0.1, 1.0]])},
        "gram is not symmetric: entries differ from their mirror image by up to 0.4",
    ),
    ({"gram": 2 * torch.eye(2)}, "the diagonal of gram is off 1 by up to 1"),
    ({"gram": torch.tensor([[1.0, 7.0], [7.0, 1.0]])}, "gram has an entry of size 7"),
    (
        {"gram": torch.tensor([[1.0, 0.9, 0.0], [0.9, 1.0, 0.9], [0.0, 0.9, 1.0]])},
        "the Gram matrix has the eigenvalue -0.273",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_vendi_is_refused_when_the_input_is_wrong(arguments: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=message):
        scores.vendi(**arguments)


def test_conditional_scores_are_refused_when_samples_and_prompts_differ_in_number():
    for score in (scores.conditional_vendi, scores.conditional_rke, scores.information_vendi):
        with pytest.raises(
            OptionError,
            match="X has 4 samples and Y has 3 prompts; there must be one prompt a sample",
        ):
            score(torch.eye(4), torch.eye(3))


def test_conditional_scores_name_the_prompts_when_those_are_wrong():
    with pytest.raises(OptionError, match="the diagonal of prompt_gram is off 1"):
        scores.conditional_rke(torch.eye(2), prompt_gram=3 * torch.eye(2))
    with pytest.raises(OptionError, match="nothing to score: pass features Y"):
        scores.conditional_vendi(torch.eye(2))
