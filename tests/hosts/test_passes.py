"""Steps are taken again for every family, where the solver allows it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from tests.hosts.families import FAMILIES
from tests.hosts.family import WARNINGS, Family
from torch import Tensor

from unalike.attach import guide
from unalike.attach.diffusers import levels
from unalike.attach.diffusers.host import Host
from unalike.guidance.context import Context
from unalike.guidance.method import Method

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]

ONCE = (
    "Stable Diffusion, image to image",  # which begin in the middle of their schedules
    "Stable Diffusion, inpainting",
    "Lumina 2",  # which ends guidance by the number of steps that was asked for
    "modular Stable Diffusion XL",
    "Stable Video Diffusion",  # which is asked by images, and has no prompts
)


@dataclass(frozen=True, kw_only=True)
class Twice(Method):
    """Takes the steps after the first twice, and keeps what it sees."""

    name: ClassVar[str] = "twice"
    seen: list[tuple[Context, Tensor]]

    def passes_for(self, steps: int) -> int:
        return 2

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        self.seen.append((context, x0.clone()))
        return None


def _rows(output: Any) -> int:
    first = output[0] if isinstance(output, tuple | list) else next(iter(output.values()))
    return len(first)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.id)
def test_each_step_but_the_first_is_taken_twice(family: Family, read: Callable[[Family], Any]):
    pipe, seen, rows = read(family), [], []
    guided = guide(pipe, Twice(seen=seen))
    hooks = [
        getattr(pipe, name).register_forward_hook(lambda *call: rows.append(_rows(call[-1])))
        for name in Host(pipe).denoisers
    ]
    drawn = family.call(guided, ["cat"], 2)
    for hook in hooks:
        hook.remove()
    assert guided.report is not None
    taken = [(context.step, context.again) for context, _ in seen]
    steps = seen[0][0].steps
    once = [(step, 0) for step in range(steps)]
    if family.name in ONCE or not levels.deterministic_first_order(pipe.scheduler, {}):
        assert taken == once
        torch.testing.assert_close(drawn, family.call(pipe, ["cat"], 2))
        return
    assert taken == once + [(step, 1) for step in range(1, steps)]
    assert guided.report.calls == 2 * len(taken)
    for (first, _), (second, _) in zip(seen[1:steps], seen[steps:], strict=True):
        assert second.level.sigma == first.level.sigma
    each = len(rows) // len(taken)
    assert rows[each : each * steps] == rows[each * steps :]  # guidance included
    noise = (seen[steps][0].x_t - seen[1][0].level.alpha * seen[steps - 1][1]) / seen[1][
        0
    ].level.sigma
    torch.testing.assert_close(noise.std().item(), 1.0, atol=0.2, rtol=0)
    assert torch.isfinite(drawn).all()
