import inspect

import pytest
from diffusers import StableDiffusionXLPipeline  # pyright: ignore[reportPrivateImportUsage]

from unalike.runs.columns import NAMES, column, misfit, value_of

CALL = inspect.signature(StableDiffusionXLPipeline.__call__).parameters


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("original_size", (64, 64), True),
        ("original_size", 64, False),
        ("prompt_2", "cat", True),
        ("prompt_2", 3, False),
        ("eta", 1, True),
        ("eta", True, False),
        ("clip_skip", 2, True),
        ("clip_skip", 2.5, False),
        ("cross_attention_kwargs", "x", False),
    ],
)
def test_value_fits_only_when_the_annotation_says_so(name, value, fits):
    assert (misfit(name, value, CALL[name]) is None) is fits


def test_any_value_fits_when_there_is_no_annotation():
    (parameter,) = inspect.signature(lambda eta: eta).parameters.values()
    assert misfit("eta", "x", parameter) is None


def test_every_name_is_known_when_it_has_other_case():
    for name, aliases in NAMES.items():
        assert {column(alias.upper()).name for alias in aliases} == {name}
        assert not any(column(alias).fault for alias in aliases)


@pytest.mark.parametrize("value", ["", " \t", None])
def test_empty_cell_is_not_given(value):
    assert value_of("n", value, typed=False) is None
    assert value_of("negative_prompt", value, typed=True) is None
