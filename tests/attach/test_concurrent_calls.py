"""Guided calls beside other calls of what they share: in callbacks, in threads, in tasks."""

import asyncio
import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from tests.attach.conftest import prompted, seeded
from torch import Tensor

from unalike import (
    CADS,
    DAVE,
    SPARKE,
    SPELL,
    ContextualRepulsion,
    CoupledNoise,
    IntervalGuidance,
    Memory,
    SeedVariance,
)
from unalike.attach import guide
from unalike.attach.diffusers.scoped import current, own_model, own_pipeline
from unalike.errors import AttachmentError
from unalike.guidance.context import Context
from unalike.guidance.method import Method

Pipelines = Callable[[str], Any]
METHODS: dict[str, Callable[[], Method]] = {
    "sparke": lambda: SPARKE(strength=0.2),
    "spell": lambda: SPELL(radius=2.0, batch=True),
    "cads": lambda: CADS(noise_scale=0.5),
    "interval": lambda: IntervalGuidance(sigma_low=0.1, sigma_high=3.0),
    "coupled": lambda: CoupledNoise(),
    "contextual": lambda: ContextualRepulsion(stop=1.0),
    "dave": lambda: DAVE(stop=1.0),
    "seedvariance": lambda: SeedVariance(stop=1.0),
    "word": lambda: SPARKE(strength=0.2, region=["cat"]),
}
every_method = pytest.mark.parametrize("method", METHODS)


@dataclass(frozen=True, kw_only=True)
class Acting(Method):
    """Calls a function at each step, and corrects nothing."""

    name: ClassVar[str] = "acting"
    act: Callable[[Context], object]

    def x0_delta(self, x0: Tensor, context: Context) -> None:
        self.act(context)


def sharing(pipe: Any, *, scheduler: bool = False) -> Any:
    """Another pipeline around the same models, and the same scheduler where that is asked."""
    parts = dict(pipe.components)
    if not scheduler:
        parts["scheduler"] = copy.deepcopy(pipe.scheduler)
    kind: Any = type(pipe)
    if type(pipe) is StableDiffusionPipeline:
        parts["requires_safety_checker"] = False
    other = kind(**parts)
    other.set_progress_bar_config(disable=True)
    return other


def drawn(pipe: Any, name: str, prompt: str, seed: int, **more: Any) -> Tensor:
    arguments = {**prompted(name, [prompt], 2), **more}
    return torch.as_tensor(pipe(**arguments, generator=seeded(2, seed))[0])


def between_steps(act: Callable[[Any], object]) -> dict[str, Any]:
    """The argument that calls `act` with the pipeline once, between two steps."""

    def callback(pipe: Any, step: int, timestep: Any, values: Any) -> Any:
        if step == 1:
            act(pipe)
        return values

    return {"callback_on_step_end": callback}


@every_method
@pytest.mark.parametrize("name", ["sd", "flux"])
@pytest.mark.parametrize("scheduler", [False, True], ids=["own scheduler", "one scheduler"])
def test_both_are_as_alone_when_a_callback_draws_with_another_pipeline(
    pipelines: Pipelines, name: str, method: str, scheduler: bool
) -> None:
    pipe = pipelines(name)
    other = sharing(pipe, scheduler=scheduler)
    plain = drawn(other, name, "dog", 7)
    alone = drawn(guide(pipe, METHODS[method]()), name, "cat", 0)
    seen: list[Tensor] = []
    draw = between_steps(lambda _: seen.append(drawn(other, name, "dog", 7)))
    beside = drawn(guide(pipe, METHODS[method]()), name, "cat", 0, **draw)
    assert torch.equal(beside, alone)
    assert torch.equal(seen[0], plain)


@every_method
@pytest.mark.parametrize("which", ["the pipeline", "what the callback is given", "another guided"])
def test_both_are_as_alone_when_a_callback_draws_with_the_same_pipeline(
    sd: Any, method: str, which: str
) -> None:
    within = METHODS[method]()
    draws: dict[str, Callable[[Any], Tensor]] = {
        "the pipeline": lambda given: drawn(sd, "sd", "dog", 7, guidance_scale=5.0),
        "what the callback is given": lambda given: drawn(
            given, "sd", "dog", 7, guidance_scale=5.0
        ),
        "another guided": lambda given: drawn(guide(sd, within), "sd", "dog", 7),
    }
    draw, seen = draws[which], []
    apart, alone = draw(sd), drawn(guide(sd, METHODS[method]()), "sd", "cat", 0)
    act = between_steps(lambda given: seen.append(draw(given)))
    assert torch.equal(drawn(guide(sd, METHODS[method]()), "sd", "cat", 0, **act), alone)
    assert torch.equal(seen[0], apart)


@every_method
def test_unguided_call_is_as_alone_when_its_callback_draws_guided(sd: Any, method: str) -> None:
    plain, guided = drawn(sd, "sd", "dog", 7), guide(sd, METHODS[method]())
    alone, seen = drawn(guided, "sd", "cat", 0), []
    draw = between_steps(lambda _: seen.append(drawn(guided, "sd", "cat", 0, guidance_scale=3.0)))
    assert torch.equal(drawn(sd, "sd", "dog", 7, **draw), plain)
    assert torch.equal(seen[0], alone)


def met(meeting: threading.Barrier) -> dict[str, Any]:
    """The argument that lets two threads take their steps in turn."""

    def callback(pipe: Any, step: int, timestep: Any, values: Any) -> Any:
        meeting.wait(timeout=20)
        return values

    return {"callback_on_step_end": callback}


@every_method
@pytest.mark.parametrize("name", ["sd", "sd3"])
@pytest.mark.parametrize("same", [True, False], ids=["one pipeline", "shared models"])
def test_both_are_as_alone_when_an_unguided_call_runs_in_another_thread(
    pipelines: Pipelines, name: str, method: str, same: bool
) -> None:
    pipe = pipelines(name)
    guided, other = guide(pipe, METHODS[method]()), pipe if same else sharing(pipe)
    alone = drawn(guided, name, "cat", 0), drawn(other, name, "dog", 7, guidance_scale=5.0)
    meeting = threading.Barrier(2)
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(drawn, guided, name, "cat", 0, **met(meeting))
        two = threads.submit(drawn, other, name, "dog", 7, guidance_scale=5.0, **met(meeting))
        assert torch.equal(one.result(), alone[0])
        assert torch.equal(two.result(), alone[1])


@every_method
def test_both_are_as_alone_when_two_guided_calls_of_one_pipeline_run_at_once(
    sd: Any, method: str
) -> None:
    def calls() -> list[Any]:
        return [guide(sd, METHODS[method]()), guide(sd, SPARKE(strength=0.1))]

    alone = [drawn(g, "sd", "cat", seed) for seed, g in enumerate(calls())]
    meeting, together = threading.Barrier(2), calls()
    with ThreadPoolExecutor(2) as threads:
        jobs = [
            threads.submit(drawn, g, "sd", "cat", seed, **met(meeting))
            for seed, g in enumerate(together)
        ]
    assert all(torch.equal(job.result(), own) for job, own in zip(jobs, alone, strict=True))
    assert [len(g.report.images) for g in together] == [2, 2]


def test_all_images_are_remembered_when_guided_calls_share_a_memory(sd: Any) -> None:
    memory, meeting = Memory(), threading.Barrier(4)
    with ThreadPoolExecutor(4) as threads:
        jobs = [
            threads.submit(drawn, guide(sd, memory=memory), "sd", "cat", 2 * i, **met(meeting))
            for i in range(4)
        ]
    made = torch.cat([job.result() for job in jobs]).flatten(1)
    view = memory.view(next(iter(memory.spaces())))
    assert view is not None
    assert len(view) == 8
    assert torch.cdist(made, view.latents).min(dim=1).values.max() == 0


def test_both_are_as_alone_when_calls_run_in_tasks(sd: Any) -> None:
    guided = guide(sd, CADS(noise_scale=0.5))
    alone = drawn(guided, "sd", "cat", 0), drawn(sd, "sd", "dog", 7)
    meeting = threading.Barrier(2)

    async def both() -> tuple[Tensor, Tensor]:
        return await asyncio.gather(
            asyncio.to_thread(drawn, guided, "sd", "cat", 0, **met(meeting)),
            asyncio.to_thread(drawn, sd, "sd", "dog", 7, **met(meeting)),
        )

    together = asyncio.run(both())
    assert torch.equal(together[0], alone[0])
    assert torch.equal(together[1], alone[1])


def test_second_call_is_refused_when_the_same_guided_pipeline_is_in_one(sd: Any) -> None:
    guided, refused = guide(sd, SPARKE()), []

    def again(_: Any) -> None:
        with pytest.raises(AttachmentError, match=r"in a call already.*make one for each, as in"):
            drawn(guided, "sd", "dog", 7)
        with ThreadPoolExecutor(1) as threads:
            error = threads.submit(drawn, guided, "sd", "dog", 7).exception()
        refused.append(error)

    first = drawn(guided, "sd", "cat", 0, **between_steps(again))
    assert isinstance(refused[0], AttachmentError)
    assert torch.equal(drawn(guided, "sd", "cat", 0), first)


@every_method
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_pipeline_and_models_are_as_before_when_a_call_fails(
    sd: Any, method: str, error: type[BaseException]
) -> None:
    def everything() -> list[Any]:
        modules = [m for part in sd.components.values() if isinstance(part, torch.nn.Module)
                   for m in part.modules()]  # fmt: skip
        hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules]
        return [hooks, dict(vars(sd)), dict(vars(sd.scheduler)), [dict(vars(m)) for m in modules]]

    def fail(context: Context) -> None:
        if context.step == 2:
            raise error("stop")

    before = everything()
    with pytest.raises(error, match="stop"):
        drawn(guide(sd, METHODS[method](), Acting(act=fail)), "sd", "cat", 0)
    hooks, *state = everything()
    assert hooks == before[0]
    assert [s.keys() for s in state[:2]] == [s.keys() for s in before[1:3]]
    assert all(a[k] is b[k] for a, b in zip(state[:2], before[1:3], strict=True) for k in a)
    assert [m.keys() for m in state[2]] == [m.keys() for m in before[3]]
    assert current(sd) is sd


@pytest.mark.parametrize("target", ["pipeline", "guided"])
def test_call_ends_early_when_an_interrupt_is_asked_of_the_pipeline_itself(
    sd: Any, target: str
) -> None:
    guided = guide(sd, SPARKE())

    def stop(_: Any) -> None:
        (sd if target == "pipeline" else guided)._interrupt = True

    drawn(guided, "sd", "cat", 0, **between_steps(stop))
    assert guided.report is not None
    assert not guided.report.finished
    drawn(guided, "sd", "cat", 0)
    assert guided.report.finished


def test_callback_reads_and_changes_the_running_call_when_it_uses_the_guided_pipeline(
    sd: Any,
) -> None:
    seen: list[Any] = []

    def act(given: Any) -> None:
        seen.append((guided.num_timesteps, guided.scheduler.num_inference_steps))
        guided._guidance_scale = 9.0
        seen.append(given.guidance_scale)

    guided = guide(sd, SPARKE())
    changed = drawn(guided, "sd", "cat", 0, **between_steps(act))
    assert seen == [(4, 4), 9.0]
    assert not torch.equal(changed, drawn(guided, "sd", "cat", 0))


def test_hooks_of_others_still_act_when_a_model_is_stood_in_for(sd: Any) -> None:
    calls: list[Any] = []
    handle = sd.unet.register_forward_hook(lambda *_: calls.append(1))
    try:
        drawn(guide(sd, CADS()), "sd", "cat", 0)
    finally:
        handle.remove()
    assert len(calls) == 4


def test_models_of_a_stand_in_share_weights_and_nothing_of_their_hooks(sd: Any) -> None:
    own = own_pipeline(sd)
    unet = own_model(own, "unet")
    assert own_model(own, "unet") is unet is own.unet
    assert type(unet) is type(sd.unet)
    assert isinstance(own, type(sd))
    assert isinstance(own, DiffusionPipeline)
    assert own.components["unet"] is sd.unet
    assert all(a is b for a, b in zip(unet.parameters(), sd.unet.parameters(), strict=True))
    unet.register_forward_hook(lambda *_: None)
    assert not sd.unet._forward_hooks
    with pytest.raises(TypeError, match="that other calls share"):
        own_model(sd, "unet")


def test_method_set_on_a_stand_in_acts_in_its_call_alone(sd: Any) -> None:
    own, decoded = own_pipeline(sd), []
    vae = own_model(own, "vae")
    decode = vae.decode
    vae.decode = lambda z, *args, **kwargs: decoded.append(z) or decode(z, *args, **kwargs)
    plain = drawn(sd, "sd", "cat", 0, output_type="np")
    assert not decoded
    assert torch.equal(drawn(own, "sd", "cat", 0, output_type="np"), plain)
    assert len(decoded) == 1
