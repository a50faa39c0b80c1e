import copy
from types import SimpleNamespace

import diffusers
import pytest
import torch
from tests import tiny

from unalike.attach.spaces import (
    embedding_model,
    latent_model,
    latent_space,
    memory_space,
    prompt_model,
)
from unalike.errors import UnsupportedError
from unalike.fingerprint import fingerprint


@pytest.fixture(scope="module")
def vae() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tiny.vae()


def test_fingerprint_is_the_same_when_only_the_precision_differs(vae: torch.nn.Module) -> None:
    assert (
        fingerprint(vae)
        == fingerprint(copy.deepcopy(vae).half())
        == fingerprint(copy.deepcopy(vae).bfloat16())
    )


def test_fingerprint_differs_when_weights_or_settings_do(vae: torch.nn.Module) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        other_weights = tiny.vae()
    other_scale = copy.deepcopy(vae)
    other_scale.register_to_config(scaling_factor=0.5)  # type: ignore[operator]
    assert len({fingerprint(vae), fingerprint(other_weights), fingerprint(other_scale)}) == 3


def test_fingerprint_is_refused_when_the_weights_are_elsewhere(vae: torch.nn.Module) -> None:
    with pytest.raises(UnsupportedError, match="meta device"):
        fingerprint(copy.deepcopy(vae).to("meta"))


def test_spaces_are_named_when_a_pipeline_has_no_autoencoder_or_encoder() -> None:
    pipe = SimpleNamespace(components={"unet": torch.nn.Linear(2, 2)})
    assert latent_model(pipe) == "pixels"
    assert prompt_model(pipe) == "labels"
    assert (
        memory_space(latent_space("pixels", (3, 8, 8)), "labels", None) == "pixels/3x8x8 labels/0"
    )


def test_prompt_space_is_the_encoders_when_one_is_given() -> None:
    def embed(texts: list[str]) -> torch.Tensor:
        return torch.zeros(len(texts), 2)

    assert prompt_model(SimpleNamespace(components={}), embed).endswith("embed")


def test_embedding_is_named_after_what_tells_it_from_others(vae: torch.nn.Module) -> None:
    class Extractor:
        fingerprint = "clip/CLIPModel-0123456789"

    class Called:
        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)

    def mean(images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))

    assert embedding_model(Extractor()) == "clip/CLIPModel-0123456789"
    assert embedding_model(vae) == f"AutoencoderKL-{fingerprint(vae)}"
    assert embedding_model(mean).endswith("mean")
    assert embedding_model(Called()).endswith("Called")


def test_latents_have_a_space_of_their_own_when_the_scheduler_sees_a_multiple_of_them(
    vae: torch.nn.Module,
) -> None:
    plain = SimpleNamespace(components={"vae": vae}, scheduler=diffusers.DDIMScheduler())
    halved = SimpleNamespace(
        components={"vae": vae}, scheduler=diffusers.SCMScheduler(sigma_data=0.5)
    )
    assert latent_model(halved) == f"{latent_model(plain)}-x0.5"


def test_prompts_have_a_space_of_their_own_when_the_text_encoder_is_called_otherwise(
    vae: torch.nn.Module,
) -> None:
    assert (
        prompt_model(SimpleNamespace(components={"bert": vae}, bert=vae))
        == f"text-{fingerprint(vae)}"
    )
