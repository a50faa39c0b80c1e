"""The sizes of latent updates in the report, against a plain loop of diffusers."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, cast

import pytest
import torch
from tests.attach.conftest import prompted, seeded
from torch import Tensor

from unalike.attach import (
    ImageReport,
    Memorisation,
    Report,
    StabilityRegion,
    guide,
    guide_denoiser,
    memorisation,
    stability_region,
)
from unalike.attach.run.memorisation import Updates
from unalike.errors import OptionError
from unalike.guidance import SPARKE
from unalike.guidance.context import Context
from unalike.guidance.level import Level
from unalike.guidance.method import Method
from unalike.guidance.run import UpcomingCall
from unalike.shields import Shield

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
Pipelines = Callable[[str], Any]

NOISE = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(3))
SOLVERS: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {},
    "EulerDiscreteScheduler": {},
    "EulerAncestralDiscreteScheduler": {},
    "DPMSolverMultistepScheduler": {},
    "HeunDiscreteScheduler": {},
    "PNDMScheduler": {"skip_prk_steps": True},
}


@dataclass(frozen=True, kw_only=True)
class Twice(Method):
    """Takes all steps but the first twice."""

    name: ClassVar[str] = "twice"

    def passes_for(self, steps: int) -> int:
        return 2

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        return None


def measured(report: Report | None) -> list[Memorisation]:
    assert report is not None
    found = [image.memorisation for image in report.images]
    return [m for m in found if m is not None]


def plain_updates(pipe: Any, **arguments: Any) -> tuple[Tensor, list[list[float]]]:
    """What the pipeline draws from `latents` without guidance, and its updates by a callback."""
    seen: list[Tensor] = []

    def keep(_: Any, step: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
        seen.append(kept["latents"].clone())
        return kept

    out = pipe(**arguments, callback_on_step_end=keep)[0]
    start = arguments["latents"] * getattr(pipe.scheduler, "init_noise_sigma", 1.0)
    points = torch.stack([start, *seen])
    change = (points[1:] - points[:-1]).double().flatten(2)
    return out, change.square().mean(dim=2).sqrt().T.tolist()


def assert_same_updates(found: list[Memorisation], expected: list[list[float]]) -> None:
    assert len(found) == len(expected)
    for one, row in zip(found, expected, strict=True):
        assert one.updates == pytest.approx(row, rel=1e-5)
        assert one.first_share == pytest.approx(row[0] / sum(row), rel=1e-5)


@pytest.mark.parametrize("name", SOLVERS)
def test_updates_are_those_of_a_plain_loop_when_nothing_is_guided(solver: Any, name: str):
    pipe = solver(name, **SOLVERS[name])
    arguments = {**prompted("sd", ["cat", "owl", "dog"], 1), "latents": NOISE}
    image, expected = plain_updates(pipe, **arguments, generator=seeded(3))
    guided = guide(pipe)
    assert torch.equal(torch.as_tensor(guided(**arguments, generator=seeded(3))[0]), image)
    assert_same_updates(measured(guided.report), expected)


def test_updates_are_those_of_a_plain_loop_when_the_model_is_a_flow(pipelines: Pipelines):
    pipe = pipelines("sd3")
    arguments = {**prompted("sd3", ["cat", "owl", "dog"], 1), "latents": NOISE}
    image, expected = plain_updates(pipe, **arguments)
    guided = guide(pipe)
    assert torch.equal(torch.as_tensor(guided(**arguments)[0]), image)
    assert_same_updates(measured(guided.report), expected)


def test_updates_are_those_of_the_images_when_the_scheduler_has_more_rows(pipelines: Pipelines):
    pipe = pipelines("dit")  # whose scheduler steps the unconditional half, too
    guided = guide(pipe)
    seen: list[tuple[Tensor, Tensor]] = []
    own = pipe.scheduler.step

    def step(output: Tensor, t: Any, sample: Tensor, **kwargs: Any) -> Any:
        result = own(output, t, sample, **kwargs)
        seen.append((sample.clone(), result[0].clone()))
        return result

    pipe.scheduler.step = step
    try:
        pipe(**prompted("dit", ["cat", "owl"], 1), generator=seeded(2))
    finally:
        del pipe.scheduler.step
    guided(**prompted("dit", ["cat", "owl"], 1), generator=seeded(2))
    sizes = [(after - before).square().mean(dim=(1, 2, 3)).sqrt() for before, after in seen]
    assert len(sizes[0]) == 4
    assert_same_updates(measured(guided.report), torch.stack(sizes)[:, :2].T.tolist())


def test_updates_are_of_the_corrected_steps_when_a_method_acts(sd: Any):
    arguments = {**prompted("sd", ["cat"], 3), "latents": NOISE}
    seen: list[Tensor] = []

    def keep(_: Any, step: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
        seen.append(kept["latents"].clone())
        return kept

    guided = guide(sd, SPARKE(strength=0.5))
    guided(**arguments, generator=seeded(3), callback_on_step_end=keep)
    change = torch.stack(seen) - torch.stack([NOISE, *seen[:-1]])
    expected = change.double().flatten(2).square().mean(dim=2).sqrt().T.tolist()
    assert_same_updates(measured(guided.report), expected)
    plain = guide(sd)
    plain(**arguments, generator=seeded(3))
    assert measured(plain.report) != measured(guided.report)


def test_update_does_not_count_what_a_callback_changes(sd: Any):
    arguments = prompted("sd", ["cat"], 1)

    def shift(_: Any, step: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
        return {"latents": kept["latents"] + 100} if step == 3 else kept

    changed, plain = guide(sd), guide(sd)
    changed(**arguments, generator=seeded(1), callback_on_step_end=shift)
    plain(**arguments, generator=seeded(1))
    assert measured(changed.report) == measured(plain.report)


def test_updates_of_the_last_pass_count_when_steps_are_taken_again(sd: Any):
    seen: list[Tensor] = []

    def keep(_: Any, step: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
        seen.append(kept["latents"].clone())
        return kept

    guided = guide(sd, Twice())
    guided(**prompted("sd", ["cat"], 2), generator=seeded(2), callback_on_step_end=keep)
    assert len(seen) == 7  # 0 1 2 3, and again 1 2 3
    change = (torch.stack(seen[4:]) - torch.stack(seen[3:6])).double().flatten(2)
    expected = change.square().mean(dim=2).sqrt().T.tolist()
    found = measured(guided.report)
    assert [one.updates[0] for one in found] == [None, None]
    for one, row in zip(found, expected, strict=True):
        assert one.updates[1:] == pytest.approx(row, rel=1e-5)
        assert one.first_share is None


def test_updates_begin_at_the_restart_when_an_image_is_drawn_again(sd: Any):
    plain = guide(sd)
    arguments = {**prompted("sd", ["cat"], 2), "output_type": "pt"}
    plain(**arguments, generator=seeded(2))
    assert plain.latents is not None
    space = str(plain.report and plain.report.space).split()[0]
    shield = Shield(plain.latents[:1], space=space, radius=0.5)
    guided = guide(sd, shield=shield)
    guided(**arguments, generator=seeded(2))
    assert guided.report is not None
    again, kept = guided.report.images
    assert (again.restarts > 0, kept.restarts) == (True, 0)
    found, other = measured(guided.report)
    known = [step for step, update in enumerate(found.updates) if update is not None]
    assert len(found.updates) == 4
    assert known == list(range(4 - len(known), 4))
    assert 0 < len(known) < 4
    assert other == measured(plain.report)[1]
    region = stability_region([cast(Report, plain.report)])
    scores = memorisation(guided.report, region)
    assert scores[0].score == pytest.approx(
        max(abs(float(found.updates[t] or 0) - region.mean[t]) / region.deviation[t] for t in known)
    )


def test_updates_are_the_same_when_an_image_is_alone(sd: Any):
    together, alone = guide(sd), guide(sd)
    together(**prompted("sd", ["cat"], 3), generator=seeded(3))
    alone(**prompted("sd", ["cat"], 1), generator=seeded(1, 1))
    expected = measured(together.report)[1].updates
    assert measured(alone.report)[0].updates == pytest.approx(expected, rel=1e-4)


def test_updates_are_measured_in_single_precision_when_the_latents_are_half():
    updates, step = Updates(), UpcomingCall(level=Level(0.0, 1.0, 0.5, 0.5), step=0, steps=1)
    before = torch.full((2, 1, 256, 256), 1000.0, dtype=torch.float16)
    updates.add(step, before, before + 300)  # whose norm is above what float16 holds
    [found] = updates.memorisations(1)
    assert found is not None
    assert found.updates == pytest.approx([300.0])


def test_report_is_json_when_it_has_updates(sd: Any):
    guided = guide(sd, Twice())
    guided(**prompted("sd", ["cat"], 2), generator=seeded(2))
    assert guided.report is not None
    [first, _] = json.loads(json.dumps(guided.report.to_dict(), allow_nan=False))["images"]
    assert first["memorisation"]["updates"][0] is None
    assert first["memorisation"] == asdict(measured(guided.report)[0])


def report(*updates: list[float], space: str = "s") -> Report:
    """A report of images with these updates."""
    images = [
        ImageReport(i, None, 0, {}, {}, {}, None, None, memorisation=Memorisation(list(row)))
        for i, row in enumerate(updates)
    ]
    return Report(images=images, steps=len(updates[0]), space=space)


def test_region_is_the_mean_and_deviation_of_all_images_when_reports_are_several():
    region = stability_region([report([1.0, 5.0], [3.0, 5.0]), report([2.0, 8.0])])
    assert (region.space, region.mean, region.images) == ("s", [2.0, 6.0], 3)
    assert region.deviation == pytest.approx([1.0, 3**0.5])


def test_score_is_the_largest_deviation_when_steps_differ():
    region = StabilityRegion("s", [2.0, 6.0], [1.0, 0.5], 3)
    found = memorisation(report([2.5, 7.0], [2.0, 6.0], [6.0, 6.0]), region, width=1.9)
    assert [one.score for one in found] == [2.0, 0.0, 4.0]
    assert [one.outside for one in found] == [0.5, 0.0, 0.5]
    assert [one.updates for one in found] == [[2.5, 7.0], [2.0, 6.0], [6.0, 6.0]]


def test_region_is_refused_when_it_cannot_be_measured(sd: Any):
    with pytest.raises(OptionError, match="have 1 image; a stability region needs"):
        stability_region([report([1.0])])
    with pytest.raises(OptionError, match="the same for all images at a step"):
        stability_region([report([1.0, 2.0], [1.0, 3.0])])
    with pytest.raises(OptionError, match="numbers of steps differ: 1 and 2"):
        stability_region([report([1.0]), report([1.0, 2.0])])
    with pytest.raises(OptionError, match="latents differ: s and other"):
        stability_region([report([1.0]), report([2.0], space="other")])
    guided = guide(sd, Twice())
    guided(**prompted("sd", ["cat"], 2), generator=seeded(2))
    with pytest.raises(OptionError, match="not drawn in one pass over all steps"):
        stability_region([cast(Report, guided.report)])


def test_score_is_refused_when_the_region_is_of_other_settings():
    region = StabilityRegion("s", [2.0], [1.0], 3)
    with pytest.raises(OptionError, match="numbers of steps differ: 1 and 2"):
        memorisation(report([1.0, 2.0]), region)
    with pytest.raises(OptionError, match="latents differ: s and other"):
        memorisation(report([1.0], space="other"), region)
    for width in (0.0, float("nan"), "3"):
        with pytest.raises(OptionError, match="width is"):
            memorisation(report([1.0]), region, width=cast(float, width))


def test_score_is_refused_when_a_function_was_guided():
    guided = guide_denoiser(lambda x, sigma: x * 0, SPARKE(), sigmas=[2.0, 1.0, 0.0])
    guided.begin()
    guided(torch.ones(2, 3), torch.tensor([2.0, 2.0]))
    guided.finish(torch.ones(2, 3))
    assert guided.report is not None
    assert [image.memorisation for image in guided.report.images] == [None, None]
    with pytest.raises(OptionError, match="has no latent updates"):
        memorisation(guided.report, StabilityRegion("s", [2.0], [1.0], 3))
