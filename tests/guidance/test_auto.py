"""Auto: when it pushes, and that the noise it draws anew is that of ancestral sampling."""

from dataclasses import replace
from typing import Any

import diffusers
import pytest
import torch
from tests.guidance.conformance import STEPS, sample, scene

from unalike.guidance import SPARKE, Auto, Call, Context, Run
from unalike.guidance.level import Level
from unalike.guidance.noise import renew_noise


def context(
    alpha,
    sigma,
    next_alpha,
    next_sigma,
    *,
    step=0,
    steps=9,
    images=3,
    deterministic_first_order=True,
):
    """A step of images of one prompt, with generators of their own."""
    return Context(
        step=step,
        steps=steps,
        level=Level(alpha, sigma, next_alpha, next_sigma),
        x_t=torch.randn(images, 4, 2, generator=torch.Generator().manual_seed(1)),
        groups=torch.zeros(images, dtype=torch.int64),
        generators=[torch.Generator().manual_seed(i) for i in range(images)],
        deterministic_first_order=deterministic_first_order,
    )


def predictions(images=3):
    return torch.randn(images, 4, 2, generator=torch.Generator().manual_seed(2))


def test_repulsion_is_that_of_sparke_when_the_next_level_is_noisy():
    early = context(0.1, 0.99, 0.2, 0.98)
    ours, sparke = (
        method(strength=0.2).x0_delta(predictions(), early) for method in (Auto, SPARKE)
    )
    assert ours is not None
    assert sparke is not None
    assert torch.equal(ours, sparke)


def test_nothing_is_pushed_when_the_next_level_is_clear():
    assert (
        Auto(noise_to_signal=2.0).x0_delta(predictions(), context(0.2, 0.98, 0.5, 0.87, step=3))
        is None
    )


def test_first_step_pushes_less_when_it_leads_below_the_level():
    first = context(0.0, 1.0, 0.5, 0.5)
    half = Auto(strength=0.2, noise_to_signal=2.0).x0_delta(predictions(), first)
    torch.testing.assert_close(half, SPARKE(strength=0.1).x0_delta(predictions(), first))


def test_nothing_is_pushed_when_the_only_step_is_the_last():
    assert Auto().x0_delta(predictions(), context(0.0, 1.0, 1.0, 0.0, steps=1)) is None


def test_step_is_that_of_ddim_with_eta_when_noise_is_drawn_anew():
    scheduler: Any = diffusers.DDIMScheduler(
        clip_sample=False, prediction_type="epsilon", timestep_spacing="trailing"
    )
    scheduler.set_timesteps(10)
    timestep, following = scheduler.timesteps[4], scheduler.timesteps[5]
    a, n = (float(scheduler.alphas_cumprod[t]) ** 0.5 for t in (timestep, following))
    at, eps = (
        context(a, (1 - a**2) ** 0.5, n, (1 - n**2) ** 0.5),
        torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(5)),
    )
    x0 = (at.x_t - at.level.sigma * eps) / at.level.alpha
    edit = renew_noise(x0, 0.7, at)
    assert edit is not None
    drawn = torch.stack(
        [torch.randn(4, 2, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    )
    wanted = scheduler.step(eps, timestep, at.x_t, eta=0.7, variance_noise=drawn).prev_sample
    edited = scheduler.step(
        (at.x_t - at.level.alpha * (x0 + edit)) / at.level.sigma, timestep, at.x_t
    ).prev_sample
    torch.testing.assert_close(edited, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("path", ["vp", "ve", "flow"])
def test_images_stay_on_the_data_when_noise_is_drawn_anew_on_any_path(path):
    setting = {**scene(), "memory": None}
    plain, drawn = (
        sample(*methods, **setting, path=path).images for methods in ((), (Auto(batch=False),))
    )
    assert not torch.allclose(plain, drawn)
    assert (
        0.5 < float(drawn.norm() / plain.norm()) < 2
    )  # the mixture's means are of norm 3.5 with a spread of 0.5


def test_image_is_the_same_when_drawn_in_another_batch():
    setting = {**scene(), "memory": None}
    together = sample(Auto(batch=False), **setting).images
    alone = sample(
        Auto(batch=False),
        **{**setting, **{k: setting[k][2:3] for k in ("noise", "groups", "prompts")}},
    ).images
    torch.testing.assert_close(alone[0], together[2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "levels",
    [(0.5, 0.5, 1.0, 0.0), (0.6, 0.8, 0.6, 0.8), (1.0, 0.0, 1.0, 0.0)],
    ids=["last step", "noise does not fall", "no noise"],
)
def test_no_noise_is_drawn_when_there_is_none_to_draw_anew(levels):
    assert renew_noise(predictions(), 1.0, context(*levels)) is None


def test_no_noise_is_drawn_when_the_x():
    several = context(0.5, 0.8, 0.6, 0.7, deterministic_first_order=False)
    assert renew_noise(predictions(), 1.0, several) is None
    run = Run([Auto(batch=False)], groups=several.groups, generators=several.generators)
    call = Call(
        x0=predictions(), x_t=several.x_t, level=Level(0.5, 0.8, 0.6, 0.7), step=5, steps=STEPS
    )
    assert run.correct(call) is None
    assert not run.traces[0].active[0].any()
    assert run.correct(replace(call, step=6, deterministic_first_order=True)) is not None
    assert run.traces[0].active[1].all()
    assert (run.traces[0].of_x0[1] == 0).all()
