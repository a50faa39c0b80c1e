import math
from dataclasses import dataclass, fields

import pytest
import torch

from unalike.errors import OptionError
from unalike.guidance.context import Context
from unalike.guidance.level import Level
from unalike.guidance.method import Method
from unalike.guidance.noise import denoiser_step, limited
from unalike.guidance.stored import stored_rows
from unalike.options import allowed, option


@dataclass(frozen=True, kw_only=True)
class Example(Method):
    size: float | str = option("auto", "of something", above=0, choices=("auto",))
    weight: float = option(0.0, "of something else")
    count: int = option(3, "how many", low=1, high=5)
    kind: str = option("a", "which", choices=("a", "b"))
    flag: bool = option(True, "whether")


def at(x_t: torch.Tensor, alpha: float = 0.5) -> Context:
    return Context(
        step=0,
        steps=1,
        level=Level(alpha, 1, 1, 0),
        x_t=x_t,
        groups=torch.zeros(len(x_t)),
    )


@pytest.mark.parametrize(
    ("window", "steps", "inside"),
    [
        ({}, 4, [0, 1, 2, 3]),
        ({"stop": 0.5}, 4, [0, 1]),
        ({"start": 0.5}, 4, [2, 3]),
        ({"start": 0.3, "stop": 0.8}, 10, [3, 4, 5, 6, 7]),
        ({"every": 2}, 5, [0, 2, 4]),
        ({"start": 0.4, "every": 2}, 5, [2, 4]),
        ({"stop": 0.1}, 1, [0]),
    ],
)
def test_method_acts_only_when_inside_its_window_and_on_its_stride(window, steps, inside):
    assert [i for i in range(steps) if Method(**window).acts(i, steps)] == inside


@pytest.mark.parametrize(
    "settings",
    [
        {"size": 2},
        {"size": "auto"},
        {"weight": -3},
        {"weight": 1.5},
        {"count": 1},
        {"count": 5},
        {"kind": "b"},
        {"flag": False},
        {"limit": None},
        {"limit": 1},
    ],
)
def test_option_is_taken_when_allowed(settings):
    assert {name: getattr(Example(**settings), name) for name in settings} == settings


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("size", 0, "a number above 0 or 'auto'"),
        ("size", "none", "a number above 0 or 'auto'"),
        ("weight", math.nan, "a number"),
        ("weight", "1", "a number"),
        ("count", 6, "a whole number at least 1 and at most 5"),
        ("count", 2.5, "a whole number at least 1 and at most 5"),
        ("count", True, "a whole number at least 1 and at most 5"),
        ("kind", "c", "'a' or 'b'"),
        ("flag", 1, "True or False"),
        ("limit", 0, "a number above 0 and at most 1,000 or None"),
        ("every", 0, "a whole number at least 1 and at most 10,000"),
        ("start", -0.1, "a number at least 0 and at most 1"),
    ],
)
def test_error_names_the_option_and_what_is_allowed_when_refused(name, value, words):
    with pytest.raises(OptionError, match="allowed: ") as caught:
        Example(**{name: value})
    assert str(caught.value).startswith(
        f"Example: {name} is {value!r}; allowed: {words}, as in Example({name}="
    )
    assert allowed(next(f for f in fields(Example) if f.name == name)) == words


def test_error_says_what_to_define_when_a_method_does_not_correct():
    with pytest.raises(TypeError, match="define x0_delta"):
        Example().x0_delta(torch.ones(1, 1), at(torch.ones(1, 1)))


def test_denoiser_step_is_the_distance_of_the_prediction_from_the_rescaled_latent():
    x0, x_t = torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [0.5, 0.5]])
    torch.testing.assert_close(denoiser_step(x0, at(x_t)), torch.tensor([5.0, 0.0]))
    torch.testing.assert_close(
        denoiser_step(x0, at(x_t, alpha=0.0)), torch.tensor([5.0, math.sqrt(2)])
    )


def test_each_image_is_scaled_down_when_its_correction_is_over_the_limit():
    x0, delta = torch.tensor([[3.0, 4.0], [3.0, 4.0]]), torch.tensor([[0.0, 5.0], [0.0, 0.1]])
    torch.testing.assert_close(
        limited(delta, x0, at(torch.zeros(2, 2)), 0.2), torch.tensor([[0.0, 1.0], [0.0, 0.1]])
    )
    assert limited(delta, x0, at(torch.zeros(2, 2)), None) is delta


def test_stored_rows_are_the_same_tensor_when_they_fit_and_refused_when_they_do_not():
    rows = torch.ones(3, 4)
    assert stored_rows(rows, torch.zeros(2, 4), "the memory") is rows
    assert (
        stored_rows(rows, torch.zeros(2, 4, dtype=torch.float64), "the memory").dtype
        == torch.float64
    )
    with pytest.raises(
        OptionError,
        match=r"the memory holds latents of shape \(4,\) and this generation has 5 values",
    ):
        stored_rows(rows, torch.zeros(2, 5), "the memory")
