import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unalike import scores
from unalike.errors import OptionError
from unalike.kernels import Cosine, Gaussian
from unalike.scores import ConditionalVendiStream, InformationVendiStream, VendiStream


def rows(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


KERNELS = [Gaussian(1.2), Cosine()]
orders = st.sampled_from([0.5, 1.0, 2.0, math.inf])
cuts = st.lists(st.integers(1, 19), unique=True).map(sorted)


def close(found: scores.Estimate, expected: scores.Estimate) -> None:
    assert found.value == pytest.approx(expected.value, rel=1e-9)
    assert found.error == pytest.approx(expected.error, rel=1e-6, abs=1e-9)
    assert found.bias == pytest.approx(expected.bias, rel=1e-6, abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(cuts, orders, st.sampled_from(KERNELS), st.sampled_from(KERNELS), st.integers(0, 3))
def test_streams_give_what_one_shot_does_when_samples_come_in_blocks(
    ends: list[int], order: float, kernel: Any, prompt_kernel: Any, seed: int
):
    X, Y = rows(20, 3), rows(20, 2, 1)
    shared: dict[str, Any] = {"order": order, "kernel": kernel, "frequencies": 8, "seed": seed}
    pair = {**shared, "prompt_kernel": prompt_kernel}
    one, two, three = (
        VendiStream(**shared),
        ConditionalVendiStream(**pair),
        InformationVendiStream(**pair),
    )
    for x, y in zip(X.tensor_split(ends), Y.tensor_split(ends), strict=True):
        one.update(x)
        two.update(x, y)
        three.update(x, y)
    close(one.compute(), scores.approximate_vendi(X, **shared))
    close(two.compute(), scores.approximate_conditional_vendi(X, Y, **pair))
    close(three.compute(), scores.approximate_information_vendi(X, Y, **pair))
    assert one.n == two.n == three.n == 20


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 20), orders, st.sampled_from(KERNELS))
def test_streams_give_what_one_does_when_merged(cut: int, order: float, kernel: Any):
    X = rows(20, 3)
    whole, first, second = (VendiStream(order, kernel=kernel, frequencies=8) for _ in range(3))
    whole.update(X)
    if cut > 0:
        first.update(X[:cut])
    if cut < 20:
        second.update(X[cut:])
    first.merge(second)
    close(first.compute(), whole.compute())
    assert second.n == 20 - cut


def test_other_stream_stays_as_it_is_when_merged_and_this_one_goes_on():
    first, second = VendiStream(), VendiStream()
    second.update(rows(4, 3))
    before = second.compute()
    first.merge(second)
    first.update(rows(5, 3, 1))
    assert second.n == 4
    assert second.compute() == before


def test_stream_begins_anew_when_reset():
    stream = VendiStream(frequencies=8)
    stream.update(rows(4, 3))
    stream.reset()
    assert stream.n == 0
    stream.update(rows(6, 5, 1))  # of another size, too
    close(stream.compute(), scores.approximate_vendi(rows(6, 5, 1)))


def test_state_does_not_grow_when_samples_come():
    stream = VendiStream(kernel=Gaussian(1.0), frequencies=8)
    held = set()
    for seed in range(3):
        stream.update(rows(50, 3, seed))
        held.add(sum(v.total.numel() for v in stream._sums or ()))
    assert held == {16 * 16}


def test_features_may_be_images_when_they_are_flattened():
    stream = VendiStream()
    stream.update(rows(4, 12).view(4, 3, 2, 2))
    assert stream.compute() == scores.approximate_vendi(rows(4, 12))


def test_rows_of_another_size_are_refused_and_change_nothing_when_samples_came_before():
    stream = ConditionalVendiStream()
    stream.update(rows(4, 3), rows(4, 2))
    before = stream.compute()
    with pytest.raises(
        OptionError, match="Y has 5 numbers a row, after rows of 2; take one extractor for all"
    ):
        stream.update(rows(4, 3), rows(4, 5))
    with pytest.raises(OptionError, match="X has 4 samples and Y has 3 prompts"):
        stream.update(rows(4, 3), rows(3, 2))
    assert stream.compute() == before


def test_first_samples_can_be_given_again_when_they_were_refused():
    stream = VendiStream()
    with pytest.raises(OptionError, match="at most 4096"):
        stream.update(torch.ones(2, 5000))
    stream.update(torch.eye(3))
    assert stream.compute().value == pytest.approx(3)


def test_result_is_refused_when_there_were_no_samples():
    with pytest.raises(
        OptionError, match=r"VendiStream has seen no samples; call update\(…\) before compute"
    ):
        VendiStream().compute()


@pytest.mark.parametrize(
    "other",
    [
        VendiStream(2),
        VendiStream(kernel=Gaussian(1.0)),
        VendiStream(frequencies=8),
        VendiStream(seed=1),
    ],
)
def test_merging_is_refused_when_settings_differ(other: VendiStream):
    with pytest.raises(OptionError, match="streams merge where their settings are equal"):
        VendiStream().merge(other)


def test_merging_is_refused_when_rows_differ_in_size():
    one, other = VendiStream(), VendiStream()
    one.update(rows(3, 2))
    other.update(rows(3, 4))
    with pytest.raises(OptionError, match=r"rows have equal sizes: here \[2\], in the other \[4\]"):
        one.merge(other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": -2}, "order is -2"),
        ({"frequencies": 9}, "frequencies is 9"),
        ({"kernel": torch.matmul}, "features are known for"),
    ],
)
def test_settings_are_refused_when_they_are_wrong(arguments: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=message):
        VendiStream(**arguments)
