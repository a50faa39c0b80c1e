import dataclasses
import inspect
import json
from typing import Any

import diffusers
import pytest
import torch
from diffusers import StableDiffusionPipeline

from unalike.errors import OptionError, StoreError
from unalike.pipelines.catalogue import MODELS
from unalike.pipelines.loading import Source, find, load, pipeline_class, read


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
    assert {p.dtype for m in (pipe.unet, pipe.vae, pipe.text_encoder) for p in m.parameters()} == {
        torch.float32
    }


def test_dtype_is_the_asked_one_when_given(tiny_sd_folder):
    assert load(str(tiny_sd_folder), dtype=torch.bfloat16).unet.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["emojy", "no such model", "./not/here"])
def test_message_lists_the_models_when_the_name_is_unknown(name):
    with pytest.raises(OptionError, match=r"model is .*allowed: emoji"):
        load(name)


def test_closest_name_is_suggested_when_it_is_nearly_right():
    with pytest.raises(OptionError, match="did you mean 'emoji'"):
        load("emojis")


def test_message_says_what_is_missing_when_the_folder_is_no_pipeline(tmp_path):
    with pytest.raises(OptionError, match=r"no model_index\.json"):
        load(tmp_path)


def test_reason_of_the_hub_is_given_when_the_id_cannot_be_found():
    with pytest.raises(OptionError, match=r"model is 'nobody/nothing'"):
        load("nobody/nothing", local_files_only=True)


def test_store_error_when_the_weights_are_damaged(tmp_path):
    (tmp_path / "model_index.json").write_text(
        json.dumps(
            {
                "_class_name": "StableDiffusionPipeline",
                "unet": ["diffusers", "UNet2DConditionModel"],
            }
        )
    )
    with pytest.raises(StoreError, match="cannot be loaded"):
        load(tmp_path)


def test_type_is_named_when_it_is_neither_name_nor_pipeline():
    with pytest.raises(OptionError, match="model is a int"):
        load(3)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_row_fits_the_pipeline_and_the_methods_that_it_names(model):
    from unalike.guidance.methods import build

    assert model.methods
    for name, options in [*model.methods.items(), *model.published.items()]:
        assert build(name, **options).name == name
    host = getattr(diffusers, model.pipeline)
    assert set(model.call()) <= set(inspect.signature(host.__call__).parameters)
    assert model.scheduler is None or hasattr(diffusers, model.scheduler)
    assert isinstance(getattr(torch, model.dtype), torch.dtype)
    assert model.source


def test_names_are_those_of_the_papers_and_more():
    papers = (
        "sdv1.5 sdv2.1 sdxl controlnet_pose_sdv1.5 controlnet_pose_sdxl pixart-sigma kandinsky-3 "
        "playgroundv2.5 dit-xl-2"
    )
    more = (
        "sd3 sd3.5 sdxl-turbo flux-dev flux-schnell qwen-image z-image-turbo sana wan2.2 ltx ldm "
        "emoji emoji-turbo emoji-turbo-2 emoji-turbo-1 emoji-flow digits"
    )
    assert set(MODELS) == set(f"{papers} {more}".split())


def test_texts_are_repeated_when_there_are_several_prompts():
    assert MODELS["qwen-image"].call(3)["negative_prompt"] == [" "] * 3
    assert MODELS["qwen-image"].call()["negative_prompt"] == " "


def test_message_says_what_to_do_when_the_hub_does_not_give_a_named_model(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        StoreError,
        match=r"model is 'sdxl', which is 'stabilityai/.*give that: model=FOLDER",
    ):
        load("sdxl", local_files_only=True)


def test_controlnet_and_scheduler_are_those_of_the_row(tiny_sd_folder, tmp_path):
    controlnet = diffusers.ControlNetModel.from_unet(
        load(tiny_sd_folder).unet, conditioning_channels=3
    )
    controlnet.save_pretrained(tmp_path / "pose")
    row = dataclasses.replace(
        MODELS["controlnet_pose_sdv1.5"],
        controlnet=str(tmp_path / "pose"),
        scheduler="DPMSolverMultistepScheduler",
    )
    source = Source(tiny_sd_folder, row)
    pipe = read(source, pipeline_class(source), {})
    assert type(pipe) is diffusers.StableDiffusionControlNetPipeline
    assert type(pipe.scheduler) is diffusers.DPMSolverMultistepScheduler
    assert type(pipe.controlnet) is diffusers.ControlNetModel


def test_message_names_the_class_when_diffusers_has_it_not(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "WonderPipeline"}))
    with pytest.raises(StoreError, match="is a WonderPipeline, which is no pipeline of diffusers"):
        pipeline_class(find(tmp_path))


def test_flow_model_draws_the_same_once_saved_and_read_by_diffusers(tmp_path):
    pipe = load("emoji-flow")
    pipe.save_pretrained(tmp_path)
    saved: Any = diffusers.StableDiffusion3Pipeline.from_pretrained(
        tmp_path, text_encoder_3=None, tokenizer_3=None
    )
    images = []
    for own in (pipe, saved):
        own.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        images.append(
            own("red heart", num_inference_steps=2, max_sequence_length=1, generator=generator,
                output_type="pt").images
        )  # fmt: skip
    assert torch.equal(*images)


@pytest.mark.parametrize("name", ["emoji-turbo", "emoji-turbo-2", "emoji-turbo-1"])
def test_distilled_model_is_emoji_with_a_lora(name):
    pipe = load(name)
    assert pipe.get_active_adapters() == [name]
    pipe.disable_lora()
    x, t, text = torch.randn(1, 16, 8, 8), torch.tensor([999]), torch.randn(1, 24, 128)
    with torch.no_grad():
        assert torch.equal(pipe.unet(x, t, text).sample, load("emoji").unet(x, t, text).sample)


def test_shipped_model_without_its_lora_says_so(monkeypatch, tmp_path):
    from dataclasses import replace

    row = replace(MODELS["emoji-turbo"], lora="emoji/turbo/none.safetensors")
    monkeypatch.setitem(MODELS, "emoji-turbo", row)
    with pytest.raises(StoreError, match="weights of the model 'emoji-turbo' are missing"):
        load("emoji-turbo")
