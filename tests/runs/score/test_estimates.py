import math

import pytest
import torch

from unalike import metrics, scores
from unalike.kernels import Cosine, Gaussian
from unalike.runs.score import estimates
from unalike.runs.score.bootstrap import interval
from unalike.runs.score.spectrum import of_features, within_groups

KERNELS = [Cosine(), Gaussian(1.5)]
GROUPS = torch.arange(30) % 4
PROMPTS = torch.eye(4, dtype=torch.float64)[GROUPS]


def points(n, d, seed=0, shift=0.0):
    return (
        torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        + shift
    )


def weighted_entropy(gram, weights, order):
    """`H_q` of samples with these weights, from the definition."""
    roots = weights.sqrt()
    values = torch.linalg.eigvalsh(roots[:, None] * gram * roots).clamp_min(1e-300)
    if order == math.inf:
        return -math.log(values[-1])
    if order == 1:
        return -(values * values.log()).sum().item()
    return math.log(values.pow(order).sum().item()) / (1 - order)


def slope(gram, i, order, step=1e-6):
    """How the entropy changes as weight moves from all samples to the i-th: its influence function
    by finite differences.
    """
    n = len(gram)
    ends = []
    for sign in (1, -1):
        weights = torch.full((n,), (1 - sign * step) / n, dtype=torch.float64)
        weights[i] += sign * step
        ends.append(weighted_entropy(gram, weights, order))
    return (ends[0] - ends[1]) / (2 * step)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [(30, 6), (12, 20)], ids=["more samples", "more numbers"])
def test_values_are_those_of_the_scores_when_features_are_scored(kernel, size):
    X = points(*size)
    found = estimates.diversity(X, kernel)
    assert found["vendi"].value == pytest.approx(scores.vendi(X, kernel=kernel), rel=1e-9)
    assert found["rke"].value == pytest.approx(scores.rke(X, kernel=kernel), rel=1e-9)
    assert found["vendi_inf"].value == pytest.approx(
        scores.vendi(X, math.inf, kernel=kernel), rel=1e-9
    )


@pytest.mark.parametrize("order", [1, 2, math.inf])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [(12, 4), (8, 20)], ids=["more samples", "more numbers"])
def test_influence_is_the_derivative_in_the_weights_when_an_entropy_is_taken(order, kernel, size):
    X = points(*size)
    _, influence = of_features(X, kernel).entropy(order)
    gram = kernel(X, X)
    expected = torch.tensor([slope(gram, i, order) for i in range(len(X))], dtype=torch.float64)
    torch.testing.assert_close(influence, expected, rtol=1e-4, atol=1e-5)
    assert influence.mean().abs() < 1e-9


@pytest.mark.parametrize("order", [1, 2, math.inf])
@pytest.mark.parametrize("kernel", KERNELS)
def test_spectrum_of_groups_is_that_of_the_product_when_it_falls_apart(order, kernel):
    X = points(30, 5)
    joint = kernel(X, X) * (GROUPS[:, None] == GROUPS)
    entropy, influence = within_groups(X, kernel, GROUPS).entropy(order)
    assert entropy == pytest.approx(scores.entropy(joint, order))
    expected = torch.tensor([slope(joint, i, order) for i in (0, 7)], dtype=torch.float64)
    torch.testing.assert_close(influence[[0, 7]], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "given", [None, Cosine()(PROMPTS, PROMPTS)], ids=["same prompt", "kernel of prompts"]
)
def test_conditional_scores_are_those_of_the_scores_when_there_are_prompts(kernel, given):
    X = points(30, 5)
    found = estimates.given_prompts(X, kernel, GROUPS, given)
    assert found["conditional_vendi"].value == pytest.approx(
        scores.conditional_vendi(X, PROMPTS, kernel=kernel), rel=1e-9
    )
    assert found["information_vendi"].value == pytest.approx(
        scores.information_vendi(X, PROMPTS, kernel=kernel), rel=1e-9
    )
    assert found["conditional_vendi"].value * found["information_vendi"].value == pytest.approx(
        estimates.diversity(X, kernel)["vendi"].value
    )


def test_interval_has_no_width_when_all_samples_are_copies_or_have_nothing_in_common():
    for X, value in ((torch.ones(9, 4), 1.0), (torch.eye(9), 9.0)):
        for estimate in estimates.diversity(X, Cosine()).values():
            assert estimate.value == pytest.approx(value)
            assert interval(estimate, None, draws=200, seed=0) == pytest.approx(
                (value, value), abs=1e-6
            )


def test_intervals_hold_the_truth_about_as_often_as_they_say_when_sets_are_drawn_anew():
    shares = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    truth = {
        "vendi": math.exp(-(shares * shares.log()).sum()),
        "rke": 1 / shares.square().sum().item(),
    }
    held = dict.fromkeys(truth, 0)
    for seed in range(100):
        drawn = torch.multinomial(
            shares, 150, replacement=True, generator=torch.Generator().manual_seed(seed)
        )
        found = estimates.diversity(torch.eye(4)[drawn], Cosine())
        for name, value in truth.items():
            low, high = interval(found[name], None, draws=200, seed=seed) or (0, 0)
            held[name] += low <= value <= high
    assert all(85 <= count <= 100 for count in held.values()), held


def left_out(metric, X):
    """Jackknife pseudo-influences `(n - 1) (θ - θ without i)`."""
    n, full = len(X), metric(X)
    return torch.tensor(
        [(n - 1) * (full - metric(torch.cat([X[:i], X[i + 1 :]]))) for i in range(n)],
        dtype=torch.float64,
    )


REAL, DRAWN = points(40, 5), 0.8 * points(50, 5, seed=1, shift=0.3)
FEW_REAL, FEW_DRAWN = points(30, 60), points(25, 60, seed=1, shift=0.2)
DISTANCES = {
    "similarity": (
        lambda g: estimates.similarity(g),
        lambda g: metrics.in_batch_similarity(g),
        DRAWN,
        0.999,
    ),
    "kernel distance": (
        lambda g: estimates.kernel(REAL, g),
        lambda g: metrics.kernel_distance(REAL, g),
        DRAWN,
        0.999,
    ),
    "Fréchet distance": (
        lambda g: estimates.frechet(REAL, g),
        lambda g: metrics.frechet_distance(REAL, g),
        DRAWN,
        0.97,
    ),
    "Fréchet distance of few": (
        lambda g: estimates.frechet(FEW_REAL, g),
        lambda g: metrics.frechet_distance(FEW_REAL, g),
        FEW_DRAWN,
        0.85,
    ),
}


@pytest.mark.parametrize(
    ("estimate", "metric", "drawn", "least"), DISTANCES.values(), ids=DISTANCES
)
def test_value_is_that_of_the_metric_and_influence_follows_leaving_out_when_sets_are_compared(
    estimate, metric, drawn, least
):
    found = estimate(drawn)
    assert found.value == pytest.approx(metric(drawn), rel=1e-5)
    pseudo = left_out(metric, drawn)
    assert torch.corrcoef(torch.stack([found.influence, pseudo - pseudo.mean()]))[0, 1] > least
    assert found.influence.std().item() == pytest.approx(pseudo.std().item(), rel=0.25)


def test_neighbourhoods_are_those_of_the_metrics_when_sets_are_compared():
    expected = metrics.manifolds(REAL, DRAWN, k=3)
    found = estimates.neighbourhood(REAL, DRAWN, 3)
    assert {name: e.value for name, e in found.items()} == pytest.approx(vars(expected))
    assert {
        name: (e.influence is not None and len(e.influence), e.of_reference)
        for name, e in found.items()
    } == {
        "precision": (50, False),
        "recall": (40, True),
        "density": (50, False),
        "coverage": (40, True),
    }


def test_copying_is_that_of_the_metrics_when_sets_are_compared():
    found = {
        name: e.value for name, e in estimates.copying(REAL, DRAWN, unit=2.0, radius=0.5).items()
    }
    nearest = metrics.nearest_distances(DRAWN, REAL)[0]
    assert found == pytest.approx(
        {
            "nearest_distance": nearest.mean().item() / 2,
            "smallest_distance": nearest.min().item() / 2,
            "auth_pct": metrics.auth_pct(DRAWN, REAL),
            "share_inside": metrics.share_inside(DRAWN, REAL, 1.0),
        }
    )


def test_clip_score_is_that_of_the_metric_when_embeddings_are_given():
    assert estimates.clip_fit(REAL, REAL + 1).value == pytest.approx(
        metrics.clip_score(REAL, REAL + 1)
    )
