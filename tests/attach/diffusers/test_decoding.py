from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.attach.conftest import prompted, seeded

from unalike.attach.diffusers.decoding import Decoder, as_returned
from unalike.attach.diffusers.vae import encode_images, normalised
from unalike.errors import UnsupportedError

# some schedulers hand tensors to numpy in the way of numpy 1
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")

Pipelines = Callable[[str], Any]


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux"])
@pytest.mark.parametrize("size", [(16, 16), (16, 32)])
def test_images_are_those_that_the_pipeline_returns_when_its_latents_are_decoded(
    pipelines: Pipelines, name: str, size: tuple[int, int]
) -> None:
    pipe = pipelines(name)
    arguments = {**prompted(name, ["cat"], 2), "height": size[0], "width": size[1]}
    latents = pipe(**arguments, generator=seeded(2))[0]
    images = torch.from_numpy(
        pipe(**{**arguments, "output_type": "np"}, generator=seeded(2))[0]
    ).permute(0, 3, 1, 2)
    decoder = Decoder(pipe, size)
    with torch.no_grad(), decoder.open():
        torch.testing.assert_close(decoder.images(latents), images, atol=1e-6, rtol=0)
    assert images.shape == (2, 3, *size)


def test_images_are_those_that_the_pipeline_returns_when_latents_are_the_image(
    pixel_pipe: Any,
) -> None:
    images = torch.from_numpy(
        pixel_pipe(batch_size=2, num_inference_steps=3, output_type="np", generator=seeded(2))[0]
    )
    decoder = Decoder(pixel_pipe)
    with decoder.open():
        torch.testing.assert_close(
            decoder.images(images.permute(0, 3, 1, 2) * 2 - 1),
            images.permute(0, 3, 1, 2),
            atol=1e-6,
            rtol=0,
        )
        assert decoder.images(torch.zeros(1, 1, 4, 4)).shape == (1, 3, 4, 4)
        with pytest.raises(UnsupportedError, match=r"images of shape \(4, 8, 8\)"):
            decoder.images(torch.zeros(1, 4, 8, 8))


def test_autoencoder_is_as_it_was_when_decoding_ends(pipelines: Pipelines) -> None:
    pipe = pipelines("sdxl")
    latents, wide = torch.randn(1, 4, 8, 8, generator=seeded(1)[0]), Decoder(pipe)
    with torch.no_grad(), wide.open():
        assert pipe.vae.is_gradient_checkpointing
        images = wide.images(latents)
    assert not pipe.vae.is_gradient_checkpointing
    weights = {k: v.clone() for k, v in pipe.vae.state_dict().items()}
    try:
        pipe.vae.half()
        halves = {k: v.clone() for k, v in pipe.vae.state_dict().items()}
        with (
            torch.no_grad(),
            wide.open(),
        ):  # which overflows in half precision, so that the pipeline itself decodes it in full
            assert pipe.vae.dtype == torch.float32
            torch.testing.assert_close(wide.images(latents.half()), images, atol=5e-3, rtol=0)
        assert all(
            torch.equal(v, halves[k]) and v.dtype == torch.float16
            for k, v in pipe.vae.state_dict().items()
        )
    finally:
        pipe.vae.float().load_state_dict(weights)


def test_gradient_is_the_same_when_checkpoints_save_memory(sd: Any) -> None:
    latents, decoder = (
        torch.randn(1, 4, 8, 8, generator=seeded(1)[0], requires_grad=True),
        Decoder(sd),
    )
    (plain,) = torch.autograd.grad(decoder.images(latents).square().sum(), latents)
    with decoder.open():
        (thrifty,) = torch.autograd.grad(decoder.images(latents).square().sum(), latents)
    torch.testing.assert_close(plain, thrifty)
    assert plain.abs().max() > 0


def test_statistics_of_latents_are_put_back_when_the_autoencoder_has_them(sd: Any) -> None:
    latents, config = torch.randn(1, 4, 8, 8, generator=seeded(1)[0]), sd.vae.config
    sd.vae.register_to_config(latents_mean=[0.1, 0.2, 0.3, 0.4], latents_std=[1.0, 2.0, 3.0, 4.0])
    try:
        with torch.no_grad():
            own = sd.vae.encode(torch.rand(1, 3, 16, 16, generator=seeded(1)[0])).latent_dist.mode()
            images = Decoder(sd).images(normalised(sd.vae, own))
            torch.testing.assert_close(
                images, (sd.vae.decode(own).sample / 2 + 0.5).clamp(0, 1), atol=1e-5, rtol=0
            )
            assert not torch.allclose(normalised(sd.vae, latents), latents * config.scaling_factor)
    finally:
        sd.vae.register_to_config(latents_mean=None, latents_std=None)


def test_latents_are_refused_when_they_do_not_fit_the_size(pipelines: Pipelines) -> None:
    pipe = pipelines("flux")
    latents = encode_images(pipe, torch.rand(1, 3, 16, 32, generator=seeded(1)[0]))
    with pytest.raises(
        UnsupportedError, match="makes 32 tokens an image, which are not those of 16×16 pixels"
    ):
        Decoder(pipe, (16, 16)).images(latents)


def test_pipeline_is_refused_when_it_decodes_or_packs_in_its_own_way(sd: Any) -> None:
    class Other:
        vae = sd.vae

        def _pack_latents(self, latents: torch.Tensor) -> torch.Tensor:
            return latents

    class Quantised:
        def __init__(self) -> None:
            self.components = {"vqgan": sd.vae}

    with pytest.raises(UnsupportedError, match="Other unpacks its latents in a way"):
        Decoder(Other())
    with pytest.raises(UnsupportedError, match="the latents of Quantised are decoded in a way"):
        Decoder(Quantised())


def test_values_are_those_of_files_when_rounded() -> None:
    levels = torch.arange(256) / 255
    assert torch.equal(as_returned(levels), levels)
    assert torch.equal(as_returned(levels + 0.49 / 255)[:-1], levels[:-1])
