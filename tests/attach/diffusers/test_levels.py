import math
from collections.abc import Container
from itertools import pairwise
from typing import Any

import diffusers
import pytest
import torch
from tests.attach.schedulers import (
    SETTINGS,
    STABLE,
    Sampler,
    Setting,
    noise_level,
    one_image_model,
    prepared,
    timesteps,
)
from torch import Tensor

from unalike.attach.diffusers import levels, schedulers
from unalike.attach.diffusers.step_hook import Binding
from unalike.errors import UnsupportedError
from unalike.guidance.run import Call

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:__array_:DeprecationWarning"
    ),  # some schedulers hand tensors to numpy in the way of numpy 1
    pytest.mark.filterwarnings(
        "ignore:Should have t[ab]:UserWarning"
    ),  # and ask for noise beyond their range by a rounding error
]


class Shift:
    """Adds a constant to every prediction, or nothing, and keeps the calls."""

    def __init__(self, shift: float | None) -> None:
        self.shift, self.calls, self.final = shift, [], None

    def reset(self) -> None:
        self.calls = []

    def correct(self, call: Call) -> Tensor | None:
        self.calls.append(call)
        return None if self.shift is None else torch.full_like(call.x0, self.shift)

    def finish(self, latents: Tensor) -> Tensor | None:
        self.final = latents
        return None


class ShiftAt(Shift):
    """Adds 0.7 to the predictions of some calls."""

    def __init__(self, calls: Container[int]) -> None:
        super().__init__(0.7)
        self.at = calls

    def correct(self, call: Call) -> Tensor | None:
        shift = super().correct(call)
        return shift if call.step in self.at else None


class Host:
    """The least that a pipeline is to a binding."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler


def sampled(
    setting: Setting,
    scheduler: Any,
    image: Tensor,
    dtype: torch.dtype = torch.float32,
    calls: int | None = None,
) -> Tensor:
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    start = (
        1.0
        if setting.family not in ("betas", "edm", "cosine")
        else float(scheduler.init_noise_sigma)
    )
    sample, sampler = (noise * start).to(dtype), Sampler(setting, scheduler)
    for t in timesteps(setting, scheduler)[:calls]:
        output = one_image_model(setting, scheduler, sample, t, image.to(dtype)).to(dtype)
        sample = sampler.step(output, t, sample)
    return sample


@pytest.fixture
def image() -> Tensor:
    return torch.linspace(-1, 1, 2 * 3 * 16).reshape(2, 3, 4, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.id)
def test_step_is_bit_identical_when_nothing_is_corrected(
    setting: Setting, dtype: torch.dtype, image: Tensor
) -> None:
    plain = sampled(setting, prepared(setting), image, dtype)
    scheduler, guidance = prepared(setting), Shift(None)
    with Binding(Host(scheduler), guidance):
        bound = sampled(setting, scheduler, image, dtype)
    assert torch.equal(plain, bound)
    assert len(guidance.calls) == len(timesteps(setting, scheduler))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.id)
def test_result_moves_by_the_shift_when_every_prediction_does(
    setting: Setting, image: Tensor
) -> None:
    plain = sampled(setting, prepared(setting), image)
    scheduler, guidance = prepared(setting), Shift(0.7)
    with Binding(Host(scheduler), guidance):
        result = sampled(setting, scheduler, image)
    torch.testing.assert_close(
        result - plain, torch.full_like(plain, 0.7), atol=setting.tolerance, rtol=0
    )


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.id)
def test_result_is_that_of_a_model_of_the_shifted_image_when_every_prediction_is_shifted(
    setting: Setting, image: Tensor
) -> None:
    scheduler = prepared(setting)
    with Binding(Host(scheduler), Shift(0.7)):
        result = sampled(setting, scheduler, image)
    torch.testing.assert_close(
        result, sampled(setting, prepared(setting), image + 0.7), atol=3e-3, rtol=0
    )


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.id)
def test_prediction_is_the_image_when_the_model_knows_no_other(
    setting: Setting, image: Tensor
) -> None:
    scheduler, guidance = prepared(setting), Shift(None)
    with Binding(Host(scheduler), guidance):
        result = sampled(setting, scheduler, image)
    for call in guidance.calls:
        torch.testing.assert_close(call.x0, image, atol=5e-3, rtol=0)
    assert guidance.final is result
    assert [call.step for call in guidance.calls] == list(range(guidance.calls[0].steps))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.id)
def test_levels_are_those_of_the_model_and_form_a_chain(setting: Setting, image: Tensor) -> None:
    scheduler, guidance = prepared(setting), Shift(None)
    with Binding(Host(scheduler), guidance):
        sampled(setting, scheduler, image)
    seen = [call.level for call in guidance.calls]
    for level, t in zip(seen, timesteps(setting, scheduler), strict=True):
        alpha, sigma = noise_level(setting, t)
        assert math.atan2(level.sigma, level.alpha) == pytest.approx(
            math.atan2(sigma, alpha), abs=5e-3
        )
    for before, after in pairwise(seen):
        assert (before.next_alpha, before.next_sigma) == pytest.approx(
            (after.alpha, after.sigma), abs=1e-6
        )
    assert seen[-1].next_alpha == pytest.approx(1, abs=0.05)
    assert seen[-1].next_sigma < 0.2 * max(level.sigma for level in seen)


def test_every_scheduler_with_a_map_is_among_the_settings() -> None:
    assert {setting.name for setting in SETTINGS} == set(schedulers.BUILT_IN)


@pytest.mark.parametrize("name", ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler"])
def test_first_call_s_edit_is_carried_into_the_second_when_a_step_has_two(
    name: str, image: Tensor
) -> None:
    """From σ to σ' with slopes (x - x0) / σ: their mean (Heun), or that at a point between alone
    (KDPM2).
    """
    setting = next(s for s in SETTINGS if s.name == name)
    scheduler = prepared(setting)
    here, there = float(scheduler.sigmas[0]), float(scheduler.sigmas[1])
    between = there if name == "HeunDiscreteScheduler" else float(scheduler.sigmas_interpol[1])
    share = 0.5 if name == "HeunDiscreteScheduler" else 1.0
    second = share * (here - there) / between
    first = (1 - there / here) - second  # both together are one edit of one step
    for edited, expected in (((0,), first), ((1,), second), ((0, 1), first + second)):
        scheduler = prepared(setting)
        with Binding(Host(scheduler), ShiftAt(edited)):
            result = sampled(setting, scheduler, image, calls=2)
        moved = result - sampled(setting, prepared(setting), image, calls=2)
        torch.testing.assert_close(moved, torch.full_like(moved, 0.7 * expected), atol=5e-3, rtol=0)


def test_only_second_calls_move_the_sample_when_the_solver_is_dpm_sde(image: Tensor) -> None:
    setting = next(s for s in SETTINGS if s.name == "DPMSolverSDEScheduler")
    moved = []
    for edited in (
        range(0, 10, 2),
        range(1, 10, 2),
    ):  # the eleventh call, alone in its step, would end at the image whatever was before
        scheduler = prepared(setting)
        with Binding(Host(scheduler), ShiftAt(edited)):
            result = sampled(setting, scheduler, image, calls=10)
        moved.append((result - sampled(setting, prepared(setting), image, calls=10)).abs().amax())
    assert moved[0] < 0.01
    assert moved[1] > 0.1


def test_edit_counts_one_and_a_half_times_and_is_half_taken_back_when_the_solver_remembers_a_step(
    image: Tensor,
) -> None:
    """One edit with DPM++ of second order is what edits of 1.5 and -0.5 times its size are, at this
    step and the next, with first order.
    """

    def moved_by(order: int, call: int) -> Tensor:
        config = {
            **STABLE,
            "prediction_type": "sample",
            "solver_order": order,
            "use_lu_lambdas": True,
            "algorithm_type": "dpmsolver++",
        }
        setting = Setting("DPMSolverMultistepScheduler", config, steps=20)
        edited = prepared(setting)
        with Binding(Host(edited), ShiftAt((call,))):
            result = sampled(setting, edited, image, calls=15)
        return result - sampled(setting, prepared(setting), image, calls=15)

    expected = 1.5 * moved_by(1, 10) - 0.5 * moved_by(1, 11)
    assert expected.abs().amax() > 0.01
    torch.testing.assert_close(moved_by(2, 10), expected, atol=1e-4, rtol=1e-3)


def test_timesteps_are_refused_when_they_differ_between_images() -> None:
    scheduler = diffusers.DDPMWuerstchenScheduler()
    scheduler.set_timesteps(4)
    x = torch.zeros(2, 3, 4, 4)
    with (
        Binding(Host(scheduler), Shift(None)),
        pytest.raises(UnsupportedError, match="different timesteps"),
    ):
        scheduler.step(x, torch.tensor([1.0, 0.75]), x)


def test_consistency_sampling_is_refused_when_its_noise_levels_are_not_its_model_s() -> None:
    scheduler: Any = diffusers.FlowMatchLCMScheduler(invert_sigmas=True)
    scheduler.set_timesteps(4)
    x = torch.zeros(2, 3, 4, 4)
    with (
        Binding(Host(scheduler), Shift(None)),
        pytest.raises(UnsupportedError, match="invert_sigmas"),
    ):
        scheduler.step(x, scheduler.timesteps[0], x)


def test_unknown_scheduler_is_refused_when_it_has_no_map() -> None:
    host = Host(diffusers.UnCLIPScheduler())
    with (
        pytest.raises(
            UnsupportedError, match=r"UnCLIPScheduler.*levels\.register\(UnCLIPScheduler"
        ),
        Binding(host, Shift(None)),
    ):
        pass


def test_subclass_is_refused_when_it_steps_in_its_own_way() -> None:
    class Same(diffusers.DDIMScheduler):
        pass

    class Other(diffusers.DDIMScheduler):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            return super().step(*args, **kwargs)

    assert levels.supported(Same())
    assert not levels.supported(Other())


def test_noise_prediction_is_refused_when_the_schedule_starts_without_signal() -> None:
    scheduler = diffusers.DDIMScheduler(
        rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False
    )
    scheduler.set_timesteps(4)
    with pytest.raises(UnsupportedError, match="alpha is 0"):
        levels.level(scheduler, scheduler.timesteps[0])


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "PNDMScheduler"])
def test_steps_counts_the_calls_that_happen_when_a_run_begins_in_the_middle(name: str) -> None:
    scheduler = getattr(diffusers, name)(
        **{"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    )
    scheduler.set_timesteps(10)
    guidance, x = Shift(None), torch.zeros(1, 3, 4, 4)
    tail = scheduler.timesteps[6:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(6)
    with Binding(Host(scheduler), guidance):
        for t in tail:
            scheduler.scale_model_input(x, t)
            x = scheduler.step(torch.zeros_like(x), t, x).prev_sample
    assert [(call.step, call.steps) for call in guidance.calls] == [
        (i, len(tail)) for i in range(len(tail))
    ]
    assert guidance.final is x
