import pytest
import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.kernels import Cosine, Gaussian, Kernel
from unalike.scores.covariance import covariance, feature_maps, features


def rows(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gram(kernels: list[Kernel], tables: list[Tensor], frequencies: int, seed: int) -> Tensor:
    phi = features(
        feature_maps(kernels, [t.shape[1] for t in tables], frequencies, seed), tables
    ).flatten(1)
    return phi @ phi.T


def test_frequencies_are_equal_when_the_arguments_are():
    (one,), (other,), (third,) = (feature_maps([Gaussian(0.5)], [3], 8, seed) for seed in (1, 1, 2))
    assert one.frequencies is not None
    assert other.frequencies is not None
    assert third.frequencies is not None
    assert one.frequencies.equal(other.frequencies)
    assert not one.frequencies.equal(third.frequencies)


def test_frequencies_of_samples_and_prompts_differ_when_both_kernels_are_gaussian():
    x, y = feature_maps([Gaussian(1.0), Gaussian(1.0)], [3, 3], 8, 0)
    assert x.frequencies is not None
    assert y.frequencies is not None
    assert not x.frequencies.equal(y.frequencies)


@pytest.mark.parametrize(
    "kernels",
    [[Gaussian(0.8), Gaussian(1.3)], [Gaussian(0.8), Cosine()], [Cosine(), Gaussian(1.3)]],
)
def test_products_of_features_are_the_product_of_kernels_on_average(kernels: list[Kernel]):
    tables = [rows(5, 3), rows(5, 2, 1)]
    mean = torch.stack([gram(kernels, tables, 512, seed) for seed in range(20)]).mean(dim=0)
    exact = kernels[0](tables[0], tables[0]) * kernels[1](tables[1], tables[1])
    torch.testing.assert_close(
        mean, exact, rtol=0, atol=0.03
    )  # about four standard deviations of the mean of 10,240 waves
    torch.testing.assert_close(mean.diagonal(), torch.ones(5, dtype=torch.float64))


def test_products_of_features_are_the_kernel_exactly_when_both_are_cosines():
    tables = [rows(6, 3), rows(6, 2, 1)]
    torch.testing.assert_close(
        gram([Cosine(), Cosine()], tables, 8, 0),
        Cosine()(tables[0], tables[0]) * Cosine()(tables[1], tables[1]),
    )


def test_squared_error_of_the_gram_is_as_stated_when_averaged():
    x, r = rows(12, 2), 16
    K = Gaussian(0.9)(x, x)
    found = (
        sum(
            ((gram([Gaussian(0.9)], [x], r, seed) - K) / 12).square().sum().item()
            for seed in range(400)
        )
        / 400
    )
    stated = ((1 - K.square()).square().sum() / (2 * r * 12**2)).item()
    assert found == pytest.approx(stated, rel=0.1)
    assert found < 1 / (2 * r)


def test_covariance_has_the_spectrum_of_the_gram_of_its_features_when_decomposed():
    x, maps = rows(5, 3), feature_maps([Gaussian(0.9)], [3], 8, 0)
    phi = features(maps, [x]).flatten(1)
    found = torch.linalg.eigvalsh(covariance(maps, [x]).matrix().reshape(16, 16))[-5:]
    torch.testing.assert_close(found, torch.linalg.eigvalsh(phi @ phi.T / 5))


def test_covariance_of_kept_frequencies_is_that_of_fewer_when_some_are_left_out():
    x, kept = rows(5, 3), torch.tensor([0, 3, 4])
    maps = feature_maps([Gaussian(0.9)], [3], 8, 0)
    assert maps[0].frequencies is not None
    fewer = [type(maps[0])(3, maps[0].frequencies[kept])]
    torch.testing.assert_close(covariance(maps, [x]).matrix(kept), covariance(fewer, [x]).matrix())


def test_features_are_refused_when_they_are_too_many():
    maps = feature_maps([Gaussian(1.0), Cosine()], [3, 300], 8, 0)
    with pytest.raises(
        OptionError,
        match=r"features of the kernel are 4800 \(2 · 8 waves × 300 numbers a row\); at most 4096",
    ):
        covariance(maps, [rows(2, 3), rows(2, 300)])
    with pytest.raises(
        OptionError,
        match=r"features of the kernel are 6400 \(80 numbers a row × 80 numbers a row\)",
    ):
        covariance(feature_maps([Cosine(), Cosine()], [80, 80], 8, 0), [rows(2, 80), rows(2, 80)])


def test_kernels_are_refused_when_they_have_no_features():
    def linear(a: Tensor, b: Tensor) -> Tensor:
        return a @ b.T

    with pytest.raises(OptionError, match="features are known for Gaussian and Cosine"):
        feature_maps([linear], [3], 8, 0)


@pytest.mark.parametrize("frequencies", [0, -8, 100])
def test_frequencies_are_refused_when_groups_would_differ(frequencies: int):
    with pytest.raises(
        OptionError, match=f"frequencies is {frequencies}; it must be a multiple of 8 above 0"
    ):
        feature_maps([Gaussian(1.0)], [3], frequencies, 0)
