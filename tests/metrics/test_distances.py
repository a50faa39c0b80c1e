import numpy
import pytest
import scipy.linalg
import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.metrics import frechet_distance, kernel_distance


def drawn(n: int, d: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) @ torch.randn(d, d, generator=generator) + seed


def test_frechet_distance_is_that_of_the_matrix_square_root() -> None:
    x, y = drawn(60), drawn(50, seed=1)
    a, b = (numpy.cov(v.double().numpy(), rowvar=False) for v in (x, y))
    cross = numpy.real(numpy.asarray(scipy.linalg.sqrtm(a @ b)))
    wanted = float((x.double().mean(0) - y.double().mean(0)).square().sum()) + numpy.trace(
        a + b - 2 * cross
    )
    assert frechet_distance(x, y) == pytest.approx(wanted, rel=1e-6)


def test_frechet_distance_is_the_formula_when_both_are_normal_along_a_line() -> None:
    x = torch.tensor([[-1.0], [1.0]]) / 2**0.5  # mean 0, variance 1
    assert frechet_distance(x, 3 * x + 2) == pytest.approx(2**2 + (3 - 1) ** 2)


def test_frechet_distance_is_0_when_sets_are_equal_and_smaller_than_their_features() -> None:
    assert frechet_distance(drawn(10, 40), drawn(10, 40).flip(0)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("block", [1, 64, 2**24])
def test_kernel_distance_is_the_mean_over_pairs_when_blocks_are_of_any_size(block: int) -> None:
    x, y = drawn(12).double(), drawn(9, seed=1).double()

    def k(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    own = [[k(u, v) for i, u in enumerate(s) for j, v in enumerate(s) if i != j] for s in (x, y)]
    cross = [k(u, v) for u in x for v in y]
    wanted = sum(own[0]) / len(own[0]) + sum(own[1]) / len(own[1]) - 2 * sum(cross) / len(cross)
    assert kernel_distance(x, y, block=block) == pytest.approx(wanted, rel=1e-9)


def test_kernel_distance_is_about_0_on_average_when_distributions_are_equal() -> None:
    parts = [torch.randn(40, 3, generator=torch.Generator().manual_seed(s)) for s in range(40)]
    found = torch.tensor(
        [kernel_distance(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    )
    assert abs(found.mean().item()) < 3 * found.std().item() / len(found) ** 0.5
    assert (found < 0).any()


@pytest.mark.parametrize("metric", [frechet_distance, kernel_distance])
def test_error_says_what_is_wrong_when_the_sets_do_not_fit(metric) -> None:
    with pytest.raises(OptionError, match=r"real has 5 features a sample and generated has 4"):
        metric(drawn(6), drawn(6, 4))
    with pytest.raises(OptionError, match="generated has NaN or infinite values"):
        metric(drawn(6), drawn(6) / 0)
    with pytest.raises(OptionError, match=r"real has the shape \(1, 5\); .* at least 2 samples"):
        metric(drawn(1), drawn(6))
