"""Guided calls with a memory in a file that others write to."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tests.attach.conftest import prompted, seeded
from torch import Tensor

from unalike.attach import choose, guide, guide_denoiser
from unalike.guidance.context import Context
from unalike.guidance.method import Method
from unalike.guidance.sparke import SPARKE
from unalike.memory import Memory


@dataclass(frozen=True, kw_only=True)
class Probe(Method):
    """Calls a function at each step."""

    name: ClassVar[str] = "probe"
    act: Callable[[Context], None]

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        self.act(context)
        return None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Memory.open(tmp_path / "bank", create=True).close()
    return tmp_path / "bank"


def call(pipe: Any, memory: Memory, seed: int, *methods: Method) -> Any:
    guided = guide(pipe, *methods, memory=memory)
    guided(**prompted("sd", ["cat"], 2), generator=seeded(2, seed))
    return guided


def test_images_of_another_process_are_seen_from_the_next_call_on(sd: Any, path: Path) -> None:
    own, other = Memory.open(path), Memory.open(path)
    call(sd, own, 0)
    sizes: list[int | None] = []

    def act(context: Context) -> None:
        sizes.append(None if context.memory is None else len(context.memory))
        if len(sizes) == 2:  # in the middle of the call of the other
            call(sd, own, 10)

    guided = call(sd, other, 20, Probe(act=act))
    assert sizes == [2, 2, 2, 2]
    assert guided.report.images[0].nearest.source in ("batch", "memory")
    sizes.clear()
    sizes.append(0)
    call(sd, other, 30, Probe(act=lambda context: sizes.append(len(context.memory or ()))))
    assert sizes[1:] == [6, 6, 6, 6]
    own.refresh()
    (space,) = own.spaces()
    assert own.seeds(space) == other.seeds(space) == [0, 1, 10, 11, 20, 21, 30, 31]
    for memory in (own, other):
        memory.close()


def test_images_are_those_of_a_memory_in_ram(sd: Any, path: Path) -> None:
    drawn = []
    for memory in (Memory(), Memory.open(path)):
        guided = guide(sd, SPARKE(strength=0.2), memory=memory)
        for seed in (0, 2):
            images = guided(**prompted("sd", ["cat"], 2), generator=seeded(2, seed))[0]
        drawn.append(torch.as_tensor(images))
        memory.close()
    assert torch.equal(*drawn)


def test_kept_images_are_named_when_a_call_is_marked(sd: Any, path: Path) -> None:
    with Memory.open(path) as memory:
        guided = guide(sd, memory=memory)
        with memory.marked("monday", ["a", "b", "c", "d"]):
            guided(**prompted("sd", ["cat", "dog"], 2), generator=seeded(4))
        assert memory.items("monday") == ["a", "b", "c", "d"]
        guided(**prompted("sd", ["cat"], 1), generator=seeded(1, 9))
    with Memory.open(path) as memory:
        assert memory.items("monday") == ["a", "b", "c", "d"]
        assert len(memory) == 5


def test_seeds_are_unlike_what_another_process_added(sd: Any, path: Path) -> None:
    own, other = Memory.open(path), Memory.open(path)
    call(sd, own, 0)
    assert len(other) == 0
    arguments = {**prompted("sd", ["cat"], 1), "prompt": "cat"}
    for name in ("num_images_per_prompt", "output_type"):
        arguments.pop(name)
    choose(sd, num=1, candidates=2, memory=other, **arguments)
    assert len(other) == 2
    for memory in (own, other):
        memory.close()


def test_samples_of_another_process_are_there_when_a_function_is_guided(path: Path) -> None:
    own, other = Memory.open(path), Memory.open(path)
    own.add("pixels/3x4x4 labels/0", torch.ones(1, 3, 4, 4))
    guided = guide_denoiser(
        lambda x, sigma: x, SPARKE(), sigmas=[1.0, 0.5], memory=other, space="pixels"
    )
    guided.begin()
    assert len(other) == 1
    for memory in (own, other):
        memory.close()
