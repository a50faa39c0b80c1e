"""Models by name, as `from unalike.pipelines import get_diffusion_pipeline` gives them."""

import diffusers
import pytest
import torch

from unalike.errors import OptionError
from unalike.pipelines import get_diffusion_pipeline


@pytest.mark.parametrize(("name", "kind"), [("digits", diffusers.DiTPipeline), ("emoji", diffusers.StableDiffusionPipeline)])
def test_pipeline_has_the_class_of_the_model_when_it_is_named(name, kind):
    assert type(get_diffusion_pipeline(name)) is kind


def test_options_reach_the_loader_when_given():
    assert get_diffusion_pipeline("digits", dtype=torch.float16).transformer.dtype == torch.float16


@pytest.mark.parametrize("name", ["sdxl", "owner/name", ".", 3])
def test_message_lists_the_models_when_the_name_is_unknown(name):
    with pytest.raises(OptionError, match=r"unknown model .*Allowed: emoji, digits; for a folder"):
        get_diffusion_pipeline(name)


def test_closest_name_is_suggested_when_it_is_nearly_right():
    with pytest.raises(OptionError, match="did you mean 'digits'"):
        get_diffusion_pipeline("digit")
