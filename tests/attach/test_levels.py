import math
from itertools import pairwise
from typing import Any

import diffusers
import pytest
import torch
from tests.attach.schedulers import SETTINGS, Setting, noise_level, one_image_model, prepared, timesteps
from torch import Tensor

from unalike.attach import levels
from unalike.attach.binding import Binding, Call
from unalike.errors import UnsupportedError

# some schedulers hand tensors to numpy in the way of numpy 1
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")


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


class Host:
    """The least that a pipeline is to a binding."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler


def sampled(setting: Setting, scheduler: Any, image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    times = timesteps(setting, scheduler)
    start = 1.0 if "betas" not in setting.family else float(scheduler.init_noise_sigma)
    if setting.family == "edm":
        start = float(scheduler.init_noise_sigma)
    sample = (noise * start).to(dtype)
    parameters = type(scheduler).step.__code__.co_varnames
    before: dict[str, Any] = {"old_pred_original_sample": None, "timestep_back": None}  # which the caller keeps for some
    for t in times:
        options: dict[str, Any] = {"generator": generator} if "generator" in parameters else {}
        options |= before if "timestep_back" in parameters else {}
        output = one_image_model(setting, scheduler, sample, t, image.to(dtype)).to(dtype)
        sample, *more = scheduler.step(model_output=output, timestep=t, sample=sample, **options, return_dict=False)
        before = {"old_pred_original_sample": more[0] if more else None, "timestep_back": t}
    return sample


@pytest.fixture
def image() -> Tensor:
    return torch.linspace(-1, 1, 2 * 3 * 16).reshape(2, 3, 4, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.id)
def test_step_is_bit_identical_when_nothing_is_corrected(setting: Setting, dtype: torch.dtype, image: Tensor) -> None:
    plain = sampled(setting, prepared(setting), image, dtype)
    scheduler, guidance = prepared(setting), Shift(None)
    with Binding(Host(scheduler), guidance):
        bound = sampled(setting, scheduler, image, dtype)
    assert torch.equal(plain, bound)
    assert len(guidance.calls) == len(timesteps(setting, scheduler))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.id)
def test_result_moves_by_the_shift_when_every_prediction_does(setting: Setting, image: Tensor) -> None:
    plain = sampled(setting, prepared(setting), image)
    scheduler, guidance = prepared(setting), Shift(0.7)
    with Binding(Host(scheduler), guidance):
        result = sampled(setting, scheduler, image)
    torch.testing.assert_close(result - plain, torch.full_like(plain, 0.7), atol=setting.tolerance, rtol=0)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.id)
def test_prediction_is_the_image_when_the_model_knows_no_other(setting: Setting, image: Tensor) -> None:
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
        assert math.atan2(level.sigma, level.alpha) == pytest.approx(math.atan2(sigma, alpha), abs=5e-3)
    for before, after in pairwise(seen):
        assert (before.next_alpha, before.next_sigma) == pytest.approx((after.alpha, after.sigma), abs=1e-6)
    assert seen[-1].next_alpha == pytest.approx(1, abs=0.05)
    assert seen[-1].next_sigma < 0.2 * max(level.sigma for level in seen)


def test_unknown_scheduler_is_refused_when_it_has_no_map() -> None:
    host = Host(diffusers.IPNDMScheduler())
    with pytest.raises(UnsupportedError, match=r"IPNDMScheduler.*levels\.register\(IPNDMScheduler"), Binding(host, Shift(None)):
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
    scheduler = diffusers.DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False)
    scheduler.set_timesteps(4)
    with pytest.raises(UnsupportedError, match="alpha is 0"):
        levels.level(scheduler, scheduler.timesteps[0])


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "PNDMScheduler"])
def test_steps_counts_the_calls_that_happen_when_a_run_begins_in_the_middle(name: str) -> None:
    scheduler = getattr(diffusers, name)(**{"skip_prk_steps": True} if name == "PNDMScheduler" else {})
    scheduler.set_timesteps(10)
    guidance, x = Shift(None), torch.zeros(1, 3, 4, 4)
    tail = scheduler.timesteps[6:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(6)
    with Binding(Host(scheduler), guidance):
        for t in tail:
            scheduler.scale_model_input(x, t)
            x = scheduler.step(torch.zeros_like(x), t, x).prev_sample
    assert [(call.step, call.steps) for call in guidance.calls] == [(i, len(tail)) for i in range(len(tail))]
    assert guidance.final is x
