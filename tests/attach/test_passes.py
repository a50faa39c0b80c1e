"""Further passes over a schedule: which steps, from where, and where there are none."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from tests.attach.conftest import prompted, seeded
from torch import Tensor

import unalike
from unalike.attach import guide
from unalike.attach.diffusers.passes import Order
from unalike.guidance import CADS, Auto
from unalike.guidance.context import Context
from unalike.guidance.level import Level
from unalike.guidance.method import Method
from unalike.memory import Memory

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
Seen = list[tuple[Context, Tensor]]
Pipelines = Callable[[str], Any]


@dataclass(frozen=True, kw_only=True)
class Passes(Method):
    """Takes steps again, and keeps what it sees."""

    name: ClassVar[str] = "passes"
    seen: Seen
    count: int = 2

    def passes_for(self, steps: int) -> int:
        return self.count

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        self.seen.append((context, x0.clone()))
        return None


def steps_of(seen: Seen) -> list[int]:
    return [context.step for context, _ in seen]


def drawn(pipe: Any, seen: Seen, images: int, count: int = 2, **arguments: Any) -> Tensor:
    guided = guide(pipe, Passes(seen=seen, count=count))
    asked = {**prompted("sd", ["cat"], images), **arguments}
    return torch.as_tensor(guided(**asked, generator=seeded(images))[0])


def test_passes_begin_at_the_second_step():
    assert Order.passes(4, 3) == Order(4, [0, 1, 2, 3, 1, 2, 3, 1, 2, 3], [3, 6])
    assert Order.passes(1, 3) == Order(1, [0], [])
    assert Order.passes(2, 3) == Order(2, [0, 1, 1, 1], [1, 2])
    assert Order.passes(4, 1) == Order(4, [0, 1, 2, 3], [])


def test_a_pass_ends_at_the_level_of_the_second_step():
    order, levels = Order.passes(3, 2), [Level(0.1, 0.9, 0.5, 0.5), Level(0.5, 0.5, 0.8, 0.2)]
    last = Level(0.8, 0.2, 1.0, 0.0)
    assert [order.level(i, level, None) for i, level in enumerate(levels)] == levels
    assert order.level(2, last, None) == Level(0.8, 0.2, 0.5, 0.5)
    assert [order.level(3, levels[1], None), order.level(4, last, None)] == [levels[1], last]


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("DDIMScheduler", {}),
        ("DDIMScheduler", {"timestep_spacing": "trailing", "set_alpha_to_one": False}),
        ("EulerDiscreteScheduler", {}),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
        ("EulerAncestralDiscreteScheduler", {}),
        ("LCMScheduler", {}),
        ("TCDScheduler", {}),
    ],
)
def test_a_pass_begins_with_what_the_one_before_predicted(solver: Any, name: str, config: Any):
    pipe, seen = solver(name, **config), []
    drawn(pipe, seen, 2, count=3)
    assert steps_of(seen) == [0, 1, 2, 3, 1, 2, 3, 1, 2, 3]
    assert [context.again for context, _ in seen] == [0] * 4 + [1] * 3 + [2] * 3
    assert {context.steps for context, _ in seen} == {4}
    noises = []
    for begin in (4, 7):
        level = seen[1][0].level
        assert seen[begin][0].level == level
        (before, x0), (context, _) = seen[begin - 1], seen[begin]
        assert (before.level.next_alpha, before.level.next_sigma) == (level.alpha, level.sigma)
        noises.append((context.x_t - level.alpha * x0) / level.sigma)
    for noise in noises:
        assert abs(float(noise.mean())) < 0.2
        assert abs(float(noise.std()) - 1) < 0.15
    assert not torch.allclose(noises[0], noises[1], atol=0.1)


def test_an_image_is_the_same_alone_and_in_a_batch(sd: Any):
    together = drawn(sd, [], 3)
    memory = Memory()
    guided = guide(sd, unalike.guidance.SPARKE(strength=0.0), memory=memory)
    guided(**prompted("sd", ["owl"], 1), generator=seeded(1, 9))  # something to be unlike
    alone = guide(sd, Passes(seen=[]), memory=memory)
    image = torch.as_tensor(alone(**prompted("sd", ["cat"], 1), generator=seeded(1, 1))[0])
    torch.testing.assert_close(image[0], together[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "HeunDiscreteScheduler"])
def test_there_is_one_pass_when_the_solver_remembers(solver: Any, name: str):
    pipe, seen = solver(name), []
    drawn(pipe, seen, 2)
    assert {context.again for context, _ in seen} == {0}
    guided = guide(pipe, Auto())
    guided(**prompted("sd", ["cat"], 2), generator=seeded(2))
    assert guided.report is not None
    assert guided.report.methods[0]["options"]["passes"] == 1


def test_there_is_one_pass_when_an_image_is_alone(sd: Any):
    seen: Seen = []
    image = drawn(sd, seen, 1)
    assert steps_of(seen) == [0, 1, 2, 3]
    plain = sd(**prompted("sd", ["cat"], 1), generator=seeded(1))[0]
    assert torch.equal(image, torch.as_tensor(plain))


def test_there_is_one_pass_when_the_schedule_is_taken_in_part(pipelines: Pipelines):
    pipe, seen = pipelines("sdxl"), []
    guided = guide(pipe, Passes(seen=seen))
    guided(**prompted("sdxl", ["cat"], 2), generator=seeded(2), denoising_end=0.5)
    assert steps_of(seen) == [0, 1]


def test_auto_takes_few_steps_twice_and_pushes_at_their_beginnings(sd: Any):
    guided = guide(sd, Auto(candidates=1))
    guided(**prompted("sd", ["cat"], 2), generator=seeded(2))
    report = guided.report
    assert report is not None
    sizes = report.images[0].corrections_of_x0["auto"]
    assert [size > 0 for size in sizes] == [True, False, False, False, True, False, False]
    assert (report.steps, report.calls) == (7, 14)
    assert report.methods[0]["options"]["passes"] == 2
    once = guide(sd, Auto(candidates=1, passes=1))
    once(**prompted("sd", ["cat"], 2), generator=seeded(2))
    assert once.report is not None
    assert once.report.steps == 4


def test_windows_count_steps_of_the_schedule_when_there_are_passes(sd: Any):
    early = CADS(tau_1=0.6, tau_2=1.0)
    guided = guide(sd, Auto(candidates=1), early)
    guided(**prompted("sd", ["cat"], 2), generator=seeded(2))
    alone = guide(sd, early)
    alone(**prompted("sd", ["cat"], 2), generator=seeded(2))
    assert guided.report is not None
    assert alone.report is not None
    once = alone.report.images[0].active["cads"] * 4
    assert guided.report.images[0].active["cads"] * 7 == pytest.approx(2 * once - 1)


def test_memory_and_shield_see_the_end_alone(sd: Any):
    memory = Memory()
    guided = guide(sd, Passes(seen=[]), memory=memory)
    guided(**prompted("sd", ["cat"], 2), generator=seeded(2))
    assert len(memory) == 2
    (space,) = memory.spaces()
    view = memory.view(space)
    assert view is not None
    assert guided.latents is not None
    torch.testing.assert_close(
        view.latents.float(), guided.latents.flatten(1), rtol=1e-2, atol=1e-2
    )


def test_the_pipelines_own_schedule_stays_as_it_was(sd: Any):
    sd.scheduler.set_timesteps(4)
    before = sd.scheduler.timesteps.clone()
    drawn(sd, [], 2)
    assert torch.equal(sd.scheduler.timesteps, before)
