import copy
import inspect
import math
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from unalike.attach.diffusers.step_hook import Binding
from unalike.errors import AttachmentError, UnsupportedError
from unalike.guidance.run import Call

# some schedulers hand tensors to numpy in the way of numpy 1
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")


class Fixed:
    """Corrects by a given tensor and ends in a given one."""

    def __init__(self, delta: Tensor | None = None, final: Tensor | None = None) -> None:
        self.delta, self.final, self.calls = delta, final, []

    def reset(self) -> None:
        self.calls.clear()

    def correct(self, call: Call) -> Tensor | None:
        self.calls.append(call)
        return self.delta

    def finish(self, latents: Tensor) -> Tensor | None:
        return self.final


class Failing(Fixed):
    """Raises at the first call."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self.error = error

    def correct(self, call: Call) -> Tensor | None:
        raise self.error


class Host:
    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler


def ddim(steps: int = 2) -> Any:
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(steps)
    return scheduler


X = torch.ones(1, 3, 2, 2)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_scheduler_is_as_before_when_the_run_fails(error: type[BaseException]) -> None:
    scheduler = ddim()
    before = dict(vars(scheduler))
    with pytest.raises(error), Binding(Host(scheduler), Failing(error)):
        scheduler.step(X, scheduler.timesteps[0], X)
    assert vars(scheduler) == before


def test_signature_and_class_are_kept_when_bound() -> None:
    scheduler = ddim()
    step, setter = inspect.signature(scheduler.step), inspect.signature(scheduler.set_timesteps)
    with Binding(Host(scheduler), Fixed()):
        assert inspect.signature(scheduler.step) == step
        assert inspect.signature(scheduler.set_timesteps) == setter
        assert isinstance(scheduler, diffusers.DDIMScheduler)


def test_second_binding_is_refused_when_one_is_open() -> None:
    host = Host(ddim())
    with (
        Binding(host, Fixed()),
        pytest.raises(AttachmentError, match="being guided already"),
        Binding(host, Fixed()),
    ):
        pass
    assert "step" not in vars(host.scheduler)


def test_replaced_scheduler_is_reported_when_the_run_ends() -> None:
    host = Host(ddim())
    with (
        pytest.raises(AttachmentError, match="replaced by a PNDMScheduler"),
        Binding(host, Fixed()),
    ):
        host.scheduler = diffusers.PNDMScheduler()


def test_foreign_replacement_is_refused_when_it_is_no_method() -> None:
    scheduler = ddim()
    scheduler.step = lambda *args: None
    with (
        pytest.raises(AttachmentError, match=r"del pipe\.scheduler\.step"),
        Binding(Host(scheduler), Fixed()),
    ):
        pass


def test_copy_steps_itself_when_the_original_is_bound() -> None:
    scheduler, guidance = ddim(), Fixed(delta=torch.ones_like(X))
    plain = scheduler.step(X, scheduler.timesteps[0], X).prev_sample
    with Binding(Host(scheduler), guidance) as binding:
        scheduler.step(X, scheduler.timesteps[0], X)
        copied = copy.deepcopy(scheduler).step(X, scheduler.timesteps[0], X).prev_sample
    assert torch.equal(copied, plain)
    assert len(guidance.calls) == 1
    assert binding.unguided == ["copy of scheduler (DDIMScheduler)"]


def test_copy_is_refused_when_it_is_stepped_in_place_of_the_scheduler() -> None:
    scheduler = ddim()
    with (
        pytest.raises(UnsupportedError, match="steps copies of its DDIMScheduler"),
        Binding(Host(scheduler), Fixed()),
    ):
        copy.deepcopy(scheduler).step(X, scheduler.timesteps[0], X)


@pytest.mark.parametrize("return_dict", [True, False])
def test_final_latents_are_replaced_when_guidance_says_so(return_dict: bool) -> None:
    scheduler, final = ddim(1), torch.full_like(X, 7.0)
    with Binding(Host(scheduler), Fixed(final=final)):
        result = scheduler.step(X, scheduler.timesteps[0], X, return_dict=return_dict)
    assert result[0] is final
    if return_dict:
        assert result.prev_sample is final
        assert result.pred_original_sample is final
    else:
        assert result[1] is final


def test_final_latents_reach_pipelines_that_return_the_prediction_when_guidance_says_so() -> None:
    scheduler: Any = diffusers.LCMScheduler()
    final = torch.full_like(X, 7.0)
    scheduler.set_timesteps(1)
    with Binding(Host(scheduler), Fixed(final=final)):
        assert scheduler.step(X, scheduler.timesteps[0], X).denoised is final


def test_learned_variance_is_left_alone_when_the_mean_is_corrected() -> None:
    def stepped(guidance: Fixed, scheduler: Any) -> Tensor:
        output = torch.cat([X, torch.linspace(-1, 1, X.numel()).view_as(X)], dim=1)
        with Binding(Host(scheduler), guidance):
            return scheduler.step(
                output, scheduler.timesteps[0], X, generator=torch.Generator().manual_seed(0)
            ).pred_original_sample

    def ddpm() -> Any:
        scheduler = diffusers.DDPMScheduler(variance_type="learned_range", clip_sample=False)
        scheduler.set_timesteps(4)
        return scheduler

    shift = stepped(Fixed(delta=torch.full_like(X, 0.5)), ddpm()) - stepped(Fixed(), ddpm())
    torch.testing.assert_close(shift, torch.full_like(X, 0.5))


def test_step_is_refused_when_it_adds_noise_first() -> None:
    scheduler: Any = diffusers.EulerDiscreteScheduler()
    scheduler.set_timesteps(2)
    scheduler.scale_model_input(X, scheduler.timesteps[0])
    with Binding(Host(scheduler), Fixed()), pytest.raises(UnsupportedError, match="s_churn"):
        scheduler.step(X, scheduler.timesteps[0], X, s_churn=1.0)


def test_step_is_refused_when_each_token_has_its_own_timestep() -> None:
    scheduler: Any = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(2)
    with (
        Binding(Host(scheduler), Fixed()),
        pytest.raises(UnsupportedError, match="different timesteps"),
    ):
        scheduler.step(X, scheduler.timesteps[0], X, per_token_timesteps=torch.ones(1, 4))


def test_step_is_refused_when_x0_is_given_to_it() -> None:
    scheduler: Any = diffusers.EDMEulerScheduler()
    scheduler.set_timesteps(2)
    scheduler.scale_model_input(X, scheduler.timesteps[0])
    with (
        Binding(Host(scheduler), Fixed()),
        pytest.raises(UnsupportedError, match="pred_original_sample"),
    ):
        scheduler.step(X, scheduler.timesteps[0], X, pred_original_sample=X)


def test_timestep_is_refused_when_it_is_not_in_the_schedule() -> None:
    scheduler = ddim()
    with Binding(Host(scheduler), Fixed()), pytest.raises(UnsupportedError, match="timestep 3"):
        scheduler.step(X, 3, X)


def test_count_begins_again_when_a_new_schedule_is_set() -> None:
    scheduler, guidance = ddim(3), Fixed()
    with Binding(Host(scheduler), guidance):
        scheduler.step(X, scheduler.timesteps[0], X)
        scheduler.set_timesteps(2)
        for t in scheduler.timesteps:
            scheduler.step(X, t, X)
    assert [(call.step, call.steps) for call in guidance.calls] == [(0, 2), (1, 2)]


def test_one_timestep_counts_when_it_is_given_for_each_image() -> None:
    scheduler: Any = diffusers.SCMScheduler()
    guidance = Fixed()
    scheduler.set_timesteps(2)
    scheduler.set_begin_index(0)
    with Binding(Host(scheduler), guidance):
        for t in scheduler.timesteps[:-1]:
            scheduler.step(
                torch.cat([X, X]),
                t.expand(2),
                torch.cat([X, X]),
                generator=torch.Generator().manual_seed(0),
            )
    angles = scheduler.timesteps.tolist()
    assert [call.level.alpha for call in guidance.calls] == pytest.approx(
        [max(0.0, math.cos(t)) for t in angles[:-1]]  # the first angle is 1.5708, above π / 2
    )


def test_timesteps_are_refused_when_images_have_different_ones() -> None:
    scheduler = ddim()
    with (
        pytest.raises(UnsupportedError, match="different timesteps"),
        Binding(Host(scheduler), Fixed()),
    ):
        scheduler.step(X, torch.stack([scheduler.timesteps[0], scheduler.timesteps[1]]), X)


@pytest.mark.parametrize("begin", [0, 30])
def test_step_to_come_is_known_when_half_precision_has_rounded_its_timestep_twice(
    begin: int,
) -> None:
    """With this many steps, two of them can have one rounded timestep."""
    scheduler: Any = diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0)
    scheduler.set_timesteps(100)
    scheduler.set_begin_index(begin)
    times = scheduler.timesteps[begin:]
    rounded = [(t.bfloat16() / 1000).item() for t in times]
    assert len(set(rounded)) < len(rounded) or begin
    with Binding(Host(scheduler), Fixed()) as binding:
        for i, (t, given) in enumerate(zip(times, rounded, strict=True)):
            call = binding.upcoming(given)
            assert (call.step, call.steps) == (i, len(times))
            assert call.level.sigma == pytest.approx(float(t) / 1000)
            scheduler.step(X, t, X)


def test_error_names_the_timestep_when_it_is_not_the_one_to_come() -> None:
    scheduler = ddim(10)
    with Binding(Host(scheduler), Fixed()) as binding:
        assert binding.upcoming(500).step == 0  # a run may begin anywhere
        scheduler.step(X, 500, X)
        assert binding.upcoming(400).step == 1
        with pytest.raises(UnsupportedError, match="asked at timestep 300, which is none of those"):
            binding.upcoming(300)
