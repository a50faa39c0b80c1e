"""Methods that act on prompts, with every family of pipelines."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from diffusers import ClassifierFreeGuidance
from tests.hosts.families import FAMILIES
from tests.hosts.family import WARNINGS, Family, class_labels
from torch import Tensor

from unalike.attach import guide
from unalike.guidance.cads import CADS
from unalike.guidance.context import Context
from unalike.guidance.interval import IntervalGuidance
from unalike.guidance.method import Method

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]


def families(choice: Callable[[Family], bool]) -> Any:
    return pytest.mark.parametrize(
        "family", [f for f in FAMILIES if choice(f)], ids=lambda family: family.id
    )


able = families(lambda family: family.prompt_methods)
able_with_guidance = families(lambda family: family.prompt_methods and family.guidance)
NEVER = IntervalGuidance(sigma_low=1e-9, sigma_high=1e-8)


@dataclass(frozen=True, kw_only=True)
class Told(Method):
    """Does to the prompts what a function says."""

    name: ClassVar[str] = "told"
    act: Callable[[Tensor, Context], Tensor | None]

    def condition(self, embeddings: Tensor, context: Context) -> Tensor | None:
        return self.act(embeddings, context)


@contextmanager
def given(pipe: Any) -> Iterator[list[Tensor]]:
    """What the denoisers of a pipeline are given as embeddings of prompts, call by call."""
    calls: list[Tensor] = []
    modules = [
        m
        for name in ("unet", "transformer", "transformer_2")
        if (m := getattr(pipe, name, None)) is not None
    ]

    def look(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        calls.append(kwargs["encoder_hidden_states"])

    handles = [module.register_forward_hook(look, with_kwargs=True) for module in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def without_guidance(family: Family, pipe: Any) -> Tensor:
    if not hasattr(pipe, "guider"):
        return family.call(pipe, ["cat", "dog"], 2, **family.without_guidance)
    before = pipe.guider
    pipe.update_components(guider=ClassifierFreeGuidance(guidance_scale=1.0))
    try:
        return family.call(pipe, ["cat", "dog"], 2)
    finally:
        pipe.update_components(guider=before)


@able
def test_images_change_when_prompts_are_annealed(family: Family, read: Callable[[Family], Any]):
    pipe = read(family)
    guided = guide(pipe, CADS(noise_scale=1.0))
    changed = (
        (family.call(guided, ["cat", "dog"], 2) - family.call(pipe, ["cat", "dog"], 2))
        .flatten(1)
        .norm(dim=1)
    )
    assert len(changed) == 4
    assert changed.min() > 1e-4
    assert guided.report is not None
    assert all(image.active["cads"] > 0 for image in guided.report.images)


@able
def test_images_are_bit_identical_when_prompts_are_left_alone(
    family: Family, read: Callable[[Family], Any]
):
    pipe, seen = read(family), []
    guided = guide(pipe, Told(act=lambda embeddings, context: seen.append(len(embeddings))))
    assert torch.equal(family.call(guided, ["cat", "dog"], 2), family.call(pipe, ["cat", "dog"], 2))
    assert set(seen) == {4}


@able_with_guidance
def test_images_are_those_of_a_scale_of_1_when_guidance_is_left_out(
    family: Family, read: Callable[[Family], Any]
):
    pipe = read(family)
    without = without_guidance(family, pipe)
    torch.testing.assert_close(
        family.call(guide(pipe, NEVER), ["cat", "dog"], 2), without, rtol=1e-4, atol=1e-4
    )
    assert not torch.allclose(family.call(pipe, ["cat", "dog"], 2), without, rtol=1e-3, atol=1e-3)


@families(
    lambda family: family.prompt_methods and family.guidance and family.ask is not class_labels
)
def test_only_positive_prompts_are_changed_when_one_is(
    family: Family, read: Callable[[Family], Any]
):
    pipe = read(family)
    with given(pipe) as plain:
        family.call(pipe, ["cat", "dog"], 2)
    with given(pipe) as changed:
        family.call(
            guide(pipe, Told(act=lambda embeddings, context: torch.full_like(embeddings, 7.0))),
            ["cat", "dog"],
            2,
        )
    assert len(plain) == len(changed)
    ours = theirs = 0
    for before, after in zip(plain, changed, strict=True):
        sevens = (after == 7).flatten(1).any(dim=1)
        assert torch.equal(after[~sevens], before[~sevens])
        ours, theirs = ours + int(sevens.sum()), theirs + int((~sevens).sum())
    assert ours == theirs > 0
