"""A new method is one file, one entry in the table, and its test: everything else follows."""

import json
import runpy
from pathlib import Path

import pytest
from tests.guidance import trivial
from tests.guidance.conformance import sample, scene
from tests.guidance.test_conformance import option_cases

import unalike as package
from unalike.errors import OptionError
from unalike.guidance import methods

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _entry(monkeypatch):
    monkeypatch.setitem(methods.ENTRIES, "brighten", "tests.guidance.trivial:Brighten")


def test_method_is_a_name_of_the_package_when_it_has_an_entry():
    assert getattr(package, "Brighten") is trivial.Brighten  # noqa: B009
    assert "Brighten" in dir(package)
    assert "Brighten" in dir(package.guidance)
    namespace = {}
    exec("from unalike import *", namespace)
    assert namespace["Brighten"] is trivial.Brighten


def test_method_is_built_by_its_name_when_it_has_an_entry():
    assert list(methods.METHODS)[-1] == "brighten"
    assert methods.build("brighten", strength=2) == trivial.Brighten(strength=2)
    with pytest.raises(OptionError, match="did you mean 'brighten'"):
        methods.build("brigten")


def test_method_is_on_the_command_line_when_it_has_an_entry(unalike):
    assert "brighten  adds a constant" in unalike("methods").out
    rows = {row["name"]: row for row in json.loads(unalike("methods", "--json").out)}
    assert rows["brighten"]["options"][0]["name"] == "strength"
    assert "A Constant" in unalike("cite", "brighten").out
    refused = unalike("generate", "cat", "--method", "brighten", "--set", "brighten.strength=-1")
    assert refused.code == 2
    assert "brighten.strength" in refused.err


def test_method_is_in_the_documentation_and_for_editors_when_it_has_an_entry():
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    assert "## Brighten" in generate["options_page"]()
    assert "from tests.guidance.trivial import Brighten as Brighten" in generate["stub"]("unalike")


def test_method_is_among_the_conformance_tests_when_it_has_an_entry():
    case = option_cases()["TestOptionsOfBrighten"]()
    for name in dir(case):
        if name.startswith("test_"):
            getattr(case, name)()


def test_method_guides_when_it_has_an_entry():
    guided = sample(methods.build("brighten"), **scene())
    assert guided.active_steps() == list(range(len(guided.trajectory) - 1))
