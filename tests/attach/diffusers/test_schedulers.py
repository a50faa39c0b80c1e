"""Schedulers driven off their usual path: levels are right, or refused at the first step."""

import inspect
import math
from dataclasses import astuple
from itertools import pairwise
from typing import Any

import diffusers
import pytest
import torch
from tests import tiny
from tests.attach.schedulers import SETTINGS, Sampler, Setting, prepared, timesteps
from torch import Tensor
from transformers import T5Config, T5EncoderModel

import unalike
from unalike import SPARKE, Auto, IntervalGuidance
from unalike.attach.diffusers import levels
from unalike.attach.diffusers.step_hook import Binding
from unalike.errors import UnsupportedError
from unalike.guidance import Level
from unalike.guidance.run import Call

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Should have t[ab]:UserWarning"),
]


class Recorder:
    """Corrects nothing and keeps the calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def reset(self) -> None:
        self.calls = []

    def correct(self, call: Call) -> Tensor | None:
        self.calls.append(call)
        return None

    def finish(self, latents: Tensor) -> Tensor | None:
        return None


class Host:
    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler


class AnyText:
    """Stands for Cosmos' safety checker, whose weights are a download of their own."""

    def check_text_safety(self, text: str) -> bool:
        return True

    def check_video_safety(self, video: Any) -> Any:
        return video

    def to(self, *args: Any, **kwargs: Any) -> None:
        pass


def cosmos2() -> Any:
    """Cosmos 2 of tiny size with random weights."""
    torch.manual_seed(0)
    transformer = diffusers.CosmosTransformer3DModel(
        in_channels=16,
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        mlp_ratio=2,
        text_embed_dim=32,
        adaln_lora_dim=4,
        max_size=(4, 32, 32),
        patch_size=(1, 2, 2),
        rope_scale=(1.0, 4.0, 4.0),
        concat_padding_mask=False,
        extra_pos_embed_type=None,
    )
    vae = diffusers.AutoencoderKLWan(
        base_dim=3,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )
    text = T5Config(
        vocab_size=4 + len(tiny.LETTERS), d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    pipe = diffusers.Cosmos2TextToImagePipeline(
        text_encoder=T5EncoderModel(text).eval(),
        tokenizer=tiny.t5_tokenizer(),  # type: ignore[arg-type]
        transformer=transformer.eval(),
        vae=vae.eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True),
        safety_checker=AnyText(),  # type: ignore[arg-type]
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


ARGUMENTS: dict[str, Any] = {
    "prompt": "cat",
    "negative_prompt": "",
    "num_images_per_prompt": 2,
    "height": 32,
    "width": 32,
    "max_sequence_length": 16,
    "output_type": "latent",
}


def drawn(pipe: Any, steps: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return pipe(**ARGUMENTS, num_inference_steps=steps, generator=generator)[0]


def flow(sigmas: Any = None, steps: int | None = None, **config: Any) -> Any:
    scheduler: Any = diffusers.FlowMatchEulerDiscreteScheduler(**config)
    scheduler.set_timesteps(steps, sigmas=sigmas)
    return scheduler


def with_sigmas(*sigmas: float) -> Any:
    """A flow whose sigmas somebody set himself."""
    scheduler = flow([0.9, 0.5])
    scheduler.sigmas = torch.tensor(sigmas)
    return scheduler


def stepped(scheduler: Any) -> list[Level]:
    """The levels of a run with a model that predicts 0.1 everywhere."""
    recorder, x = Recorder(), torch.ones(1, 3, 2, 2)
    with Binding(Host(scheduler), recorder):
        for t in scheduler.timesteps:
            x = scheduler.step(torch.full_like(x, 0.1), t, x, return_dict=False)[0]
    return [call.level for call in recorder.calls]


def test_cosmos_2_is_guided_at_its_own_noise_levels() -> None:
    pipe, recorder = cosmos2(), Recorder()
    with Binding(pipe, recorder):
        drawn(pipe, 4)
    seen = [call.level for call in recorder.calls]
    assert [level.alpha for level in seen] == [1, 1, 1, 1]
    assert seen[0].sigma == pytest.approx(80)
    assert [level.sigma for level in seen] == pytest.approx(pipe.scheduler.sigmas[:4].tolist())
    assert all(level.fault is None for level in seen)


@pytest.mark.parametrize("method", [Auto(), SPARKE(), IntervalGuidance()], ids=lambda m: m.name)
def test_cosmos_2_is_guided_by_every_kind_of_method(method: Any) -> None:
    plain = drawn(cosmos2(), 4)
    assert torch.equal(drawn(unalike.guide(cosmos2(), SPARKE(strength=0.0)), 4), plain)
    guided = drawn(unalike.guide(cosmos2(), method), 4)
    assert torch.isfinite(guided).all()
    assert not torch.equal(guided, plain)


def test_level_is_that_of_added_noise_when_sigmas_of_a_flow_exceed_1() -> None:
    straight, added = stepped(flow([1.0, 0.7, 0.3])), stepped(flow([80.0, 5.0, 0.5]))
    assert astuple(straight[1]) == pytest.approx((0.3, 0.7, 0.7, 0.3))
    assert astuple(added[1]) == pytest.approx((1.0, 5.0, 1.0, 0.5))


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [
        (lambda: flow([0.2, 0.5, 0.9]), r"go up and down \(0\.2, 0\.5, 0\.9, 0\)"),
        (lambda: flow([0.9, 0.2, 0.5]), r"sigmas .* go up and down \(0\.9, 0\.2, 0\.5, 0\)"),
        (lambda: flow([0.9, math.nan, 0.5]), "go up and down"),
        (lambda: flow([80.0, 5.0], stochastic_sampling=True), "alpha is -79 and sigma is 80"),
        (lambda: flow([80.0, 5.0], invert_sigmas=True), "alpha is -79 and sigma is 80"),
        (lambda: with_sigmas(math.inf, 0.5, 0.0), "sigma is inf"),
        (lambda: with_sigmas(0.9, -0.5, -0.5), "alpha is 1.5 and sigma is -0.5"),
        (lambda: with_sigmas(0.2, 0.5, 0.9), r"the noise rises, from sigma / alpha = 0\.25 to 1"),
    ],
    ids=[
        "rising",
        "up and down",
        "NaN",
        "stochastic",
        "inverted",
        "infinite",
        "negative",
        "reverse",
    ],
)
def test_schedule_is_refused_at_its_first_step_when_its_levels_are_wrong(
    scheduler: Any, reason: str
) -> None:
    made, x, recorder = scheduler(), torch.ones(1, 3, 2, 2), Recorder()
    with Binding(Host(made), recorder), pytest.raises(UnsupportedError, match=reason):
        made.step(x, made.timesteps[0], x)
    assert recorder.calls == []


def test_consistency_sampling_is_refused_when_its_sigmas_exceed_1() -> None:
    scheduler: Any = diffusers.FlowMatchLCMScheduler()
    scheduler.set_timesteps(sigmas=[80.0, 5.0, 0.5])
    x = torch.ones(1, 3, 2, 2)
    with (
        Binding(Host(scheduler), Recorder()),
        pytest.raises(UnsupportedError, match=r"FlowMatchLCMScheduler.*alpha is -79"),
    ):
        scheduler.step(x, scheduler.timesteps[0], x)


class Wrong(diffusers.FlowMatchEulerDiscreteScheduler):
    """A scheduler with a step of its own, whose map a user got wrong."""

    def step(self, model_output: Any, timestep: Any, sample: Any, **options: Any) -> Any:  # type: ignore[override]
        return super().step(model_output, timestep, sample, **options)


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ((-0.5, 1.0, 1.0, 1.0, 1.0, 0.0), "alpha is -0.5"),
        ((0.5, math.nan, 1.0, 1.0, 1.0, 0.0), "sigma is nan"),
        ((0.5, 0.5, math.inf, 1.0, 1.0, 0.0), "inf · sample"),
        ((0.5, 0.5, 1.0, 1.0, 0.2, 0.8), "rises, from sigma / alpha = 1 to 4"),
        ((0.5, 0.5, 1.0, 1.0, 1.0, -0.1), "alpha is 1 and sigma is -0.1"),
        ((0.0, 0.0, 1.0, 1.0, 1.0, 0.0), "alpha is 0 and sigma is 0"),
        ((1.5, 0.5, 1.0, 1.0, 1.0, 0.0), "alpha is 1.5"),
    ],
)
def test_registered_map_is_refused_when_its_numbers_are_no_level(
    numbers: tuple[float, ...], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels, "_ENTRIES", {})
    levels.register(Wrong, lambda scheduler, timestep: levels.SchedulerLevel(*numbers))
    scheduler: Any = Wrong()
    scheduler.set_timesteps(3)
    with pytest.raises(UnsupportedError, match=rf"(?s){reason}.*levels\.register\(Wrong, level\)"):
        levels.position(scheduler, scheduler.timesteps[0], -1)


@pytest.mark.parametrize("claimed", [True, False])
def test_noise_is_renewed_with_a_registered_scheduler_when_its_entry_says_so(
    claimed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels, "_ENTRIES", {})
    own = levels.require(diffusers.FlowMatchEulerDiscreteScheduler())
    levels.register(Wrong, own.level, deterministic_first_order=claimed)
    assert levels.deterministic_first_order(Wrong(), {}) is claimed
    assert not levels.deterministic_first_order(Wrong(stochastic_sampling=True), {})
    assert not levels.deterministic_first_order(Wrong(), {"eta": 0.5})


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.id)
def test_step_is_that_of_first_order_when_the_entry_says_so_and_another_otherwise(
    setting: Setting,
) -> None:
    """The model's outputs are random, so that whatever a solver remembers shows."""
    scheduler, recorder = prepared(setting), Recorder()
    generator, sampler = torch.Generator().manual_seed(3), Sampler(setting, scheduler)
    start = 1.0 if setting.family in ("flow", "inverted flow") else scheduler.init_noise_sigma
    x = torch.randn(2, 3, 4, 4, generator=generator) * float(start)
    samples = [x]
    with Binding(Host(scheduler), recorder):
        for t in timesteps(setting, scheduler):
            output = torch.randn(2, 3, 4, 4, generator=generator)
            if hasattr(scheduler, "scale_model_input"):
                scheduler.scale_model_input(samples[-1], t)
            samples.append(sampler.step(output, t, samples[-1]))
    off = []
    for call, (_, after) in zip(recorder.calls, pairwise(samples), strict=True):
        level = call.level
        noise = (call.x_t - level.alpha * call.x0) / level.sigma
        expected = level.next_alpha * call.x0 + level.next_sigma * noise
        off.append(float((after - expected).abs().max() / expected.abs().max()))
    claimed = {call.deterministic_first_order for call in recorder.calls}
    assert len(claimed) == 1
    assert (max(off) < 1e-3) is claimed.pop(), off


CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "lu": {"use_lu_lambdas": True},
    "shift": {"shift": 3.3},
    "trailing": {"timestep_spacing": "trailing"},
    "linspace": {"timestep_spacing": "linspace"},
    "zero snr": {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    "sigma_min": {"final_sigmas_type": "sigma_min"},
    "terminal": {"shift_terminal": 0.1},
}


def run_through(setting: Setting, scheduler: Any, steps: int) -> None:
    scheduler.set_timesteps(steps)
    sampler, x = Sampler(setting, scheduler), torch.ones(1, 3, 4, 4)
    for t in timesteps(setting, scheduler):
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(x, t)
        sampler.step(torch.zeros_like(x), t, x)


def has_options(name: str, config: str) -> bool:
    return CONFIGS[config].keys() <= inspect.signature(getattr(diffusers, name)).parameters.keys()


@pytest.mark.parametrize(
    ("name", "config"),
    [(n, c) for n in sorted({s.name for s in SETTINGS}) for c in CONFIGS if has_options(n, c)],
)
def test_levels_are_valid_when_a_scheduler_is_configured_otherwise(name: str, config: str) -> None:
    """Every entry with every option of its schedule that it has, in few steps and many."""
    setting = next(s for s in SETTINGS if s.name == name)
    plain = setting.make()
    for steps in (1, 2, 25):
        recorder = Recorder()
        try:
            scheduler: Any = type(plain).from_config(plain.config, **CONFIGS[config])
            run_through(setting, scheduler, steps)
        except (ValueError, IndexError, ImportError, AssertionError, RuntimeError, RuntimeWarning):
            continue  # the scheduler itself cannot do so
        with Binding(Host(scheduler), recorder):
            run_through(setting, scheduler, steps)
        seen = [call.level for call in recorder.calls]
        assert seen
        assert all(level.fault is None for level in seen), seen
        assert min(level.alpha for level in seen) >= 0


def test_alpha_is_0_when_the_first_angle_of_scm_is_beyond_the_right_one() -> None:
    scheduler: Any = diffusers.SCMScheduler()
    scheduler.set_timesteps(2)  # 1.57080 is above π / 2
    scheduler.set_begin_index(0)
    levels.position(scheduler, scheduler.timesteps[0], -1)
    level = levels.level(scheduler, scheduler.timesteps[0])
    assert level.a < 0
    assert level.noise_level.alpha == 0
