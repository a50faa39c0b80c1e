"""Copies, repetitions, ties, and features of any size: figures that must not depend on them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unalike.errors import OptionError
from unalike.kernels import Cosine, Gaussian, resolved_squares, unit_rows
from unalike.metrics import (
    auth_pct,
    clip_score,
    frechet_distance,
    in_batch_similarity,
    kernel_distance,
    manifolds,
    nearest_distances,
)
from unalike.metrics.copying import authentic
from unalike.scores import median_bandwidth, vendi


def drawn(n: int, d: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


sizes = st.tuples(st.integers(0, 10**6), st.floats(-250, 250))


@pytest.mark.parametrize("noise", [0.0, 1e-12, 1e-3])
@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("block", [7, 2**24])
def test_copies_are_never_authentic_when_the_training_set_repeats_images(
    noise: float, times: int, block: int
):
    x = drawn(20)
    copies = x + noise * drawn(20, seed=1)
    assert auth_pct(copies, x.repeat(times, 1), block=block) == 0
    assert auth_pct(copies.float(), x.float().repeat(times, 1), block=block) == 0


def test_copies_are_not_authentic_when_all_training_samples_are_one_image():
    x = drawn(1).expand(6, -1)
    assert authentic(torch.cat([x[:2], x[:2] + 1]), x).tolist() == [False, False, True, True]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), integer=st.booleans())
def test_authenticity_does_not_change_when_training_samples_are_repeated_or_reordered(
    seed: int, integer: bool
):
    generator = torch.Generator().manual_seed(seed)
    x, g = drawn(12, 2, seed), drawn(30, 2, seed + 1)
    if integer:  # many ties and copies
        x, g = x.mul(2).round().unique(dim=0), g.mul(2).round()
    expected = authentic(g, x)
    again = torch.randint(len(x), (10,), generator=generator)
    order = torch.randperm(len(x) + 10, generator=generator)
    assert torch.equal(authentic(g, torch.cat([x, x[again]])[order]), expected)
    distances = (g[:, None] - x).norm(dim=2)
    among = (x[:, None] - x).norm(dim=2).fill_diagonal_(math.inf).amin(dim=1)
    for own, right in zip(distances, expected.tolist(), strict=True):
        nearest = own <= own.min() * (1 + 1e-9)
        assert right == bool(own.min() > among[nearest].max() * (1 + 1e-9))


def test_a_sample_is_not_authentic_when_it_ties_with_the_nearest_other():
    x = torch.tensor([[0.0], [1.0], [9.0]])
    assert authentic(torch.tensor([[-1.0], [-1.5], [0.5]]), x).tolist() == [False, True, False]


@settings(max_examples=30, deadline=None)
@given(sizes)
def test_figures_follow_the_scale_when_features_have_any_size(size: tuple[int, float]):
    seed, exponent = size
    scale = 2.0 ** round(3 * exponent)
    x, g = drawn(14, seed=seed), drawn(12, seed=seed + 1) / 2
    assert authentic(g * scale, x * scale).tolist() == authentic(g, x).tolist()
    assert manifolds(x * scale, g * scale, k=3) == manifolds(x, g, k=3)
    torch.testing.assert_close(
        nearest_distances(g * scale, x * scale)[0] / scale, nearest_distances(g, x)[0]
    )
    assert median_bandwidth(x * scale) / scale == pytest.approx(median_bandwidth(x), rel=1e-12)
    assert vendi(x * scale) == pytest.approx(vendi(x), rel=1e-9)
    kernel = Gaussian(0.7)
    torch.testing.assert_close(Gaussian(0.7 * scale)(x * scale, g * scale), kernel(x, g))
    torch.testing.assert_close(Cosine()(x * scale, g), Cosine()(x, g))
    if abs(exponent) < 100:
        root = frechet_distance(x * scale, g * scale) ** 0.5
        assert root / scale == pytest.approx(frechet_distance(x, g) ** 0.5, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), offset=st.sampled_from([1e3, 1e4, 1e5, 1e6]))
def test_figures_stay_when_features_share_an_offset(seed: int, offset: float):
    x, g = drawn(14, seed=seed), drawn(12, seed=seed + 1) / 2
    x, g = (x * 2**20).round() / 2**20, (g * 2**20).round() / 2**20  # the sums are exact
    assert authentic(g + offset, x + offset).tolist() == authentic(g, x).tolist()
    assert manifolds(x + offset, g + offset, k=3) == manifolds(x, g, k=3)
    assert median_bandwidth(x + offset) == pytest.approx(median_bandwidth(x), rel=1e-9)
    assert frechet_distance(x + offset, g + offset) == pytest.approx(
        frechet_distance(x, g), rel=1e-6
    )
    assert vendi(x + offset, kernel=Gaussian(0.7)) == pytest.approx(
        vendi(x, kernel=Gaussian(0.7)), rel=1e-6
    )


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e3, 1e6])
def test_kernel_distance_keeps_its_digits_when_features_share_an_offset(offset: float):
    from fractions import Fraction

    x, g = drawn(5, 2), drawn(4, 2, seed=1) / 2
    x, g = (x * 2**10).round() / 2**10 + offset, (g * 2**10).round() / 2**10 + offset
    a, b = ([[Fraction(v) for v in row] for row in rows.tolist()] for rows in (x, g))

    def k(u, v):
        return (sum(p * q for p, q in zip(u, v, strict=True)) / len(u) + 1) ** 3

    def mean(rows):
        pairs = [k(u, v) for i, u in enumerate(rows) for j, v in enumerate(rows) if i != j]
        return sum(pairs) / len(pairs)

    across = [k(u, v) for u in a for v in b]
    exact = float(mean(a) + mean(b) - 2 * sum(across) / len(across))
    assert kernel_distance(x, g) == pytest.approx(exact, rel=1e-9, abs=1e-9)


def test_near_pairs_are_told_apart_when_another_row_is_far_off():
    x = drawn(20)
    far = torch.cat([x, torch.full((1, 4), 1e9, dtype=torch.float64)])
    generated = x + 1e-3 * drawn(20, seed=1)
    torch.testing.assert_close(
        nearest_distances(generated, far)[0], (generated - x).norm(dim=1), rtol=1e-6, atol=0
    )
    assert median_bandwidth(far) == pytest.approx(
        torch.cat([torch.pdist(x), (x - far[-1]).norm(dim=1)]).kthvalue(105).values.item(), rel=1e-6
    )


@pytest.mark.parametrize("times", [1, 3])
def test_balls_hold_copies_and_ties_when_samples_repeat(times: int):
    x = torch.arange(8.0).view(8, 1).repeat(times, 1)
    found = manifolds(x, x, k=1)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    moved = x + 1e6 + 1 / 3  # sums that are rounded
    assert manifolds(moved, moved, k=1).density == found.density
    assert manifolds(x.repeat(2, 1), x + 0.5, k=1).precision == 0  # balls of radius 0


def test_equal_rows_alone_are_at_zero_when_squares_are_resolved():
    x = drawn(6, 3)
    near = torch.cat([x, x, x * (1 + 1e-15)])
    assert torch.equal(resolved_squares(near, near) == 0, (near[:, None] == near).all(dim=2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_unit_rows_have_norm_one_when_squares_would_vanish_or_overflow(dtype: torch.dtype):
    info = torch.finfo(dtype)
    for size in (info.tiny, info.tiny**0.6, 1.0, info.max**0.6, info.max / 8):
        x = torch.tensor([[3.0, 4.0]], dtype=torch.float64).mul(size).to(dtype)
        torch.testing.assert_close(
            unit_rows(x).double(),
            torch.tensor([[0.6, 0.8]], dtype=torch.float64),
            atol=8 * info.eps,
            rtol=0,
        )


def test_scores_are_one_when_all_samples_are_equal():
    x = drawn(1).expand(9, -1)
    for kernel in (Cosine(), Gaussian(0.5)):
        assert vendi(x + 1e6, kernel=kernel) == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clip_score(torch.zeros(2, 3), drawn(2, 3)), "row 0 of images is all zeros"),
        (lambda: clip_score(drawn(2, 3), torch.eye(3)[:2] * 0), "row 0 of prompts is all zeros"),
        (lambda: in_batch_similarity(torch.eye(3) * torch.tensor([1.0, 0, 1])), "row 1 of images"),
        (lambda: auth_pct(drawn(3), drawn(3) * math.nan), "training has NaN"),
        (lambda: auth_pct(drawn(3), drawn(3).to(torch.complex64)), "training is complex"),
        (lambda: nearest_distances(drawn(3) * 1e305, drawn(3)), "generated has numbers beyond"),
        (lambda: kernel_distance(drawn(3) * 1e120, drawn(3)), "so large that float64"),
        (lambda: frechet_distance(drawn(3) * 1e170, drawn(3)), "so large that float64"),
        (lambda: kernel_distance(drawn(3), drawn(1)), "at least 2 samples"),
        (lambda: median_bandwidth(drawn(1).expand(4, -1)), "half of the pairs"),
    ],
)
def test_error_says_what_is_wrong_when_there_is_no_figure(call, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        call()
