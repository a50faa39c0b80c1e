import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from unalike.errors import OptionError
from unalike.kernels import Gaussian
from unalike.scores import bandwidth, median_bandwidth


def rows(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lower_median(X: torch.Tensor) -> float:
    distances = np.sort(pdist(X.numpy()))
    return float(distances[(len(distances) - 1) // 2])


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 40),
    st.integers(1, 4),
    st.integers(0, 99),
    st.sampled_from([0, 7, 10**6]),
    st.sampled_from([1e-3, 1.0, 1e4]),
)
def test_bandwidth_is_the_median_distance_when_distances_are_sorted_counted_or_both(
    n: int, d: int, seed: int, kept: int, scale: float
):
    X = scale * rows(n, d, seed) + scale
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bandwidth, "_SORTED", kept)
        patch.setattr(bandwidth, "_HELD", 64)
        assert median_bandwidth(X) == pytest.approx(lower_median(X), rel=1e-9)


@pytest.mark.parametrize("kept", [0, 10**6])
def test_bandwidth_is_right_when_many_distances_are_equal(
    monkeypatch: pytest.MonkeyPatch, kept: int
):
    monkeypatch.setattr(bandwidth, "_SORTED", kept)
    X = torch.tensor([0.0, 0.0, 0.0, 2.0, 2.0, 2.0])[:, None]  # nine distances of 2, six of 0
    assert median_bandwidth(X) == 2


def test_bandwidth_follows_the_units_when_data_are_scaled():
    assert median_bandwidth(3 * rows(20, 4)) == pytest.approx(3 * median_bandwidth(rows(20, 4)))


def test_bandwidth_fits_a_gaussian_kernel_when_taken_as_its_own():
    X = rows(31, 4)
    k = Gaussian(median_bandwidth(X))(X, X)[tuple(torch.triu_indices(31, 31, 1))]
    assert k.median().item() == pytest.approx(np.exp(-0.5))


def test_bandwidth_is_refused_when_half_of_the_pairs_are_equal():
    X = torch.cat([rows(1, 3).repeat(9, 1), rows(1, 3, 1)])
    with pytest.raises(OptionError, match="half of the pairs in X are of equal samples"):
        median_bandwidth(X)


def test_bandwidth_is_refused_when_there_is_one_sample():
    with pytest.raises(OptionError, match="X has 1 sample; a bandwidth needs at least 2"):
        median_bandwidth(rows(1, 3))
