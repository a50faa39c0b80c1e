from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from unalike.errors import NumericsError
from unalike.guidance.context import Context
from unalike.guidance.level import Level
from unalike.guidance.method import Method
from unalike.guidance.run import Call, Run
from unalike.options import option

HALF = Level(alpha=0.5, sigma=0.5, next_alpha=1.0, next_sigma=0.0)


def call(x0: Tensor, step: int, x_t: Tensor | None = None) -> Call:
    return Call(x0=x0, x_t=x0 if x_t is None else x_t, level=HALF, step=step, steps=4)


@dataclass(frozen=True, kw_only=True)
class Scale(Method):
    """Adds `by` times the prediction, and counts its calls."""

    name: ClassVar[str] = "scale"
    by: float = option(1.0, "factor")

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        context.state["calls"] = context.state.get("calls", 0) + 1
        return self.by * x0 * context.state["calls"]


@dataclass(frozen=True, kw_only=True)
class Overflow(Method):
    name: ClassVar[str] = "overflow"

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        return x0 / 0


def run(*methods: Method) -> Run:
    return Run(methods, groups=torch.zeros(2, dtype=torch.int64))


def test_corrections_add_up_when_each_method_sees_what_the_one_before_left():
    x0 = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    total = run(Scale(by=1.0), Scale(by=0.5)).correct(call(x0, 0))
    torch.testing.assert_close(total, 2 * x0)  # x0, then half of 2 x0


def test_state_is_kept_from_step_to_step_and_apart_for_each_method():
    x0, guided = torch.ones(2, 2), run(Scale(), Scale(start=0.5, by=0.1))
    sizes = [guided.correct(call(x0, i)) for i in range(3)]
    torch.testing.assert_close(
        torch.stack([s[0, 0] for s in sizes if s is not None]),
        torch.tensor([1.0, 2.0, 3.0 + 0.1 * 4]),
    )


def test_traces_hold_shares_of_the_prediction_and_of_the_denoisers_step():
    x0, x_t = torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.zeros(2, 2)
    guided = run(Scale(by=0.1, stop=0.25))
    guided.correct(call(x0, 0))  # x_t / alpha is 2 x0: a step as long as the prediction
    guided.correct(call(x0, 1, x_t))
    (trace,) = guided.traces
    assert trace.method == "scale"
    torch.testing.assert_close(torch.stack(trace.of_x0), torch.tensor([[0.1, 0.1], [0.0, 0.0]]))
    torch.testing.assert_close(torch.stack(trace.of_step), torch.tensor([[0.1, 0.1], [0.0, 0.0]]))


def test_nothing_comes_back_when_no_method_acts():
    assert run(Scale(start=0.5)).correct(call(torch.ones(2, 2), 0)) is None
    assert run().correct(call(torch.ones(2, 2), 0)) is None


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_error_names_the_step_when_the_prediction_is_not_finite(bad):
    x0 = torch.ones(2, 2)
    x0[1, 0] = bad
    with pytest.raises(NumericsError, match="prediction at step 2 of 4"):
        run().correct(call(x0, 2))


def test_error_names_method_and_step_when_a_correction_is_not_finite():
    with pytest.raises(NumericsError, match="correction of overflow at step 3 of 4"):
        run(Overflow()).correct(call(torch.ones(2, 2), 3))
