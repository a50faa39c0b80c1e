from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import diffusers
import pytest
import torch
from tests.attach.conftest import prompted, seeded
from torch import Tensor

from unalike.attach import guide, shield_from_images
from unalike.attach.spaces import latent_model, latent_space
from unalike.errors import (
    AttachmentError,
    NumericsError,
    OptionError,
    ShieldError,
    StoreError,
    UnsupportedError,
)
from unalike.guidance.context import Context
from unalike.guidance.method import Method
from unalike.guidance.sparke import SPARKE
from unalike.guidance.spell import SPELL
from unalike.memory import Memory
from unalike.shields import Shield

# some schedulers hand tensors to numpy in the way of numpy 1
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")

NAMES = ["sd", "sdxl", "sd3", "dit", "flux"]
Pipelines = Callable[[str], Any]


@dataclass(frozen=True, kw_only=True)
class Probe(Method):
    """Calls a function at each step and returns what it returns."""

    name: ClassVar[str] = "probe"
    act: Callable[[Tensor, Context], Tensor | None]

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        return self.act(x0, context)


@dataclass(frozen=True, kw_only=True)
class Measured(Method):
    """Has to be calibrated; keeps what it was calibrated on."""

    name: ClassVar[str] = "measured"
    seen: tuple[tuple[int, ...], ...] | None = None

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        assert self.seen is not None
        return None

    @property
    def needs_calibration(self) -> bool:
        return self.seen is None

    def calibrated(self, latents: Tensor, groups: Tensor) -> "Measured":
        CALIBRATIONS.append(latents)
        return replace(self, seen=(tuple(latents.shape), tuple(groups.tolist())))


CALIBRATIONS: list[Tensor] = []


def drawn(pipe: Any, arguments: dict[str, Any], first_seed: int = 0, count: int = 4) -> Tensor:
    return torch.as_tensor(pipe(**arguments, generator=seeded(count, first_seed))[0])


@pytest.mark.parametrize("name", NAMES)
def test_images_are_bit_identical_when_nothing_is_corrected(
    pipelines: Pipelines, name: str
) -> None:
    pipe, arguments = pipelines(name), prompted(name, ["cat", "dog"], 2)
    guided = guide(pipe, Probe(act=lambda x0, context: None), SPARKE(strength=0.0), memory=Memory())
    assert torch.equal(drawn(guided, arguments), drawn(pipe, arguments))
    assert guided.report is not None
    assert [image.active for image in guided.report.images] == [{"probe": 0.0, "sparke": 0.0}] * 4


@pytest.mark.parametrize("name", NAMES)
def test_images_change_and_groups_are_right_when_guided(pipelines: Pipelines, name: str) -> None:
    pipe, arguments, seen = pipelines(name), prompted(name, ["cat", "dog"], 2), []
    guided = guide(
        pipe, SPARKE(strength=0.1), Probe(act=lambda x0, context: seen.append((x0, context)))
    )
    assert (drawn(guided, arguments) - drawn(pipe, arguments)).abs().amax(
        (1, *range(2, drawn(pipe, arguments).ndim))
    ).min() > 1e-3
    assert [context.step for _, context in seen] == [0, 1, 2, 3]
    for x0, context in seen:
        assert len(x0) == len(context.x_t) == 4
        assert context.steps == 4
        assert context.groups.tolist() == [0, 0, 1, 1]
        assert torch.equal(context.prompts[0], context.prompts[1])
        assert not torch.allclose(context.prompts[1], context.prompts[2])
        torch.testing.assert_close(context.prompts.norm(dim=1), torch.ones(4))
    report = guided.report
    assert report is not None
    assert [(image.index, image.group) for image in report.images] == [
        (0, 0),
        (1, 0),
        (2, 1),
        (3, 1),
    ]
    assert all(
        image.active["sparke"] == 0.75 and image.nearest is not None for image in report.images
    )


@pytest.mark.parametrize("name", ["sd", "dit", "flux"])
def test_images_are_the_same_when_the_batch_is_larger(pipelines: Pipelines, name: str) -> None:
    pipe, memory = pipelines(name), Memory()
    drawn(guide(pipe, memory=memory), prompted(name, ["cat"], 3), 50, 3)
    method = SPARKE(strength=0.2, batch=False)

    def guided(each: int) -> Tensor:
        copy = Memory()
        space = next(iter(memory.spaces()))
        view = memory.view(space)
        assert view is not None
        copy.add(space, view.latents.view(3, *SHAPES[name]), prompts=view.prompts)
        return drawn(guide(pipe, method, memory=copy), prompted(name, ["cat"], each), 0, each)

    torch.testing.assert_close(guided(1), guided(3)[:1], atol=2e-3, rtol=1e-4)


SHAPES = {"sd": (4, 8, 8), "dit": (4, 8, 8), "flux": (16, 16)}


@pytest.mark.parametrize("name", NAMES)
def test_memory_holds_the_final_latents_when_a_call_has_succeeded(
    pipelines: Pipelines, name: str
) -> None:
    pipe, memory = pipelines(name), Memory()
    guided = guide(pipe, memory=memory)
    latents = drawn(guided, prompted(name, ["cat", "dog"], 1), count=2)
    assert guided.report is not None
    view = memory.view(guided.report.space)
    assert view is not None
    assert len(view) == 2
    assert memory.seeds(guided.report.space) == [0, 1]
    if name != "dit":
        assert torch.equal(view.latents, latents.flatten(1))
        assert memory.texts(guided.report.space) == ["cat", "dog"]
    drawn(guided, prompted(name, ["cat"], 1), first_seed=1, count=1)
    assert len(memory) == 3
    nearest = guided.report.images[0].nearest
    assert nearest is not None
    assert (nearest.source, nearest.index) == ("memory", 1)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_behind_when_a_call_fails(sd: Any, error: type[BaseException]) -> None:
    def fail(x0: Tensor, context: Context) -> None:
        if context.step == 2:
            raise error("stop")

    memory = Memory()
    guided = guide(sd, Probe(act=fail), memory=memory)
    with pytest.raises(error):
        drawn(guided, prompted("sd", ["cat"], 1), count=1)
    assert len(memory) == 0
    assert guided.report is None
    assert "step" not in vars(sd.scheduler)
    assert "set_timesteps" not in vars(sd.scheduler)
    assert "encode_prompt" not in vars(sd)


def test_nothing_is_committed_when_decoding_fails(sd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no decoder")

    memory = Memory()
    monkeypatch.setattr(sd.vae, "decode", fail)
    with pytest.raises(RuntimeError, match="no decoder"):
        guide(sd, memory=memory)(**{**prompted("sd", ["cat"], 1), "output_type": "pt"})
    assert len(memory) == 0


@pytest.mark.parametrize("name", NAMES)
def test_certificates_say_outside_when_a_shield_is_in_the_way(
    pipelines: Pipelines, name: str
) -> None:
    pipe, arguments, memory = pipelines(name), prompted(name, ["cat"], 2), Memory()
    drawn(guide(pipe, memory=memory), arguments, count=2)
    space = next(iter(memory.spaces()))
    view = memory.view(space)
    assert view is not None
    shape = tuple(int(n) for n in space.split()[0].rpartition("/")[2].split("x"))
    shield = Shield(
        view.latents[:1].view(1, *shape), space=space.split()[0], radius=1.0, ids=["mine"]
    )
    kept = Memory()
    guided = guide(pipe, on_violation="move", shield=shield, memory=kept)
    images = drawn(guided, arguments, count=2)
    assert guided.report is not None
    first, second = (image.certificate for image in guided.report.images)
    assert first is not None
    assert second is not None
    assert (first.moved, second.moved) == (True, False)
    assert first.nearest_id == second.nearest_id == "mine"
    assert first.distance >= 1.0
    assert first.margin == pytest.approx(first.distance - 1.0)
    after = kept.view(space)
    assert after is not None
    assert float((after.latents[0] - view.latents[0]).double().norm()) == pytest.approx(
        first.distance, rel=1e-6
    )
    if name == "dit":
        assert torch.equal(images[1], drawn(pipe, arguments, count=2)[1])
        assert not torch.equal(images[0], drawn(pipe, arguments, count=2)[0])
    else:
        assert torch.equal(images.flatten(1), after.latents)


def test_nothing_is_left_to_move_when_spell_has_kept_images_out(sd: Any) -> None:
    arguments, memory = prompted("sd", ["cat"], 2), Memory()
    drawn(guide(sd, memory=memory), arguments, count=2)
    space = next(iter(memory.spaces()))
    view = memory.view(space)
    assert view is not None
    shield = Shield(view.latents.view(2, 4, 8, 8), space=space.split()[0], radius=20.0)
    guided = guide(
        sd, SPELL(radius=20.0, overcompensation=1.6, batch=False, memory=False), shield=shield
    )
    drawn(guided, arguments, count=2)
    assert guided.report is not None
    for image in guided.report.images:
        assert image.active["spell"] > 0
        assert image.certificate is not None
        assert image.certificate.distance >= 20.0
        assert not image.certificate.moved


def test_images_are_unchanged_when_no_ball_is_touched(sd: Any) -> None:
    arguments = prompted("sd", ["cat"], 2)
    shield = Shield(
        torch.full((1, 4, 8, 8), 1e3), space=latent_space(latent_model(sd), (4, 8, 8)), radius=1.0
    )
    assert torch.equal(
        drawn(guide(sd, SPELL(radius=1.0), shield=shield), arguments, count=2),
        drawn(sd, arguments, count=2),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_images_are_guided_when_the_model_runs_in_half_precision(
    sd: Any, dtype: torch.dtype
) -> None:
    seen = []
    try:
        sd.to(dtype)
        guided = guide(
            sd,
            SPARKE(strength=0.1),
            Probe(act=lambda x0, context: seen.append(x0.dtype)),
            memory=Memory(dtype="float16"),
        )
        latents = drawn(guided, prompted("sd", ["cat"], 2), count=2)
        plain = drawn(sd, prompted("sd", ["cat"], 2), count=2)
    finally:
        sd.to(torch.float32)
    assert latents.dtype == dtype
    assert not torch.equal(latents, plain)
    assert set(seen) == {torch.float32}


def test_last_step_is_found_when_only_the_tail_of_the_schedule_runs(sd: Any) -> None:
    pipe, memory, seen = (
        diffusers.StableDiffusionImg2ImgPipeline(**sd.components, requires_safety_checker=False),
        Memory(),
        [],
    )
    pipe.set_progress_bar_config(disable=True)
    guided = guide(
        pipe,
        Probe(act=lambda x0, context: seen.append((context.step, context.steps))),
        memory=memory,
    )
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    out = guided(
        prompt="cat",
        image=image,
        strength=0.5,
        num_inference_steps=6,
        generator=seeded(1)[0],
        output_type="latent",
    )
    assert seen == [(0, 3), (1, 3), (2, 3)]
    assert guided.report is not None
    view = memory.view(guided.report.space)
    assert view is not None
    assert torch.equal(view.latents, out.images.flatten(1))


def test_unfinished_run_commits_nothing_when_it_is_interrupted(sd: Any) -> None:
    def interrupt(pipe: Any, step: int, timestep: Any, arguments: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = step == 1
        return arguments

    arguments = {**prompted("sd", ["cat"], 1), "callback_on_step_end": interrupt}
    memory = Memory()
    guided = guide(sd, memory=memory)
    guided(**arguments)
    assert guided.report is not None
    assert not guided.report.finished
    assert guided.report.steps == 2
    assert len(memory) == 0
    shield = Shield(
        torch.zeros(1, 4, 8, 8), space=latent_space(latent_model(sd), (4, 8, 8)), radius=1e-3
    )
    with pytest.raises(ShieldError, match="after step 2 of 4"):
        guide(sd, shield=shield)(**arguments)


def test_caller_sees_the_pipeline_when_it_asks_for_anything_else(sd: Any) -> None:
    guided = guide(sd, SPARKE())
    assert guided.vae is sd.vae
    assert guided.to("cpu") is guided
    scheduler = sd.scheduler
    guided.scheduler = diffusers.DDPMScheduler.from_config(scheduler.config)
    assert isinstance(sd.scheduler, diffusers.DDPMScheduler)
    sd.scheduler = scheduler
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = guided.no_such_thing


def test_output_is_the_pipelines_own_when_guided(sd: Any) -> None:
    out = guide(sd, SPARKE())(
        "cat", num_inference_steps=2, generator=seeded(1)[0], return_dict=False
    )
    assert isinstance(out, tuple)
    assert out[0][0].size == (16, 16)
    assert type(guide(sd, SPARKE())("", num_inference_steps=2)) is type(
        sd("", num_inference_steps=2)
    )


def test_method_is_calibrated_once_when_settings_stay(sd: Any) -> None:
    CALIBRATIONS.clear()
    guided, arguments = (
        guide(sd, Measured(), SPARKE(strength=0.1)),
        prompted("sd", ["cat", "dog"], 2),
    )
    generators = seeded(4)
    states = [g.get_state() for g in generators]
    fresh = drawn(guide(sd, SPARKE(strength=0.1)), arguments)
    first = torch.as_tensor(guided(**arguments, generator=generators)[0])
    assert torch.equal(first, fresh)
    assert all(not torch.equal(g.get_state(), s) for g, s in zip(generators, states, strict=True))
    assert [len(latents) for latents in CALIBRATIONS] == [8]
    assert torch.equal(CALIBRATIONS[0][:4], drawn(sd, arguments))
    assert len({tuple(row.flatten().tolist()) for row in CALIBRATIONS[0]}) == 8
    drawn(guided, arguments, 9)
    assert len(CALIBRATIONS) == 1
    drawn(guided, {**arguments, "guidance_scale": 1.0})
    assert len(CALIBRATIONS) == 2


def test_global_random_state_is_kept_when_calibrating_without_a_generator(sd: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        plain = sd(**prompted("sd", ["cat"], 2))[0]
        torch.manual_seed(3)
        guided = guide(sd, Measured())(**prompted("sd", ["cat"], 2))[0]
    assert torch.equal(plain, guided)


@pytest.mark.parametrize("name", ["sd", "dit"])
def test_radius_is_measured_when_spell_asks_for_it(pipelines: Pipelines, name: str) -> None:
    guided = guide(pipelines(name), SPELL(radius="auto", factor=1.2))
    drawn(guided, prompted(name, ["cat"], 2), count=2)
    assert guided.report is not None
    assert guided.report.images[0].active["spell"] > 0


def test_memory_of_another_model_is_refused_when_the_pipeline_is_guided(
    pipelines: Pipelines,
) -> None:
    memory = Memory()
    drawn(guide(pipelines("sd"), memory=memory), prompted("sd", ["cat"], 1), count=1)
    with pytest.raises(
        StoreError, match=r"of another model \(AutoencoderKL-.*none of this one \(AutoencoderKL-"
    ):
        drawn(guide(pipelines("flux"), memory=memory), prompted("flux", ["cat"], 1), count=1)
    drawn(
        guide(pipelines("sd"), memory=memory), {**prompted("sd", ["cat"], 1), "height": 32}, count=1
    )
    assert sorted(memory.spaces().values()) == [1, 1]


def test_memory_is_shared_when_only_the_scheduler_differs(sd: Any) -> None:
    memory, scheduler = Memory(), sd.scheduler
    drawn(guide(sd, memory=memory), prompted("sd", ["cat"], 1), count=1)
    try:
        sd.scheduler = diffusers.UniPCMultistepScheduler.from_config(scheduler.config)
        drawn(guide(sd, SPARKE(), memory=memory), prompted("sd", ["cat"], 1), count=1)
    finally:
        sd.scheduler = scheduler
    assert list(memory.spaces().values()) == [2]


def test_shield_of_another_model_is_refused_when_attached(pipelines: Pipelines) -> None:
    shield = shield_from_images(
        pipelines("sd"), torch.rand(2, 3, 16, 16, generator=seeded(1)[0]), 1.0
    )
    guide(pipelines("sd"), shield=shield)
    with pytest.raises(StoreError, match=r"^shield protects latents of"):
        guide(pipelines("flux"), shield=shield)
    with pytest.raises(StoreError, match=r"4x8x8.*4x16x8"):
        drawn(
            guide(pipelines("sd"), shield=shield),
            {**prompted("sd", ["cat"], 1), "height": 32},
            count=1,
        )


def test_step_is_named_when_the_model_makes_nan(sd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    own, calls = sd.unet.forward, []

    def spoiled(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        result = own(*args, **kwargs)
        return (result[0] * float("nan"),) if len(calls) == 3 else result

    monkeypatch.setattr(sd.unet, "forward", spoiled)
    memory = Memory()
    with pytest.raises(NumericsError, match="step 2 of 4"):
        drawn(guide(sd, memory=memory), prompted("sd", ["cat"], 1), count=1)
    assert len(memory) == 0


def test_bad_arguments_are_refused_when_guiding(sd: Any) -> None:
    with pytest.raises(OptionError, match="'sparke' is not a guidance method"):
        guide(sd, "sparke")  # type: ignore[arg-type]
    with pytest.raises(AttachmentError, match="guided already"):
        guide(guide(sd, SPARKE()), SPARKE())
    with pytest.raises(OptionError, match="memory is a dict"):
        guide(sd, memory={})  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="prompt_encoder is a int"):
        guide(sd, prompt_encoder=3)  # type: ignore[arg-type]
    scheduler = sd.scheduler
    try:
        sd.scheduler = diffusers.UnCLIPScheduler()
        with pytest.raises(UnsupportedError, match="UnCLIPScheduler"):
            guide(sd, SPARKE())
    finally:
        sd.scheduler = scheduler


def test_prompt_encoder_and_groups_are_used_when_given(sd: Any) -> None:
    seen = []
    guided = guide(
        sd,
        Probe(act=lambda x0, context: seen.append(context)),
        prompt_encoder=lambda texts: torch.eye(5)[[len(t) for t in texts]],
        groups=[1, 0, 0, 1],
        memory=Memory(),
    )
    drawn(guided, prompted("sd", ["cat", "owls"], 2))
    assert seen[0].prompts.argmax(1).tolist() == [3, 3, 4, 4]
    assert seen[0].groups.tolist() == [1, 0, 0, 1]
    assert guided.report is not None
    assert guided.report.space.endswith("/5")


def test_methods_draw_the_same_numbers_when_the_seed_is_the_same(sd: Any) -> None:
    numbers: list[Tensor] = []
    guided = guide(sd, Probe(act=lambda x0, context: numbers.append(context.noise(x0)[:, 0, 0, 0])))
    for count in (1, 3):
        drawn(guided, prompted("sd", ["cat"], count), 5, count)
    assert [n[0] for n in numbers[:4]] == [
        n[0] for n in numbers[4:]
    ]  # whatever the size of the batch
    assert len({float(v) for n in numbers for v in n}) == 4 * 3


def test_methods_draw_new_numbers_when_there_is_no_seed(sd: Any) -> None:
    numbers: list[Tensor] = []
    guided = guide(sd, Probe(act=lambda x0, context: numbers.append(context.noise(x0))))
    for _ in range(2):
        guided(**prompted("sd", ["cat"], 1))
    assert not torch.equal(numbers[0], numbers[4])
