"""Our scores beside those of the authors' own package, vendi-score 0.0.3: equal where that one is
right, and what it gets wrong.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from vendi_score import vendi

from unalike import scores
from unalike.kernels import Gaussian

theirs: Any = vendi  # its annotations, taken from defaults, allow whole orders alone
pytestmark = pytest.mark.filterwarnings(
    "ignore:Please import `csr_matrix`:DeprecationWarning"
)  # it still uses SciPy's old name of it


def rows(n: int, d: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("order", [0.5, 1, 2, 5])
def test_vendi_equals_theirs_when_from_features_or_a_gram(order: float):
    X, K = rows(20, 5), Gaussian(1.0)(rows(20, 5), rows(20, 5))
    assert scores.vendi(X, order) == pytest.approx(theirs.score_dual(X.numpy(), q=order))
    assert scores.approximate_vendi(X, order).value == pytest.approx(
        theirs.score_dual(X.numpy(), q=order)
    )
    assert scores.vendi(gram=K, order=order) == pytest.approx(theirs.score_K(K.numpy(), q=order))


def test_vendi_equals_theirs_when_the_kernel_is_a_function_of_two_samples():
    X = rows(12, 3)
    expected = theirs.score(
        list(X.numpy()), lambda a, b: math.exp(-((a - b) ** 2).sum() / (2 * 0.8**2))
    )
    assert scores.vendi(X, kernel=Gaussian(0.8)) == pytest.approx(expected)


def test_vendi_of_infinite_order_equals_theirs_when_they_are_given_the_word():
    X = rows(20, 5)
    assert scores.vendi(X, math.inf) == pytest.approx(theirs.score_dual(X.numpy(), q="inf"))
    with np.errstate(all="ignore"):
        assert math.isnan(
            theirs.score_dual(X.numpy(), q=math.inf)
        )  # but not the number: they divide infinity by it


def test_order_counts_when_theirs_is_from_features():
    X = rows(20, 5)
    assert theirs.score_X(X.numpy(), q=2) == theirs.score_X(
        X.numpy(), q=1
    )  # they leave the order out there
    assert scores.vendi(X, 2) == pytest.approx(theirs.score_dual(X.numpy(), q=2))
    assert scores.vendi(X, 2) < scores.vendi(X, 1) - 0.1


def test_kinds_are_counted_when_theirs_counts_rounding_too():
    kinds = torch.nn.functional.normalize(rows(3, 40)).repeat(5, 1)
    assert scores.vendi(kinds, 0) == pytest.approx(3)
    assert theirs.score_dual(kinds.numpy(), q=0) > 4  # each eigenvalue above 0, however small
