"""Windows of methods where a call evaluates the model 1 to 8 times, and where it does 20 times."""

import pytest
import torch
from tests.guidance.conformance import STEPS, sample, scene

from unalike.guidance.auto import Auto
from unalike.guidance.cads import CADS
from unalike.guidance.context import Context
from unalike.guidance.level import Level
from unalike.guidance.method import FEW, Method
from unalike.guidance.methods import METHODS, build
from unalike.guidance.sparke import SPARKE

WINDOWS = [
    {"start": start / 20, "stop": stop / 20, "every": every}
    for start in range(20)
    for stop in range(start + 1, 21)
    for every in (1, 2, 3, 7)
]
WINDOWED = [name for name in METHODS if name not in ("coupled", "pink", "contrastive")]
"""Those that act at steps; the others act once, before the first."""


def acts(method: Method, steps: int) -> list[int]:
    return [step for step in range(steps) if method.acts(step, steps)]


@pytest.mark.parametrize("name", WINDOWED)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8])
def test_every_window_has_a_step_when_there_are_few(name, steps):
    for window in WINDOWS:
        found = acts(build(name, **window), steps)
        assert found
        assert all(window["start"] - 1 / steps < i / steps < window["stop"] for i in found)


@pytest.mark.parametrize("name", WINDOWED)
@pytest.mark.parametrize("steps", [20, 21, 28, 50])
def test_windows_mean_what_they_did_when_steps_are_many(name, steps):
    for window in WINDOWS:
        start, stop, every = window.values()
        before = [i for i in range(steps) if start * steps <= i < stop * steps and i % every == 0]
        assert not before or acts(build(name, **window), steps) == before


@pytest.mark.parametrize(("steps", "expected"), [(1, [0]), (2, [0]), (4, [0, 1, 2])])
def test_last_step_is_left_out_when_nothing_could_repair_it(steps, expected):
    assert acts(SPARKE(), steps) == expected
    assert acts(build("spell"), steps) == list(range(steps))


def test_last_step_is_left_out_only_below_20_and_where_the_window_has_others():
    assert acts(SPARKE(), FEW - 1) == list(range(FEW - 2))
    assert acts(SPARKE(), FEW) == list(range(FEW))
    assert acts(SPARKE(start=0.75), 4) == [3]


@pytest.mark.parametrize("name", ["sparke", "vendi", "particle"])
def test_last_prediction_is_the_models_own_when_guided_in_few_steps(name):
    strength = {"particle": 1.0}.get(name, 0.1)
    assert sample(build(name, strength=strength), **scene()).active_steps() == list(
        range(STEPS - 1)
    )


@pytest.mark.parametrize(
    ("name", "steps", "expected"),
    [
        ("dave", 1, [0]),
        ("dave", 4, [0]),
        ("dave", 8, [0, 1]),
        ("dave", 20, [0, 1, 2]),
        ("contextual", 4, [0]),
        ("contextual", 8, [0, 1]),
        ("contextual", 20, [0, 1, 2, 3]),
        ("firststep", 1, [0]),
        ("firststep", 8, [0]),
        ("firststep", 20, [0, 1]),
        ("seedvariance", 4, [0]),
        ("seedvariance", 20, [0, 1, 2, 3]),
    ],
)
def test_early_methods_act_at_the_first_steps_by_default(name, steps, expected):
    assert acts(build(name), steps) == expected


def whole(steps: int) -> list[float]:
    """γ of each step, read from an embedding of mean 0 and a noise of scale 0."""
    y, found = torch.tensor([[-1.0, 1.0]]), []
    for step in range(steps):
        context = Context(
            step=step,
            steps=steps,
            level=Level(0.6, 0.8, 0.8, 0.6),
            x_t=torch.zeros(1, 1),
            groups=torch.zeros(1),
            generators=[torch.Generator()],
        )
        changed = CADS(mixing=0.0, noise_scale=1e-12).condition(y, context)
        found.append(1.0 if changed is None else float(changed[0, 1]) ** 2)
    return found


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        # tau_1 is 0.6 and tau_2 0.9: 0 for a tenth of the schedule, then a ramp of three
        (1, [0.75]),
        (2, [(0.3 * (0 + 1) / 2 + 0.1) / 0.5, 1]),
        (4, [0.15 * 0.25 / 0.25, (0.15 * 0.75 + 0.1) / 0.25, 1, 1]),
        (20, [0, 0, 0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6] + [1] * 12),
    ],
)
def test_cads_anneals_by_the_mean_of_its_ramp_when_steps_are_few(steps, expected):
    assert whole(steps) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8])
def test_cads_leaves_the_prompt_whole_in_the_end_when_steps_are_few(steps):
    assert whole(steps)[0] > 0
    assert steps == 1 or whole(steps)[-1] == 1


def test_auto_pushes_at_the_first_step_and_never_at_the_last_when_steps_are_few():
    setting, levels = scene(), [(0.07, 0.997), (0.4, 0.9), (0.7, 0.7), (0.9, 0.4), (1.0, 0.0)]
    x0 = setting["noise"]
    pushed = []
    for step in range(4):
        context = Context(
            step=step,
            steps=4,
            level=Level(*levels[step], *levels[step + 1]),
            x_t=x0,
            groups=setting["groups"],
            prompts=setting["prompts"],
        )
        pushed.append(Auto().x0_delta(x0, context) is not None)
    assert pushed == [True, False, False, False]
