"""The shipped model of digits: what it weighs, what loads it, what it draws, and that guidance
reaches it.
"""

from importlib import resources
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

import unalike
from training.digits.measure import draw, reconstructed
from unalike.models.digits import classify, load_images, nearest
from unalike.pipelines import load

FOLDER = Path(str(resources.files("unalike.models.digits"))) / "weights"
EACH = list(range(10))


@pytest.fixture(scope="module")
def pipe() -> diffusers.DiTPipeline:
    loaded = load("digits")
    loaded.set_progress_bar_config(disable=True)
    return loaded


def drawn(call, labels: list[int], seed: int = 0, batch: int = 32, scale: float = 2.0) -> Tensor:
    return draw(call, labels, seed=seed, guidance_scale=scale, steps=10, batch=batch)


def test_weights_are_small_half_precision_and_safe():
    files = [f for f in FOLDER.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 8e6
    assert {f.suffix for f in files} == {".json", ".safetensors"}


def test_diffusers_own_classes_load_it():
    pipe: Any = diffusers.DiTPipeline.from_pretrained(FOLDER)
    assert type(pipe.transformer) is diffusers.DiTTransformer2DModel
    assert type(pipe.vae) is diffusers.AutoencoderKL
    config: Any = pipe.transformer.config
    assert config.out_channels == 2 * config.in_channels  # learned variance
    assert pipe.get_label_ids(["three", "3", "zero"]) == [3, 3, 0]


def test_autoencoder_reconstructs_in_exact_grey(pipe):
    real = load_images()[::20] / 255
    images = reconstructed(pipe.vae, real)
    assert -10 * (images - real).square().mean().log10() > 45
    assert torch.equal(images[:, 0], images[:, 1])
    assert torch.equal(images[:, 0], images[:, 2])


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_samples_show_their_class(pipe, scale):
    images = drawn(pipe, EACH * 3, scale=scale)
    labels = torch.tensor(EACH * 3)
    match = nearest(images)
    assert (classify(images).argmax(1) == labels).float().mean() >= 0.8
    assert (match.shown & (match.label == labels)).float().mean() >= 0.6


def test_image_does_not_depend_on_what_is_drawn_beside_it(pipe):
    together = drawn(pipe, [3, 8, 1], batch=3)
    alone = drawn(pipe, [3, 8, 1], batch=1)
    assert (together - alone).abs().max() < 2 / 255


def test_class_tells_the_image_when_the_noise_is_the_same(pipe):
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    zero, one = pipe(
        class_labels=[0, 1], generator=generators, num_inference_steps=5, output_type="pt"
    ).images
    assert (zero - one).square().mean().sqrt() > 0.1


def test_guidance_reaches_the_image(pipe):
    plain = drawn(pipe, [3] * 4 + [7] * 4)
    guided = unalike.guide(pipe, unalike.SPARKE(strength=0.1))
    moved = drawn(guided, [3] * 4 + [7] * 4)
    assert (moved - plain).square().mean().sqrt() > 0.01
    assert guided.report is not None
    assert all(sum(image.corrections["sparke"]) > 0 for image in guided.report.images)
    assert torch.equal(
        drawn(unalike.guide(pipe, unalike.SPARKE(strength=0.0)), [3] * 4 + [7] * 4), plain
    )


def test_image_does_not_depend_on_the_batch_when_it_is_guided_away_from_a_memory(pipe, tmp_path):
    first = unalike.Memory()
    drawn(unalike.guide(pipe, memory=first), [3, 3, 8, 8])

    def guided(labels: list[int], seed: int) -> Tensor:
        first.save(tmp_path / "memory")  # a call adds its own images
        memory = unalike.Memory.open(tmp_path / "memory")
        return drawn(
            unalike.guide(pipe, unalike.SPARKE(strength=0.1, batch=False), memory=memory),
            labels,
            seed=seed,
        )

    together = guided([3, 8, 1], seed=20)
    alone = torch.cat([guided([label], seed=20 + i) for i, label in enumerate([3, 8, 1])])
    assert (together - alone).abs().max() < 2 / 255
    assert (together - drawn(pipe, [3, 8, 1], seed=20)).abs().max() > 5 / 255
