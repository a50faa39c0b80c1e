import math

import pytest
import torch
from scipy.stats import multivariate_normal

from benchmarks.mixtures import MODES, PROMPTS, Mixtures, draw, levels, quality
from unalike.guidance.cads import CADS
from unalike.guidance.interval import IntervalGuidance
from unalike.guidance.protocols import References
from unalike.guidance.sparke import SPARKE


@pytest.fixture(scope="module")
def world():
    return Mixtures.random(7)


def density(world, x, prompt):
    """The prompt's density by scipy, mode by mode."""
    modes = zip(
        world.weights[prompt].tolist(), world.means.tolist(), world.deviations.tolist(), strict=True
    )
    return sum(w * multivariate_normal(m, s**2).pdf(x.numpy()) for w, m, s in modes)


def test_log_density_is_that_of_scipy_when_points_are_near_and_far(world):
    x = torch.cat([world.means, torch.zeros(1, 2, dtype=torch.float64) + 0.4])
    torch.testing.assert_close(
        world.log_density(x, 1).exp(), torch.as_tensor(density(world, x, 1)), rtol=1e-9, atol=1e-30
    )


@pytest.mark.parametrize(("alpha", "sigma"), [(0.3, 0.95), (0.8, 0.6), (0.97, 0.2)])
def test_denoiser_is_the_posterior_mean_when_integrated_over_a_grid(world, alpha, sigma):
    line = torch.linspace(-2.6, 2.6, 601, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=2).flatten(0, 1)
    prior = torch.as_tensor(density(world, grid, 2))
    x_t = torch.tensor([[0.3, -0.8], [1.2, 0.5], [-0.1, 0.0]], dtype=torch.float64)
    likelihood = torch.exp(-(x_t[:, None] - alpha * grid).square().sum(dim=2) / (2 * sigma**2))
    posterior = prior * likelihood
    expected = posterior @ grid / posterior.sum(dim=1, keepdim=True)
    torch.testing.assert_close(
        world.denoised(x_t, alpha, sigma, world.weights[2].expand(3, -1)),
        expected,
        rtol=0,
        atol=1e-4,
    )


def test_mixtures_have_unequal_modes_in_common_and_apart_in_direction_when_random():
    for seed in range(20):
        world = Mixtures.random(seed)
        torch.testing.assert_close(
            world.weights.sum(dim=1), torch.ones(PROMPTS, dtype=torch.float64)
        )
        shares = (world.weights > 0).sum(dim=0)
        assert shares.sum() == PROMPTS * MODES
        assert (shares == 2).sum() == PROMPTS
        for row in world.weights:
            angles = torch.atan2(world.means[row > 0, 1], world.means[row > 0, 0]).sort().values
            gaps = torch.cat([angles.diff(), angles[:1] + 2 * math.pi - angles[-1:]])
            assert gaps.min() > 2 * math.pi / (2 * MODES)
            assert row[row > 0].max() / row[row > 0].min() == pytest.approx(0.6 ** (1 - MODES))


def test_embedding_means_its_own_prompt_when_clean_and_a_blend_when_between(world):
    torch.testing.assert_close(world.blended(world.embeddings), world.weights, rtol=0, atol=1e-8)
    between = world.blended((world.embeddings[0] + world.embeddings[1])[None])
    torch.testing.assert_close(
        between[0], (world.weights[0] + world.weights[1]) / 2, rtol=0, atol=1e-5
    )


def test_levels_lose_their_noise_when_followed_to_the_end():
    path = levels(5)
    assert len(path) == 6
    assert path[-1] == (1.0, 0.0)
    assert all(a**2 + s**2 == pytest.approx(1) for a, s in path)
    assert sorted(s for _, s in path)[::-1] == [s for _, s in path]


def test_samples_have_the_modes_in_their_shares_when_nothing_guides(world):
    x = draw(world, torch.full((1500,), 3), (), guidance_scale=1.0, seed=0, steps=40).x
    own = world.weights[3] > 0
    found = world.hits(x, 3).double().mean(dim=0)
    assert found.sum() > 0.97
    error = 4 * (world.weights[3, own] / 1500).sqrt()  # four standard errors
    assert ((found - world.weights[3, own]).abs() < error + 0.01).all()


def test_samples_do_not_depend_on_their_batch_when_nothing_joins_them(world):
    prompts = torch.tensor([0, 1, 2])
    together = draw(world, prompts, [CADS()], guidance_scale=2.0, seed=5).x
    torch.testing.assert_close(
        together[1:],
        draw(world, prompts[1:], [CADS()], guidance_scale=2.0, seed=6).x,
        rtol=0,
        atol=1e-9,
    )


def test_methods_act_on_samples_when_they_correct_blur_the_prompt_or_leave_guidance_out(world):
    prompts = torch.tensor([0, 0, 0, 0])
    plain = draw(world, prompts, (), guidance_scale=2.0, seed=0).x
    low = draw(world, prompts, (), guidance_scale=1.0, seed=0).x
    everywhere = IntervalGuidance(
        sigma_low=50.0, sigma_high=100.0
    )  # above the noisiest level: left out at every step but the first
    torch.testing.assert_close(
        draw(world, prompts, [everywhere], guidance_scale=2.0, seed=0).x, low, rtol=0, atol=0.02
    )
    assert torch.equal(
        draw(world, prompts, [SPARKE(strength=0.0)], guidance_scale=2.0, seed=0).x, plain
    )
    memory = References(plain.float(), world.embeddings[prompts].float())
    for method in (SPARKE(strength=0.1), CADS(noise_scale=1.0, tau_1=0.2, tau_2=0.8)):
        assert not torch.allclose(
            draw(world, prompts, [method], guidance_scale=2.0, seed=0, memory=memory).x,
            plain,
            atol=1e-3,
        )


def test_quality_counts_modes_and_hits_when_points_are_placed(world):
    own = world.means[world.weights[0] > 0]
    x = torch.cat([own[:3], own[:1], own[:1] + 10.0])
    measured = quality(world, x, torch.zeros(5, dtype=torch.int64))
    assert (measured.coverage, measured.precision) == (3 / 5, 4 / 5)
    assert measured.log_likelihood == pytest.approx(world.log_density(x, 0).mean().item())


def test_quality_is_a_mean_over_prompts_when_there_are_several(world):
    x = torch.stack(
        [world.means[world.weights[0] > 0][0], torch.full((2,), 9.0, dtype=torch.float64)]
    )
    measured = quality(world, x, torch.tensor([0, 1]))
    assert (measured.coverage, measured.precision) == (0.5, 0.5)
