"""Checkpoints in one file: tiny models of diffusers' own classes in the original layout."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import tiny
from tests.checkpoints import write_checkpoint

from unalike import guide, load
from unalike.errors import OptionError, StoreError
from unalike.guidance import SPARKE
from unalike.memory import Memory
from unalike.pipelines.sources import find


@pytest.fixture(scope="module")
def checkpoint(tiny_sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pipe = tiny.load(tiny_sd_folder)
    return write_checkpoint(pipe, tmp_path_factory.mktemp("single") / "tiny.safetensors")


@pytest.fixture(scope="module")
def configuration(tiny_sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model without its weights."""
    folder = tmp_path_factory.mktemp("configuration") / "sd"
    shutil.copytree(tiny_sd_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


def drawn(call) -> np.ndarray:
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    images = call(prompt=["cat", "cat"], num_inference_steps=3, generator=generators).images
    return np.stack([np.asarray(image) for image in images])


def test_images_are_those_of_the_folder_when_the_model_is_one_file(
    checkpoint, configuration, tiny_sd
):
    pipe = load(checkpoint, config=configuration)
    assert type(pipe) is type(tiny_sd)
    assert (drawn(pipe) == drawn(tiny_sd)).all()
    guided = guide(pipe, SPARKE(strength=0.3), memory=Memory())
    assert (drawn(guided) != drawn(pipe)).any()


def test_missing_text_encoders_are_read_from_the_configuration_when_it_has_weights(tmp_path):
    folder = tiny.write("sdxl", tmp_path)
    own = tiny.load(folder)
    path = write_checkpoint(own, tmp_path / "xl.safetensors", text_encoder=False)
    pipe = load(path, config=folder)
    assert type(pipe).__name__ == "StableDiffusionXLPipeline"
    assert (drawn(pipe) == drawn(own)).all()


def test_missing_weights_are_named_when_the_configuration_has_none(
    tiny_sd, configuration, tmp_path
):
    path = write_checkpoint(tiny_sd, tmp_path / "part.safetensors", text_encoder=False)
    with pytest.raises(
        StoreError, match=r"part.safetensors' lacks weights: it has no text_encoder"
    ):
        load(path, config=configuration)


def test_hub_is_named_when_no_configuration_is_given_without_a_network(checkpoint, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert find(checkpoint).config == find("stable-diffusion-v1-5/stable-diffusion-v1-5")
    with pytest.raises(OptionError, match=r"stable-diffusion-v1-5.*model_config=FOLDER"):
        load(checkpoint)


def test_configuration_is_that_of_the_kind_when_tensors_tell_it(tmp_path):
    key = "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias"
    save_file({key: torch.zeros(2)}, tmp_path / "xl.safetensors")
    found = find(tmp_path / "xl.safetensors").config
    assert found is not None
    assert found.place == "stabilityai/stable-diffusion-xl-base-1.0"


def test_named_model_is_a_configuration_when_it_is_given(checkpoint):
    found = find(checkpoint, "emoji").config
    assert found is not None
    assert found.row is not None
    assert found.row.name == "emoji"


def refused(folder: Path) -> dict[str, tuple[Path, str]]:
    (folder / "model.ckpt").write_bytes(b"\x80\x04.")
    (folder / "empty.safetensors").touch()
    (folder / "text.safetensors").write_text("no weights at all")
    save_file({"unet.lora_A.weight": torch.zeros(2, 2)}, folder / "lora.safetensors")
    save_file({"model.diffusion_model.x": torch.zeros(64)}, folder / "cut.safetensors")
    whole = (folder / "cut.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-4])
    reasons = {
        "model.ckpt": "a pickle, which may run any program",
        "empty.safetensors": "it is no safetensors file",
        "text.safetensors": "it is no safetensors file",
        "lora.safetensors": "which is a LoRA; .*lora=FILE",
        "cut.safetensors": "it is cut off",
        "none.safetensors": "there is no such file",
    }
    return {name: (folder / name, reason) for name, reason in reasons.items()}


@pytest.mark.parametrize("name", ["model", "empty", "text", "lora", "cut", "none"])
def test_file_is_refused_before_it_is_loaded_when_it_is_no_model(tmp_path, name):
    cases = {path.split(".")[0]: case for path, case in refused(tmp_path).items()}
    path, reason = cases[name]
    with pytest.raises((OptionError, StoreError), match=reason):
        find(path)


def test_configuration_is_refused_when_the_model_is_no_file(tiny_sd_folder):
    with pytest.raises(OptionError, match=r"model_config is 'emoji', and model is .*leave it out"):
        find(tiny_sd_folder, "emoji")


@pytest.mark.parametrize("config", ["emojy", "no/such/folder", "itself"])
def test_configuration_is_refused_when_it_is_none(checkpoint, config):
    given = checkpoint if config == "itself" else config
    with pytest.raises(OptionError, match="model_config is"):
        find(checkpoint, given)


def test_file_is_refused_when_its_weights_are_of_other_sizes(checkpoint, configuration, tmp_path):
    tensors = load_file(checkpoint)
    name = "model.diffusion_model.input_blocks.0.0.weight"
    tensors[name] = torch.zeros(5, 4, 3, 3)
    save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(StoreError, match=r"the model file '.*odd.safetensors' cannot be loaded"):
        load(tmp_path / "odd.safetensors", config=configuration)
