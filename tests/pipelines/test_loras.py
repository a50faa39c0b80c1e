"""LoRAs of tiny pipelines, written by diffusers itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from tests import tiny

from unalike.errors import OptionError, StoreError
from unalike.pipelines.loras import Lora, add_loras, split_scale


def write_lora(folder: Path, pipe, seed: int, rank: int = 2) -> Path:
    """A LoRA of the UNet with random weights that show."""
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=["to_q", "to_v"])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipe.unet.add_adapter(config)
        for name, parameter in pipe.unet.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter)
    weights: Any = get_peft_model_state_dict(pipe.unet)
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=weights)
    return folder / "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def files(tiny_sd_folder, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("loras")
    return [write_lora(folder / str(i), tiny.load(tiny_sd_folder), i) for i in range(2)]


def drawn(pipe) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    image = pipe("cat", num_inference_steps=3, generator=generator).images[0]
    return np.asarray(image, dtype=np.int16)


def with_loras(folder: Path, *loras: Lora) -> np.ndarray:
    pipe = tiny.load(folder)
    add_loras(pipe, loras)
    return drawn(pipe)


def test_images_are_bit_identical_when_the_scale_is_zero(tiny_sd_folder, tiny_sd, files):
    assert (with_loras(tiny_sd_folder, Lora(files[0], 0.0)) == drawn(tiny_sd)).all()


def test_images_are_those_of_diffusers_when_a_lora_is_loaded(tiny_sd_folder, tiny_sd, files):
    tiny_sd.load_lora_weights(files[0].parent, weight_name=files[0].name)
    expected = drawn(tiny_sd)
    assert (with_loras(tiny_sd_folder, Lora(files[0])) == expected).all()
    assert (expected != drawn(tiny.load(tiny_sd_folder))).any()


def test_several_loras_act_together_when_they_are_combined(tiny_sd_folder, tiny_sd, files):
    for i, (file, scale) in enumerate(zip(files, (0.5, -1.5), strict=True)):
        tiny_sd.load_lora_weights(file.parent, weight_name=file.name, adapter_name=str(i))
        tiny_sd.set_adapters(str(i), scale)
        tiny_sd.fuse_lora(adapter_names=[str(i)])
        tiny_sd.unload_lora_weights()
    both = with_loras(tiny_sd_folder, Lora(files[0], 0.5), Lora(files[1], -1.5))
    assert np.abs(both - drawn(tiny_sd)).max() <= 1
    assert (both != with_loras(tiny_sd_folder, Lora(files[0], 0.5))).any()


def test_earlier_adapters_stay_active_when_a_lora_is_added(tiny_sd, files):
    tiny_sd.load_lora_weights(files[0].parent, weight_name=files[0].name, adapter_name="first")
    add_loras(tiny_sd, [Lora(files[1], 0.5)])
    assert set(tiny_sd.get_active_adapters()) == {"first", "file0"}


def test_file_and_scale_are_found_when_they_are_given_in_any_way(files, tmp_path):
    assert Lora.find(f"{files[0]}:0.25") == Lora(files[0], 0.25)
    assert Lora.find(str(files[0].parent)) == Lora(files[0])
    colon = tmp_path / "style:2"
    colon.write_bytes(files[0].read_bytes())
    assert split_scale(str(colon)) == (str(colon), 1.0)


@pytest.mark.parametrize("scale", ["strong", "nan", "inf", "1e9", ""])
def test_scale_is_refused_when_it_is_no_number(scale):
    with pytest.raises(OptionError, match=r"lora is 'x.safetensors:.*FILE or FILE:SCALE"):
        split_scale(f"x.safetensors:{scale}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("style.bin", "a pickle, which may run any program"),
        ("style.ckpt", "a pickle, which may run any program"),
        ("nothing.safetensors", "there is no "),
        ("text.safetensors", "it is no safetensors file"),
        ("unet.safetensors", "no weights of a LoRA; .*model=FILE"),
        ("none", "the folder .* has no .safetensors file"),
        ("two", "the folder .* has a.safetensors, b.safetensors; give the file"),
    ],
)
def test_file_is_refused_when_it_is_no_lora(tmp_path, tiny_sd_folder, files, name, reason):
    (tmp_path / "style.bin").write_bytes(b"\x80\x04.")
    (tmp_path / "style.ckpt").write_bytes(b"\x80\x04.")
    (tmp_path / "text.safetensors").write_text("no weights at all")
    unet = tiny_sd_folder / "unet" / "diffusion_pytorch_model.safetensors"
    (tmp_path / "unet.safetensors").write_bytes(unet.read_bytes())
    for folder, inside in (("none", ()), ("two", ("b", "a"))):
        (tmp_path / folder).mkdir()
        for stem in inside:
            (tmp_path / folder / f"{stem}.safetensors").write_bytes(files[0].read_bytes())
    with pytest.raises(OptionError, match=reason):
        Lora.find(str(tmp_path / name))


@pytest.mark.parametrize("name", ["sdxl", "sd3"])
def test_lora_is_refused_when_it_is_of_another_model(tmp_path, files, name):
    pipe = tiny.load(tiny.write(name, tmp_path))
    with pytest.raises(StoreError, match=f"does not fit {type(pipe).__name__}"):
        add_loras(pipe, [Lora(files[0])])
