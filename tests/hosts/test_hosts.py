from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tests.hosts.families import FAMILIES
from tests.hosts.family import WARNINGS, Family
from torch import Tensor

from unalike.attach import guide
from unalike.guidance.base import Context, Method
from unalike.guidance.sparke import SPARKE
from unalike.guidance.spell import SPELL
from unalike.memory import Memory

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.id)


@dataclass(frozen=True, kw_only=True)
class Seen(Method):
    """Calls a function at each step and returns what it returns."""

    name: ClassVar[str] = "seen"
    act: Callable[[Tensor, Context], Tensor | None]

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        return self.act(x0, context)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], Any]:
    """The tiny pipeline of a family, read from disk once."""
    folder, pipes = tmp_path_factory.mktemp("hosts"), {}

    def pipe(family: Family) -> Any:
        if family.name not in pipes:
            pipes[family.name] = family.read(Path(folder))
        return pipes[family.name]

    return pipe


@every_family
def test_images_are_bit_identical_when_nothing_is_corrected(family: Family, read: Callable[[Family], Any]):
    pipe = read(family)
    guided = guide(pipe, Seen(act=lambda x0, context: None), SPARKE(strength=0.0), memory=Memory())
    assert torch.equal(family.call(guided, ["cat"], 2), family.call(pipe, ["cat"], 2))


@every_family
def test_corrections_reach_every_image_when_guided(family: Family, read: Callable[[Family], Any]):
    pipe, memory = read(family), Memory()
    plain = family.call(pipe, ["cat"], 2)
    guided = guide(pipe, SPARKE(strength=0.2), SPELL(radius=1.0), memory=memory)
    changed = (family.call(guided, ["cat"], 2) - plain).flatten(1).abs().amax(dim=1)
    assert len(changed) == len(memory) == 2
    assert changed.min() > 1e-3


@every_family
def test_prompt_groups_are_right_when_there_are_several_prompts_with_several_images(family: Family, read: Callable[[Family], Any]):
    seen: list[Context] = []
    family.call(guide(read(family), Seen(act=lambda x0, context: seen.append(context))), ["cat", "dog"], 2)
    assert [context.step for context in seen] == list(range(len(seen)))
    for context in seen:
        assert len(context.x_t) == 4
        assert context.groups.tolist() == [0, 0, 1, 1]
        assert context.prompts is not None
        assert torch.allclose(context.prompts[0], context.prompts[1])
        assert not torch.allclose(context.prompts[1], context.prompts[2])


@every_family
def test_an_image_is_the_same_when_the_batch_is_larger(family: Family, read: Callable[[Family], Any]):
    pipe = read(family)
    push = Seen(act=lambda x0, context: 0.1 * x0)
    together, alone = (family.call(guide(pipe, push), ["cat"], n) for n in (2, 1))
    assert torch.allclose(together[:1], alone, atol=2e-3, rtol=1e-3) == family.exact_batches
    if not family.exact_batches:  # then it is the pipeline's own doing
        together, alone = (family.call(pipe, ["cat"], n) for n in (2, 1))
        assert not torch.allclose(together[:1], alone, atol=2e-3, rtol=1e-3)
