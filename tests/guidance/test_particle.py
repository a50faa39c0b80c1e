import math
from typing import Any

import pytest
import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.guidance.context import Context
from unalike.guidance.level import Level
from unalike.guidance.particle import ParticleGuidance


def drawn(n: int, d: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def at(
    x_t: Tensor, groups: list[int] | None = None, alpha: float = 0.8, sigma: float = 0.6
) -> Context:
    own = torch.tensor(groups or [0] * len(x_t))
    return Context(
        step=1,
        steps=8,
        level=Level(alpha, sigma, 0.9, 0.4),
        x_t=x_t,
        groups=own,
    )


def delta(x0: Tensor, context: Context, **options: Any) -> Tensor:
    found = ParticleGuidance(**{"strength": 2.0, **options}).x0_delta(x0, context)
    assert found is not None
    return found


def potential(u: Tensor, h: float) -> Tensor:
    return sum(
        (torch.exp(-(a - b).square().sum() / h) for i, a in enumerate(u) for b in u[i + 1 :]),
        u.new_zeros(()),
    )


def bandwidth(u: Tensor) -> float:
    pairs = torch.stack([(a - b).norm() for i, a in enumerate(u) for b in u[i + 1 :]])
    return pairs.square().quantile(0.5).item() / math.log(len(u))


@pytest.mark.parametrize("count", [2, 3, 7])
def test_correction_is_the_finite_difference_of_the_potential_when_in_latent_space(
    count: int,
) -> None:
    x0, x_t = drawn(count), drawn(count, seed=1)
    found, h, step = delta(x0, at(x_t)), bandwidth(x_t), 1e-6
    for i in range(count):
        for j in range(x_t.shape[1]):
            shift = torch.zeros_like(x_t)
            shift[i, j] = step
            slope = (potential(x_t + shift, h) - potential(x_t - shift, h)) / (2 * step)
            assert found[i, j].item() == pytest.approx(
                -2.0 * 0.6**2 / 0.8 * slope.item(), rel=1e-6, abs=1e-9
            )


def test_correction_is_the_finite_difference_through_the_features_when_they_are_given() -> None:
    x0, mixing = drawn(3), drawn(6, 4, seed=2)

    def features(x: Tensor) -> Tensor:
        return torch.tanh(x @ mixing)

    found, h, step = (
        delta(x0, at(drawn(3, seed=1)), features=features),
        bandwidth(features(x0)),
        1e-6,
    )
    for i in range(3):
        for j in range(6):
            shift = torch.zeros_like(x0)
            shift[i, j] = step
            slope = (potential(features(x0 + shift), h) - potential(features(x0 - shift), h)) / (
                2 * step
            )
            assert found[i, j].item() == pytest.approx(
                -2.0 * 0.6**2 / 0.8**2 * slope.item(), rel=1e-5, abs=1e-9
            )


def test_features_are_differentiated_when_a_pipeline_has_turned_gradients_off() -> None:
    x0, context = drawn(3), at(drawn(3, seed=1))
    with torch.no_grad():
        found = delta(x0, context, features=torch.sin)
    assert torch.equal(found, delta(x0, context, features=torch.sin))


def test_images_of_other_prompts_do_not_count() -> None:
    x0, x_t = drawn(5), drawn(5, seed=1)
    together = delta(x0, at(x_t, [0, 1, 0, 1, 2]))
    for own in ([0, 2], [1, 3]):
        torch.testing.assert_close(together[own], delta(x0[own], at(x_t[own])))
    assert torch.equal(together[4], torch.zeros_like(together[4]))


def test_images_are_left_alone_when_they_are_alone_or_equal_or_pure_noise() -> None:
    x = drawn(3)
    assert ParticleGuidance().x0_delta(x, at(x, [0, 1, 2])) is None
    assert ParticleGuidance().x0_delta(x, at(x, alpha=0.0, sigma=1.0)) is None
    assert torch.equal(delta(x, at(x[:1].expand(3, -1))), torch.zeros_like(x))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (lambda x: x.sum(), r"features returned \(\) for 3 latents"),
        (lambda x: x[:2], r"features returned \(2, 6\) for 3 latents"),
        (lambda x: x.detach(), r"by operations that torch can differentiate"),
        (lambda x: None, "features returned NoneType"),
    ],
)
def test_error_says_what_features_returned_when_they_do_not_fit(
    features: Any, message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        delta(drawn(3), at(drawn(3)), features=features)


def test_error_names_features_when_they_are_no_function() -> None:
    wrong: Any = "dinov2"
    with pytest.raises(OptionError, match="features is a str; allowed: a function"):
        ParticleGuidance(features=wrong)
