import math
from dataclasses import dataclass, fields

import pytest
import torch

from unalike.errors import OptionError
from unalike.guidance.context import Context
from unalike.guidance.level import Level
from unalike.guidance.method import Method
from unalike.options import allowed, option


@dataclass(frozen=True, kw_only=True)
class Example(Method):
    size: float | str = option("auto", "of something", above=0, choices=("auto",))
    weight: float = option(0.0, "of something else")
    count: int = option(3, "how many", low=1, high=5)
    kind: str = option("a", "which", choices=("a", "b"))
    flag: bool = option(True, "whether")


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
        Example().x0_delta(
            torch.ones(1, 1), Context(0, 1, Level(0.5, 1, 1, 0), torch.ones(1, 1), torch.zeros(1))
        )
