"""Prompts of class-conditional pipelines: which class each names, and what is said where it names
none.
"""

from types import SimpleNamespace

import pytest

from unalike.errors import OptionError
from unalike.pipelines.classes import class_ids

NAMED = SimpleNamespace(labels={"goldfish": 1, "great white shark": 2, "tench": 0})
BARE = SimpleNamespace(labels={}, transformer=SimpleNamespace(config={"num_embeds_ada_norm": 5}))


def test_class_is_found_when_the_case_differs():
    assert class_ids(NAMED, ["Tench", "GREAT white shark"]) == {"Tench": 0, "GREAT white shark": 2}


def test_number_is_the_class_when_there_is_no_such_name():
    assert class_ids(NAMED, ["2"]) == {"2": 2}
    assert class_ids(BARE, ["0", "4"]) == {"0": 0, "4": 4}


def test_name_counts_more_than_the_number_when_they_differ():
    assert class_ids(SimpleNamespace(labels={"7": 0, "x": 7}), ["7"]) == {"7": 0}


@pytest.mark.parametrize("prompt", ["goldfsh", "3", "-1", "1.5"])
def test_message_lists_the_classes_when_the_prompt_is_none(prompt):
    with pytest.raises(
        OptionError,
        match=r"allowed: a number from 0 to 2, or a name: tench, goldfish, great white shark",
    ):
        class_ids(NAMED, ["tench", prompt])


def test_closest_name_is_suggested_when_the_prompt_is_nearly_one():
    with pytest.raises(OptionError, match="did you mean 'goldfish'"):
        class_ids(NAMED, ["goldfsh"])


def test_message_gives_the_numbers_when_the_pipeline_has_no_names():
    with pytest.raises(OptionError, match=r"'cat' is no class .*allowed: a number from 0 to 4$"):
        class_ids(BARE, ["cat"])


def test_list_of_names_is_cut_when_it_is_long():
    many = SimpleNamespace(labels={f"class {i}": i for i in range(1000)})
    with pytest.raises(OptionError, match=r"class 39 and 960 more in pipe\.labels"):
        class_ids(many, ["nothing like it"])
