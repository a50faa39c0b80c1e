"""The shipped model: what it weighs, what loads it, and what it draws."""

from importlib import resources
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

import unalike
from training.emoji.measure import autoencoder_psnr, draw
from unalike.models.emoji import load_images, nearest, truth

FOLDER = Path(str(resources.files("unalike.models.emoji"))) / "weights"


@pytest.fixture(scope="module")
def pipe() -> diffusers.StableDiffusionPipeline:
    loaded = unalike.load("emoji")
    loaded.set_progress_bar_config(disable=True)
    return loaded


def drawn(pipe: diffusers.StableDiffusionPipeline, prompts: list[str], batch: int = 32) -> Tensor:
    return draw(pipe, prompts, seed=0, guidance_scale=3.0, steps=15, batch=batch)


def test_weights_are_small_half_precision_and_safe() -> None:
    files = [f for f in FOLDER.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 30e6
    assert {f.suffix for f in files} == {".json", ".txt", ".safetensors"}


def test_diffusers_own_class_loads_it() -> None:
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(FOLDER)
    assert type(pipe.unet) is diffusers.UNet2DConditionModel
    assert type(pipe.vae) is diffusers.AutoencoderKL


def test_autoencoder_reconstructs(pipe: diffusers.StableDiffusionPipeline) -> None:
    assert autoencoder_psnr(pipe.vae, every=16) > 28


def test_judge_recognises_what_the_autoencoder_reconstructs(
    pipe: diffusers.StableDiffusionPipeline,
) -> None:
    chosen = torch.randperm(len(load_images()), generator=torch.Generator().manual_seed(0))[:128]
    vae: Any = pipe.vae
    with torch.no_grad():
        latents = vae.encode(load_images()[chosen] / 127.5 - 1).latent_dist.mean
        pictures = vae.decode(latents).sample / 2 + 0.5
    match = nearest(pictures.clamp(0, 1))
    assert ((match.index == chosen) & match.shown).float().mean() >= 0.97


def test_full_names_give_their_pictures(pipe: diffusers.StableDiffusionPipeline) -> None:
    names = [
        "red heart",
        "green heart",
        "red circle",
        "blue square",
        "thumbs up: dark skin tone",
        "woman running: light skin tone",
    ]
    names += ["grinning face", "pizza", "flag: Japan", "keycap: 5", "full moon", "tulip"]
    match = nearest(drawn(pipe, names))
    right = [
        bool(torch.isin(index, truth(name))) for index, name in zip(match.index, names, strict=True)
    ]
    assert sum(right) >= 10, dict(zip(names, right, strict=True))


def test_image_does_not_depend_on_what_is_drawn_beside_it(
    pipe: diffusers.StableDiffusionPipeline,
) -> None:
    together = drawn(pipe, ["heart", "cat", "flag"], batch=3)
    alone = drawn(pipe, ["heart", "cat", "flag"], batch=1)
    assert (together - alone).abs().max() < 2 / 255


def test_features_stay_a_function_when_the_extractor_is_imported() -> None:
    from unalike.extractors.table import extractor
    from unalike.models import digits, emoji

    for name, package in (("emoji", emoji), ("digits", digits)):
        extractor(name)
        assert callable(package.features)
