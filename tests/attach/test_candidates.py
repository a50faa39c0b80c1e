from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from tests.attach.conftest import prompted, seeded
from torch import Tensor

import unalike
from unalike.attach import Candidates, choose, guide
from unalike.attach.diffusers.picking import suggested
from unalike.attach.spaces import latent_model, latent_space
from unalike.errors import OptionError, ShieldError, UnsupportedError
from unalike.guidance.cads import CADS
from unalike.guidance.sparke import SPARKE
from unalike.memory import Memory
from unalike.shields import Shield

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")
NAMES = ["sd", "sdxl", "sd3", "dit", "flux"]
Pipelines = Callable[[str], Any]


def images(call: Any, arguments: dict[str, Any], generator: Any) -> Tensor:
    return torch.as_tensor(call(**arguments, generator=generator)[0])


def of_seeds(seeds: list[Any]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("name", NAMES)
def test_images_are_the_pipelines_own_of_the_reported_seeds(pipelines: Pipelines, name: str):
    pipe, arguments = pipelines(name), prompted(name, ["cat", "dog"], 2)
    guided = guide(pipe, candidates=3)
    drawn = images(guided, arguments, seeded(4))
    report = guided.report
    assert report is not None
    seeds = [image.seed for image in report.images]
    assert len(set(seeds)) == 4
    torch.testing.assert_close(
        drawn, images(pipe, arguments, of_seeds(seeds)), atol=1e-5, rtol=1e-5
    )
    assert (report.candidates, report.reused) == (3, 1)
    assert report.calls == 3 * 4 * 1 + 4 * (4 - 1)


@pytest.mark.parametrize(("count", "times"), [(2, 1.25), (4, 1.75)])
def test_candidates_cost_what_is_said_when_they_are_reused(sd: Any, count: int, times: float):
    evaluated = []
    hook = sd.unet.register_forward_hook(lambda *call: evaluated.append(len(call[2][0])))
    arguments = prompted("sd", ["cat"], 2)
    try:
        images(sd, arguments, seeded(2))
        plain, evaluated[:] = sum(evaluated), []
        guided = guide(sd, candidates=count)
        images(guided, arguments, seeded(2))
    finally:
        hook.remove()
    assert sum(evaluated) == times * plain
    assert guided.report is not None
    assert 2 * guided.report.calls == sum(evaluated)  # each with and without the prompt


def test_images_are_those_of_the_method_when_it_is_combined(sd: Any):
    arguments, methods = prompted("sd", ["cat"], 3), (SPARKE(strength=0.3),)
    guided = guide(sd, *methods, candidates=2)
    drawn = images(guided, arguments, seeded(3))
    assert guided.report is not None
    assert guided.report.reused == 1
    seeds = of_seeds([image.seed for image in guided.report.images])
    torch.testing.assert_close(drawn, images(guide(sd, *methods), arguments, seeds))


def test_first_evaluation_is_done_again_when_a_method_changes_prompts(sd: Any):
    arguments, method = prompted("sd", ["cat"], 2), CADS()
    guided = guide(sd, method, candidates=2)
    drawn = images(guided, arguments, seeded(2))
    assert guided.report is not None
    assert (guided.report.reused, guided.report.calls) == (0, 2 * 2 + 2 * 4)
    seeds = of_seeds([image.seed for image in guided.report.images])
    assert torch.equal(drawn, images(guide(sd, method), arguments, seeds))


def test_all_evaluations_of_candidates_are_reused_when_nothing_corrects_them(sd: Any):
    arguments = prompted("sd", ["cat"], 2)
    guided = guide(sd, candidates=Candidates(count=2, step=2))
    images(guided, arguments, seeded(2))
    assert guided.report is not None
    assert (guided.report.reused, guided.report.calls) == (2, 2 * 2 * 2 + 2 * 2)
    corrected = guide(sd, SPARKE(strength=0.3), candidates=Candidates(count=2, step=2))
    images(corrected, arguments, seeded(2))
    assert corrected.report is not None
    assert corrected.report.reused == 1


def test_choice_is_that_of_choose_when_generators_are_fresh(sd: Any):
    """One image: its first candidate is its own seed, and one alone is not chosen from."""
    arguments = prompted("sd", ["cat"], 1)
    guided = guide(sd, candidates=1)
    images(guided, arguments, seeded(1, 5))
    assert guided.report is not None
    assert [image.seed for image in guided.report.images] == [5]
    assert (guided.report.candidates, guided.report.calls) == (1, 4)


def test_series_goes_on_when_one_generator_draws_it(sd: Any):
    arguments, one = prompted("sd", ["cat"], 2), torch.Generator().manual_seed(3)
    guided, seen = guide(sd, candidates=2, memory=Memory()), []
    for _ in range(3):
        images(guided, arguments, one)
        assert guided.report is not None
        seen += [image.seed for image in guided.report.images]
    assert None not in seen
    assert len(set(seen)) == 6
    again = guide(sd, candidates=2)
    images(again, arguments, torch.Generator().manual_seed(3))
    assert again.report is not None
    assert [image.seed for image in again.report.images] == seen[:2]


def test_calls_differ_and_repeat_with_torchs_own_state_when_there_is_no_generator(sd: Any):
    arguments, guided = prompted("sd", ["cat"], 2), guide(sd, candidates=2)

    def seeds() -> list[int | None]:
        images(guided, arguments, None)
        assert guided.report is not None
        return [image.seed for image in guided.report.images]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = seeds(), seeds()
        torch.manual_seed(0)
        assert seeds() == first
    assert not set(first) & set(second)


def test_memory_is_stayed_away_from_when_seeds_are_chosen(sd: Any):
    """Of two candidates, one of which is remembered, the other one is chosen."""
    arguments = prompted("sd", ["cat"], 1)
    del arguments["num_images_per_prompt"]
    pool = choose(sd, num=3, candidates=3, **arguments)
    for kept in pool.seeds:
        memory = Memory()
        images(guide(sd, memory=memory), arguments, of_seeds([kept]))
        choice = choose(sd, num=2, candidates=3, step=4, memory=memory, **arguments)
        assert kept not in choice.seeds


def test_candidates_heading_into_a_shield_are_dropped(sd: Any):
    arguments = prompted("sd", ["cat"], 1)
    del arguments["num_images_per_prompt"]
    pool = choose(sd, num=4, candidates=4, step=4, **arguments)
    latents = dict(zip(pool.seeds, pool.latents, strict=True))
    space = latent_space(latent_model(sd), (4, 8, 8))
    shield = Shield(latents[2][None], space=space, radius=0.5)
    choice = choose(sd, num=3, candidates=4, step=4, shield=shield, **arguments)
    assert sorted(choice.seeds) == [0, 1, 3]
    assert choice.prompts[0].dropped == [2]
    with pytest.raises(ShieldError, match="3 of 4 candidates stay out of the protected set"):
        choose(sd, num=4, candidates=4, step=4, shield=shield, **arguments)
    guided = guide(sd, shield=shield, candidates=Candidates(count=4, step=4))
    for seed in (0, 2):  # with the seed among the candidates and without it
        images(guided, arguments, of_seeds([seed]))
        assert guided.report is not None
        assert guided.report.images[0].seed != 2


def test_images_inside_are_drawn_again_when_candidates_are_chosen(sd: Any):
    arguments = prompted("sd", ["cat"], 2)
    guided = guide(sd, candidates=2)
    final = images(guided, arguments, seeded(2))
    shield = Shield(
        final[:1], space=latent_space(latent_model(sd), (4, 8, 8)), radius=0.5, ids=["mine"]
    )
    again = guide(sd, candidates=2, shield=shield, on_violation="regenerate")
    redrawn = images(again, arguments, seeded(2))
    assert again.report is not None
    assert [image.attempts for image in again.report.images] == [2, 1]
    assert not torch.equal(redrawn[0], final[0])
    assert again.report.calls == 2 * 2 + 2 * 3 + 1 * 4  # that image alone


@pytest.mark.parametrize("quality", ["typicality", "consistency", "agreement"])
def test_quality_changes_the_choice_when_it_counts_enough(sd: Any, quality: str):
    arguments = prompted("sd", ["cat"], 1)
    del arguments["num_images_per_prompt"]
    common = {"num": 2, "candidates": 12, "step": 2, **arguments}
    plain = choose(sd, **common)
    weighted = choose(sd, quality=quality, weight=1000.0, **common)
    assert weighted.seeds != plain.seeds
    assert choose(sd, quality=quality, weight=0.0, **common).seeds == plain.seeds


def test_progress_is_told_and_an_interrupt_leaves_the_pipeline_as_it_was(sd: Any):
    arguments = prompted("sd", ["cat"], 1)
    del arguments["num_images_per_prompt"]
    before, told = images(sd, arguments, seeded(1)), []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        choose(sd, num=2, candidates=8, batch_size=2, progress=stop, **arguments)
    assert told == [(2, 8), (4, 8)]
    assert torch.equal(images(sd, arguments, seeded(1)), before)


def test_choice_is_ready_for_json_and_draws_its_seeds(sd: Any):
    import json

    arguments = prompted("sd", ["cat", "dog"], 1)
    del arguments["num_images_per_prompt"]
    choice = choose(sd, num=2, candidates=3, seed=7, **arguments)
    plain = json.loads(json.dumps(choice.to_dict()))
    assert [row["seeds"] for row in plain["prompts"]] == [choice.seeds[:2], choice.seeds[2:]]
    assert [g.initial_seed() for g in choice.generators()] == choice.seeds
    assert choice.latents.shape == (4, 4, 8, 8)
    assert str(choice).splitlines()[0] == "2 of 3 seeds by 1 of 4 evaluations"
    assert choose(sd, num=2, candidates=3, seed=7, **arguments).seeds == choice.seeds


def test_one_alone_has_no_distance_when_it_is_written(sd: Any):
    arguments = prompted("sd", ["cat"], 1)
    del arguments["num_images_per_prompt"]
    choice = choose(sd, num=1, candidates=2, **arguments)
    assert choice.to_dict()["prompts"][0]["distances"] == [None]


BAD = [
    ({"num": 9, "candidates": 8}, "candidates is 8 and num is 9; there must be at least as many"),
    ({"candidates": "many"}, "candidates is 'many'; allowed: a whole number at least 1"),
    ({"candidates": 2.5}, r"candidates is 2\.5; allowed: a whole number"),
    ({"num": 0}, "num is 0; allowed: a whole number at least 1"),
    ({"num": True}, "num is True; allowed: a whole number"),
    ({"batch_size": 0}, "batch_size is 0; allowed: a whole number at least 1"),
    ({"seed": -1}, "seed is -1; allowed: a whole number at least 0"),
    ({"seed": 2**63 - 1}, r"at most 2\*\*63 less the number of candidates, as in seed=0"),
    ({"step": 0}, "step is 0; allowed: a whole number at least 1 or 'auto', as in step=1"),
    (
        {"step": 5},
        "step is 5 and the call has 4 evaluations of the model; allowed: at most as many",
    ),
    ({"objective": "farthests"}, "objective is 'farthests'; allowed: 'farthest' or 'log-det"),
    ({"quality": "good"}, "quality is 'good'; allowed: 'typicality'"),
    ({"weight": -1.0}, r"weight is -1\.0; allowed: a number at least 0"),
    ({"quality": "consistency", "step": 1}, "which compares two evaluations, and step is 1; give"),
    ({"generator": torch.Generator()}, "generator is given; leave it out: seed= is the first"),
    ({"latents": torch.zeros(1, 4, 8, 8)}, "latents is given; leave it out: candidates differ"),
    ({"num_images_per_prompt": 4}, "num_images_per_prompt is 4; leave it out: num says how many"),
    ({"guidanse_scale": 3.0}, "guidanse_scale is no argument of StableDiffusionPipeline; did you"),
    ({"memory": "cats"}, "memory is a str; allowed: a Memory or None"),
    ({"shield": "cats"}, "shield is a str; allowed: a Shield or None"),
]


@pytest.mark.parametrize(("bad", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_bad_input_is_refused_before_the_model_is_evaluated(sd: Any, bad: Any, message: str):
    arguments = prompted("sd", ["cat"], 1)
    del arguments["num_images_per_prompt"]
    evaluated = []
    hook = sd.unet.register_forward_hook(lambda *call: evaluated.append(1))
    try:
        with pytest.raises(OptionError, match=message):
            choose(sd, **arguments, **bad)
    finally:
        hook.remove()
    assert not evaluated


def test_pipeline_is_refused_when_its_images_have_no_seeds(sd: Any):
    class Seedless(type(sd)):
        def __call__(self, prompt: str, num_inference_steps: int = 4) -> Any: ...

    pipe = Seedless(**sd.components, requires_safety_checker=False)
    for call in (lambda: choose(pipe, "cat"), lambda: guide(pipe, candidates=2)):
        with pytest.raises(UnsupportedError, match="Seedless takes no generator, so its images"):
            call()


def test_fixed_noise_and_wrong_numbers_are_refused_when_candidates_are_asked_for(sd: Any):
    arguments = prompted("sd", ["cat"], 1)
    with pytest.raises(OptionError, match="latents are given and candidates is 2"):
        guide(sd, candidates=2)(**arguments, latents=torch.zeros(1, 4, 8, 8))
    with pytest.raises(OptionError, match=r"generator has a int; allowed: a torch\.Generator"):
        guide(sd, candidates=2)(**arguments, generator=[3])
    with pytest.raises(OptionError, match="candidates is 0; allowed: a whole number at least 1"):
        guide(sd, candidates=0)
    with pytest.raises(OptionError, match="pipe is guided; give the pipeline itself"):
        choose(guide(sd), "cat")
    with pytest.raises(UnsupportedError, match="pipe is a object; allowed: a diffusers pipeline"):
        choose(object(), "cat")


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({"num_inference_steps": 4}, 4),
        ({"num_inference_steps": 1}, 2),
        ({"num_inference_steps": 20}, 1),
        ({"num_inference_steps": 20, "sigmas": [1.0, 0.7, 0.4, 0.2]}, 4),
        ({"timesteps": [900, 500]}, 3),
        ({"num_inference_steps": 4, "num_images_per_prompt": 1}, 1),
        ({"num_inference_steps": 4, "latents": torch.zeros(2, 4, 8, 8)}, 1),
        ({}, 1),
    ],
)
def test_auto_asks_for_candidates_in_few_steps_that_are_taken_once(
    tiny_sd: Any, arguments: dict[str, Any], count: int
) -> None:
    given = {"prompt": "cat", "num_images_per_prompt": 2, **arguments}
    once = [unalike.Auto(passes=1)]
    assert suggested(tiny_sd, once, given, remembering=False).count == count
    assert suggested(tiny_sd, [SPARKE()], given, remembering=False).count == 1
    again = suggested(tiny_sd, [unalike.Auto()], given, remembering=False).count
    assert again == (2 if arguments.get("num_inference_steps") == 1 else 1)
    remembers = diffusers.DPMSolverMultistepScheduler.from_config(tiny_sd.scheduler.config)
    tiny_sd.scheduler = remembers
    assert suggested(tiny_sd, [unalike.Auto()], given, remembering=False).count == count


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "4", True, 10**9, [4]])
def test_guide_names_its_argument_when_candidates_are_bad(tiny_sd: Any, wrong: Any) -> None:
    with pytest.raises(OptionError, match=r"^candidates is .*allowed: a whole number at least 1"):
        guide(tiny_sd, candidates=wrong)
