"""The samplers of k-diffusion as they come from PyPI."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from tests.attach.functions.denoisers import OneImage, Shift, Watch, digits, emoji, noise
from tests.attach.functions.samplers import k_diffusion_sampling
from torch import Tensor

from unalike import SPARKE, SPELL, Memory, Shield
from unalike.attach import guide_denoiser

pytestmark = pytest.mark.filterwarnings(
    "ignore:Should have t[ab]:UserWarning"
)  # noise is asked for beyond its range by a rounding error
SAMPLERS = (
    "sample_euler",
    "sample_euler_ancestral",
    "sample_heun",
    "sample_dpm_2",
    "sample_dpm_2_ancestral",
    "sample_lms",
    "sample_dpmpp_2s_ancestral",
    "sample_dpmpp_2m",
    "sample_dpmpp_sde",
    "sample_dpmpp_2m_sde",
    "sample_dpmpp_3m_sde",
)
CHURNING = ("sample_euler", "sample_heun", "sample_dpm_2")
IMAGE = torch.linspace(-1, 1, 3 * 16).reshape(3, 4, 4)
LABELS = torch.tensor([3, 3, 8, 8])


@pytest.fixture(scope="module")
def sampling() -> Any:
    module = k_diffusion_sampling()
    if module is None:
        pytest.skip("k-diffusion is not installed; make test installs it")
    return module


@pytest.fixture
def sigmas(sampling: Any) -> Tensor:
    return sampling.get_sigmas_karras(6, 0.05, 80.0)


@pytest.fixture
def few(sampling: Any) -> Tensor:
    return sampling.get_sigmas_karras(4, 0.1, 80.0)


def run(sample: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    """With the same random numbers each time: the samplers take torch's own."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return sample(*args, disable=True, **kwargs)


def labelled(x: Tensor, sigma: Tensor) -> Tensor:
    return digits()(x, sigma, LABELS)


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_are_bit_identical_when_nothing_is_corrected(
    sampling: Any, few: Tensor, name: str
) -> None:
    x, sampler = 80 * noise(4, 4, 8, 8), getattr(sampling, name)
    guided = guide_denoiser(labelled, SPARKE(strength=0.0), SPELL(radius=1e-3), sigmas=few)
    assert torch.equal(
        run(partial(guided.sample, sampler), x, few), run(partial(sampler, labelled), x, few)
    )


@pytest.mark.parametrize("name", SAMPLERS)
def test_result_is_that_of_the_shifted_image_when_every_prediction_is_shifted(
    sampling: Any, sigmas: Tensor, name: str
) -> None:
    x, sampler = 80 * noise(2, 3, 4, 4), getattr(sampling, name)
    guided = guide_denoiser(OneImage(IMAGE), Shift(), sigmas=sigmas)
    result = run(partial(guided.sample, sampler), x, sigmas)
    torch.testing.assert_close(
        result, run(partial(sampler, OneImage(IMAGE + 0.7)), x, sigmas), atol=1e-4, rtol=0
    )
    if name != "sample_lms":  # which does not arrive at the prediction itself
        torch.testing.assert_close(result, (IMAGE + 0.7).expand(2, 3, 4, 4), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CHURNING)
def test_result_is_that_of_the_shifted_image_when_there_is_churn(
    sampling: Any, sigmas: Tensor, name: str
) -> None:
    x, sampler, watch = 80 * noise(2, 3, 4, 4), getattr(sampling, name), Watch()
    guided = guide_denoiser(
        OneImage(IMAGE), Shift(), watch, sigmas=sigmas, churn=3.0, churn_range=(0.1, 50.0)
    )
    result = run(partial(guided.sample, sampler), x, sigmas, s_churn=3.0, s_tmin=0.1, s_tmax=50.0)
    torch.testing.assert_close(result, (IMAGE + 0.7).expand(2, 3, 4, 4), atol=1e-4, rtol=0)
    raised = [c for c in watch.seen if c.level.sigma > 1.3 * float(sigmas[c.step])]
    assert [c.step for c in raised] == [
        i for i, s in enumerate(sigmas[:-1].tolist()) if 0.1 <= s <= 50
    ]


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("sample_euler", [0, 1, 2, 3, 4, 5]),
        ("sample_lms", [0, 1, 2, 3, 4, 5]),
        ("sample_dpmpp_2m", [0, 1, 2, 3, 4, 5]),
        ("sample_heun", [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        ("sample_dpm_2", [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5]),
        ("sample_dpmpp_sde", [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5]),
    ],
)
def test_calls_belong_to_their_steps_when_the_sampler_asks(
    sampling: Any, sigmas: Tensor, name: str, steps: list[int]
) -> None:
    watch = Watch()
    guided = guide_denoiser(OneImage(IMAGE), watch, sigmas=sigmas)
    run(partial(guided.sample, getattr(sampling, name)), 80 * noise(2, 3, 4, 4), sigmas)
    assert [c.step for c in watch.seen] == steps
    assert all(
        c.steps == 6 and c.level.next_sigma == pytest.approx(float(sigmas[c.step + 1]))
        for c in watch.seen
    )


@pytest.mark.parametrize(
    "name", ["sample_euler_ancestral", "sample_heun", "sample_dpmpp_2m", "sample_dpmpp_sde"]
)
@pytest.mark.parametrize(
    "method", [SPARKE(strength=0.05, objective="rke"), SPELL(radius=30.0)], ids=lambda m: m.name
)
def test_digits_of_a_class_are_further_apart_when_guided(
    sampling: Any, few: Tensor, name: str, method: Any
) -> None:
    x, sampler = 80 * noise(4, 4, 8, 8), getattr(sampling, name)
    guided = guide_denoiser(labelled, method, sigmas=few, groups=LABELS)
    far, near = (
        run(partial(guided.sample, sampler), x, few),
        run(partial(sampler, labelled), x, few),
    )
    assert torch.isfinite(far).all()
    assert (far[0] - far[1]).norm() + (far[2] - far[3]).norm() > (near[0] - near[1]).norm() + (
        near[2] - near[3]
    ).norm()


@pytest.mark.parametrize("name", ["sample_heun", "sample_dpmpp_2m"])
def test_emoji_stay_away_from_memory_and_shield_when_there_are_both(
    sampling: Any, sigmas: Tensor, name: str
) -> None:
    x, sampler, denoiser = (
        80 * noise(2, 16, 8, 8),
        getattr(sampling, name),
        emoji(["heart", "heart"]),
    )
    plain, memory = run(partial(sampler, denoiser), x, sigmas), Memory()
    shield = Shield(plain[:1], space="emoji/16x8x8", radius=8.0)
    options = {"sigmas": sigmas, "space": "emoji", "memory": memory, "prompts": "heart"}
    guided = guide_denoiser(denoiser, SPELL(radius=8.0, batch=False), shield=shield, **options)
    first = run(partial(guided.sample, sampler), x, sigmas)
    second = run(partial(guided.sample, sampler), x, sigmas)
    assert (first[0] - plain[0]).norm() >= 8
    assert (second[0] - plain[0]).norm() >= 8
    assert ((second - first).flatten(1).norm(dim=1) > 1).all()
    assert len(memory) == 4
    assert guided.report is not None
    assert all(
        image.certificate and image.certificate.margin >= 0 for image in guided.report.images
    )


def test_adaptive_sampler_is_guided_when_only_the_range_of_its_levels_is_known(
    sampling: Any, sigmas: Tensor
) -> None:
    watch = Watch()
    guided = guide_denoiser(OneImage(IMAGE), Shift(), watch, sigmas=sigmas)
    x = run(
        partial(guided.sample, sampling.sample_dpm_adaptive), 80 * noise(2, 3, 4, 4), 0.05, 80.0
    )
    torch.testing.assert_close(
        x, (IMAGE + 0.7).expand(2, 3, 4, 4), atol=0.5, rtol=0
    )  # what is left of noise at the last level
    assert [c.step for c in watch.seen] == sorted(c.step for c in watch.seen)
    assert (watch.seen[0].step, watch.seen[-1].step) == (0, 4)
