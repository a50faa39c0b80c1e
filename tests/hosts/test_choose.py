"""Seeds are chosen for every family where guidance that does nothing works."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from tests.hosts.families import FAMILIES
from tests.hosts.family import WARNINGS, Family, class_labels
from torch import Tensor

from unalike.attach import Candidates, choose, guide
from unalike.guidance.context import Context
from unalike.guidance.method import Method

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.id)
Read = Callable[[Family], Any]


@dataclass(frozen=True, kw_only=True)
class Predictions(Method):
    """Keeps what is predicted."""

    name: ClassVar[str] = "predictions"
    seen: list[Tensor]

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        self.seen.append(x0.clone())
        return None


def asked(family: Family, prompts: list[str]) -> dict[str, Any]:
    """The arguments that ask for one image of each prompt."""
    arguments = family.ask(prompts, 1)
    counted = {name for name in arguments if name.startswith("num_") or name == "batch_size"}
    own = {name: value for name, value in arguments.items() if name not in counted}
    return {**family.arguments, **own, "num_inference_steps": family.steps}


def predicted(family: Family, pipe: Any, batch_size: int) -> dict[int, Tensor]:
    """The first predictions of three seeds, by seed."""
    arguments = asked(family, ["cat"])
    choice = choose(pipe, num=3, candidates=3, seed=3, step=1, batch_size=batch_size, **arguments)
    assert choice.calls == 3
    return dict(zip(choice.seeds, choice.latents, strict=True))


@every_family
def test_predictions_are_those_of_the_seed_alone(family: Family, read: Read):
    pipe, seen = read(family), []
    alone, together = predicted(family, pipe, 1), predicted(family, pipe, 3)
    assert sorted(alone) == [3, 4, 5]
    for seed, latent in alone.items():
        family.call(guide(pipe, Predictions(seen=seen)), ["cat"], 1, seed=seed)
        assert torch.equal(seen[0][0].float(), latent)
        seen.clear()
    same = all(torch.allclose(together[s], alone[s], atol=2e-3, rtol=1e-3) for s in alone)
    if not same:  # then it is the pipeline's own doing
        second = family.call(pipe, ["cat"], 2, seed=3)[1]
        own = family.call(pipe, ["cat"], 1, seed=4)[0]
        assert not torch.allclose(second, own, atol=2e-3, rtol=1e-3)


@every_family
def test_images_are_bit_identical_after_a_choice(family: Family, read: Read):
    pipe = read(family)
    plain = family.call(pipe, ["cat"], 2, seed=1)
    choose(pipe, num=1, candidates=2, **asked(family, ["cat"]))
    assert torch.equal(family.call(pipe, ["cat"], 2, seed=1), plain)


@pytest.mark.parametrize(
    "family", [f for f in FAMILIES if f.prompted], ids=lambda family: family.id
)
def test_each_prompt_gets_its_seeds_when_there_are_several(family: Family, read: Read):
    pipe, prompts = read(family), ["cat", "black dog"]
    together = choose(pipe, num=2, candidates=3, step=1, **asked(family, prompts))
    assert [len(chosen.seeds) for chosen in together.prompts] == [2, 2]
    names = ["0", "1"] if family.ask is class_labels else prompts
    assert [chosen.prompt for chosen in together.prompts] == names
    assert together.calls == 6


@every_family
def test_images_are_those_of_the_reported_seeds_when_a_call_chooses(family: Family, read: Read):
    pipe = read(family)
    guided = guide(pipe, candidates=Candidates(count=2, step=1))
    drawn = family.call(guided, ["cat"], 2)
    report = guided.report
    assert report is not None
    seeds = [torch.Generator().manual_seed(image.seed or 0) for image in report.images]
    assert len({image.seed for image in report.images}) == 2
    arguments = {**family.arguments, **family.ask(["cat"], 2), "num_inference_steps": family.steps}
    plain = family.output(pipe(**arguments, generator=seeds))
    torch.testing.assert_close(drawn, plain, atol=2e-3, rtol=1e-3)
    assert report.calls == 2 * 2 + 2 * (report.steps - report.reused)
    assert report.reused == int("lists and not as batches" not in " ".join(family.limits))
