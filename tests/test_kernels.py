import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unalike.errors import OptionError
from unalike.kernels import Cosine, Gaussian, Kernel, squared_distances, unit_rows

KERNELS = [pytest.param(Gaussian(0.7), id="gaussian"), pytest.param(Cosine(), id="cosine")]


def rows(n: int, d: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


sizes = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(0, 1000))


def test_distances_equal_the_differences_when_taken_one_pair_at_a_time():
    a, b = rows(4, 3, 0), rows(5, 3, 1)
    expected = torch.tensor(
        [[((x - y) ** 2).sum().item() for y in b] for x in a], dtype=torch.float64
    )
    torch.testing.assert_close(squared_distances(a, b), expected)


def test_distances_keep_their_digits_when_rows_share_a_large_offset():
    a, b = rows(4, 3, 0), rows(5, 3, 1)
    offset = 1e4
    near = squared_distances((a + offset).float(), (b + offset).float())
    exact = (((a + offset).float().double()[:, None] - (b + offset).float().double()) ** 2).sum(2)
    torch.testing.assert_close(
        near.double(), exact, rtol=1e-5, atol=1e-5
    )  # without centring the error is in the tens


@settings(max_examples=25, deadline=None)
@given(sizes)
def test_distances_to_oneself_are_zero_when_rows_repeat(size: tuple[int, int, int]):
    x = rows(*size, dtype=torch.float32).repeat(2, 1)
    distances = squared_distances(x, x)
    assert distances.diagonal().eq(0).all()
    assert distances.ge(0).all()


@settings(max_examples=25, deadline=None)
@given(sizes, st.floats(1e-6, 1e6))
def test_unit_rows_have_norm_one_when_scaled(size: tuple[int, int, int], scale: float):
    x = rows(*size)
    torch.testing.assert_close(unit_rows(x * scale).norm(dim=1), torch.ones(len(x), dtype=x.dtype))
    torch.testing.assert_close(unit_rows(x * scale), unit_rows(x))


def test_unit_rows_stay_zero_when_zero():
    assert unit_rows(torch.zeros(2, 3)).eq(0).all()


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=25, deadline=None)
@given(size=sizes)
def test_gram_is_a_normalised_kernel_matrix_when_taken_of_one_set(
    kernel: Kernel, size: tuple[int, int, int]
):
    x = rows(*size)
    gram = kernel(x, x)
    assert gram.diagonal().eq(1).all()
    assert gram.abs().max() <= 1
    torch.testing.assert_close(gram, gram.T)
    assert torch.linalg.eigvalsh(gram).min() > -1e-12 * len(x)


@pytest.mark.parametrize("kernel", KERNELS)
def test_gram_of_two_sets_is_a_block_of_the_whole_when_they_are_joined(kernel: Kernel):
    a, b = rows(3, 4, 0), rows(2, 4, 1)
    whole = torch.cat([a, b])
    torch.testing.assert_close(kernel(a, b), kernel(whole, whole)[:3, 3:])


@pytest.mark.parametrize("kernel", KERNELS)
def test_gram_follows_the_order_of_the_rows_when_permuted(kernel: Kernel):
    x, order = rows(5, 3, 0), torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(kernel(x[order], x[order]), kernel(x, x)[order][:, order])


def test_gaussian_equals_its_formula_when_written_out():
    a, b = rows(2, 3, 0), rows(3, 3, 1)
    expected = [
        [math.exp(-(math.dist(x.tolist(), y.tolist()) ** 2) / (2 * 0.7**2)) for y in b] for x in a
    ]
    torch.testing.assert_close(Gaussian(0.7)(a, b), torch.tensor(expected, dtype=torch.float64))


def test_gaussian_log_keeps_the_order_when_the_kernel_underflows():
    far = torch.tensor([[1e3], [2e3]])
    kernel = Gaussian(1.0)
    assert kernel(torch.zeros(1, 1), far).eq(0).all()
    log = kernel.log(torch.zeros(1, 1), far)[0]
    assert log[0] > log[1] > -math.inf


def test_cosine_ignores_the_length_when_rows_are_scaled():
    a, b = rows(3, 4, 0), rows(2, 4, 1)
    torch.testing.assert_close(Cosine()(5 * a, 0.1 * b), Cosine()(a, b))


@pytest.mark.parametrize("bandwidth", [0, -1.0, math.nan, math.inf])
def test_gaussian_is_refused_when_the_bandwidth_is_not_above_zero(bandwidth: float):
    with pytest.raises(
        OptionError,
        match=r"bandwidth is .*; it must be a finite number above 0, such as Gaussian\(0.8\)",
    ):
        Gaussian(bandwidth)
