import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.visualcloze.visualcloze_utils import VisualClozeProcessor
from PIL import Image
from tests.attach.conftest import prompted, seeded

from unalike.attach import encode_images, guide, shield_from_images
from unalike.errors import OptionError, UnsupportedError
from unalike.memory import Memory
from unalike.runs.shield.sources import Source, find_sources

Pipelines = Callable[[str], Any]


def pictures(count: int, side: int = 16) -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return [Image.fromarray(p) for p in pixels]


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "dit", "flux"])
def test_latents_are_those_of_the_pipelines_own_space_when_encoded(
    pipelines: Pipelines, name: str
) -> None:
    pipe, memory = pipelines(name), Memory()
    guided = guide(pipe, memory=memory)
    guided(**prompted(name, ["cat"], 1), generator=seeded(1))
    latents = encode_images(pipe, pictures(10))
    assert guided.report is not None
    shield = shield_from_images(pipe, pictures(10), 1.0)
    assert guided.report.space.startswith(shield.space + " ")
    assert torch.equal(torch.from_numpy(next(iter(shield.vectors.blocks()))[1]), latents.flatten(1))
    assert torch.equal(latents[:3], encode_images(pipe, pictures(3)))


def test_images_are_encoded_when_the_pipelines_processor_takes_them_with_prompts_alone(
    pipelines: Pipelines,
) -> None:
    pipe, images = copy.copy(pipelines("flux")), pictures(2)
    pipe.image_processor = VisualClozeProcessor(vae_scale_factor=2)
    assert torch.equal(encode_images(pipe, images), encode_images(pipelines("flux"), images))


@pytest.mark.parametrize("name", ["sd", "sd3", "flux"])
def test_decoding_gives_the_autoencoders_own_picture_when_latents_go_back(
    pipelines: Pipelines, name: str
) -> None:
    pipe, images = pipelines(name), torch.rand(2, 3, 16, 16, generator=seeded(1)[0])
    latents = encode_images(pipe, images)
    if name == "flux":
        latents = pipe._unpack_latents(latents, 16, 16, pipe.vae_scale_factor)
    config = pipe.vae.config
    with torch.no_grad():
        own = pipe.vae.decode(pipe.vae.encode(images * 2 - 1).latent_dist.mode()).sample
        back = pipe.vae.decode(
            latents / config.scaling_factor + (config.shift_factor or 0.0)
        ).sample
    torch.testing.assert_close(back, own, atol=1e-4, rtol=1e-4)


def test_images_are_resized_when_a_size_is_given(sd: Any) -> None:
    mixed = [*pictures(1, 16), *pictures(1, 24)]
    assert encode_images(sd, mixed, size=(16, 32)).shape == (2, 4, 8, 16)
    with pytest.raises(OptionError, match="2 different sizes"):
        encode_images(sd, mixed)
    with pytest.raises(OptionError, match="images is empty"):
        encode_images(sd, [])


@pytest.mark.parametrize("name", ["transparent", "16 bits", "turned"])
def test_command_and_function_protect_the_same_when_an_image_takes_reading(
    sd: Any, tmp_path: Path, name: str
) -> None:
    drawing = pictures(1, 16)[0]
    turned = Image.Exif()
    turned[0x0112] = 6
    clear = drawing.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize((16, 16)))
    deep = (np.array(drawing.convert("L"), dtype=np.uint16) << 8) + 17
    image, options = {
        "transparent": (clear, {}),
        "16 bits": (Image.fromarray(deep), {}),
        "turned": (drawing, {"exif": turned}),
    }[name]
    image.save(tmp_path / "a.png", **options)
    (source,) = find_sources([str(tmp_path / "a.png")])
    assert isinstance(source, Source)
    (read,) = source.read({(tmp_path / "a.png").as_posix()})
    expected = encode_images(sd, [read.image])
    assert not torch.equal(expected, encode_images(sd, [image.convert("RGB")])) or name == "turned"
    with Image.open(tmp_path / "a.png") as opened:
        assert torch.equal(encode_images(sd, [opened]), expected)
        shield = shield_from_images(sd, [opened], radius=1.0)
    assert torch.equal(encode_images(sd, [tmp_path / "a.png"]), expected)
    assert shield.nearest(expected)[1].item() == 0


def test_pipeline_is_refused_when_it_has_no_autoencoder() -> None:
    with pytest.raises(UnsupportedError, match="object has no vae"):
        encode_images(object(), pictures(1))


def test_pipeline_is_refused_when_it_packs_in_its_own_way(sd: Any) -> None:
    class Other:
        vae, image_processor = sd.vae, sd.image_processor

        def _pack_latents(self, latents: torch.Tensor) -> torch.Tensor:
            return latents

    with pytest.raises(UnsupportedError, match="Other packs its latents"):
        encode_images(Other(), pictures(1))
