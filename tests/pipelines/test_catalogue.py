import json

import pytest
import torch
from diffusers import StableDiffusionPipeline

from unalike.errors import OptionError, StoreError
from unalike.pipelines.catalogue import MODELS
from unalike.pipelines.loading import load


def test_same_object_comes_back_when_it_is_a_pipeline(tiny_sd):
    assert load(tiny_sd) is tiny_sd


def test_options_are_refused_when_the_pipeline_is_loaded_already(tiny_sd):
    with pytest.raises(OptionError, match="dtype cannot be set"):
        load(tiny_sd, dtype=torch.float16)


def test_pipeline_has_the_saved_weights_in_float32_when_a_folder_is_given(tiny_sd, tiny_sd_folder):
    pipe = load(tiny_sd_folder)
    assert isinstance(pipe, StableDiffusionPipeline)
    for name, value in tiny_sd.unet.state_dict().items():
        assert torch.equal(pipe.unet.state_dict()[name], value)
    assert {p.dtype for m in (pipe.unet, pipe.vae, pipe.text_encoder) for p in m.parameters()} == {torch.float32}


def test_dtype_is_the_asked_one_when_given(tiny_sd_folder):
    assert load(str(tiny_sd_folder), dtype=torch.bfloat16).unet.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["emojy", "no such model", "./not/here"])
def test_message_lists_the_models_when_the_name_is_unknown(name):
    with pytest.raises(OptionError, match=r"unknown model .*Allowed: emoji"):
        load(name)


def test_closest_name_is_suggested_when_it_is_nearly_right():
    with pytest.raises(OptionError, match="did you mean 'emoji'"):
        load("emojis")


def test_message_says_what_is_missing_when_the_folder_is_no_pipeline(tmp_path):
    with pytest.raises(OptionError, match=r"no model_index\.json"):
        load(tmp_path)


def test_reason_of_the_hub_is_given_when_the_id_cannot_be_found():
    with pytest.raises(OptionError, match=r"unknown model 'nobody/nothing'.*From the hub: "):
        load("nobody/nothing", local_files_only=True)


def test_store_error_when_the_weights_are_damaged(tmp_path):
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]})
    )
    with pytest.raises(StoreError, match="cannot be loaded"):
        load(tmp_path)


def test_type_is_named_when_it_is_neither_name_nor_pipeline():
    with pytest.raises(OptionError, match="model is a int"):
        load(3)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_default_methods_can_be_built_when_taken_from_the_catalogue(model):
    from unalike.guidance.methods import build

    assert model.methods
    for name, options in model.methods.items():
        assert build(name, **options).name == name
