"""`guide` on diffusers' modular pipelines, made of blocks that pass a state along."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ClassifierFreeGuidance
from diffusers.modular_pipelines import PipelineState
from tests import tiny
from tests.attach.conftest import seeded
from tests.hosts.videos import load_modular
from torch import Tensor

from unalike.attach import guide
from unalike.attach.diffusers.host import Host
from unalike.attach.spaces import latent_model, latent_space
from unalike.errors import RefusedError, UnsupportedError
from unalike.guidance.cads import CADS
from unalike.guidance.sparke import SPARKE
from unalike.guidance.spell import SPELL
from unalike.memory import Memory
from unalike.shields import Shield

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")

CALL: dict[str, Any] = {
    "height": 16,
    "width": 16,
    "num_inference_steps": 3,
    "output_type": "latent",
    "output": "images",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write("sdxl", tmp_path_factory.mktemp("modular"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Any:
    return load_modular(folder)


@pytest.fixture
def pipe(loaded: Any) -> Any:
    loaded.update_components(guider=ClassifierFreeGuidance(guidance_scale=3.0))
    return loaded


def leaves(block: Any) -> list[Any]:
    parts = list(getattr(block, "sub_blocks", {}).values())
    return [leaf for part in parts for leaf in leaves(part)] if parts else [block]


def test_images_are_those_of_the_ordinary_pipeline_when_guided_alike(
    pipe: Any, folder: Path
) -> None:
    ordinary = tiny.load(folder)
    arguments = {"prompt": ["cat", "cat", "a dog", "a dog"], **CALL}
    made, memories = [], []
    for host, more in ((pipe, {}), (ordinary, {"guidance_scale": 3.0})):
        memory = Memory()
        result = guide(host, SPARKE(strength=0.2), memory=memory)(
            **{k: v for k, v in arguments.items() if k != "output" or host is pipe},
            **more,
            generator=seeded(4),
        )
        made.append(result if host is pipe else result[0])
        memories.append(memory)
    torch.testing.assert_close(made[0], made[1], atol=1e-4, rtol=1e-4)
    (space, other), (one, two) = (list(m.spaces()) for m in memories), memories
    assert space == other
    torch.testing.assert_close(one.view(space[0]).prompts, two.view(space[0]).prompts)
    assert one.view(space[0]).latents.shape == (4, 256)


def test_image_is_as_alone_when_its_prompt_is_the_negative_one_of_another(pipe: Any) -> None:
    guided = guide(pipe, CADS(noise_scale=0.5))
    both = guided(prompt=["cat", "dog"], negative_prompt=["dog", "cat"], **CALL,
                  generator=seeded(2))  # fmt: skip
    alone = guided(prompt="dog", negative_prompt="cat", **CALL, generator=seeded(1, 1))
    torch.testing.assert_close(both[1:], alone, rtol=1e-3, atol=1e-4)


def test_prompts_come_from_the_state_when_it_is_given(pipe: Any) -> None:
    state = PipelineState()
    state.set("prompt", ["cat", "dog"])
    guided = guide(pipe)
    guided(state, **CALL, generator=seeded(2))
    assert guided.report is not None
    assert [image.prompt for image in guided.report.images] == ["cat", "dog"]
    assert [image.group for image in guided.report.images] == [0, 1]


@pytest.mark.parametrize("fails", [False, True])
def test_no_block_is_changed_when_a_call_has_ended(pipe: Any, fails: bool) -> None:
    before = [dict(vars(leaf)) for leaf in leaves(pipe._blocks)]
    guided = guide(pipe, SPARKE(strength=0.2))
    if fails:
        with pytest.raises(ValueError, match="generator"):
            guided(prompt="cat", **CALL, generator=seeded(3))
    else:
        guided(prompt="cat", **CALL, generator=seeded(1))
    assert [dict(vars(leaf)) for leaf in leaves(pipe._blocks)] == before


def test_generators_of_the_caller_are_left_alone_when_a_method_is_calibrated(pipe: Any) -> None:
    guided, generators = guide(pipe, SPELL(radius="auto")), seeded(2)
    first = guided(prompt="cat", num_images_per_prompt=2, **CALL, generator=generators)
    assert torch.equal(
        guided(prompt="cat", num_images_per_prompt=2, **CALL, generator=seeded(2)), first
    )


def test_method_is_calibrated_anew_when_the_guider_has_another_scale(pipe: Any) -> None:
    guided = guide(pipe, SPELL(radius="auto"))
    guided(prompt="cat", **CALL, generator=seeded(1))
    guided.update_components(guider=ClassifierFreeGuidance(guidance_scale=9.0))
    guided(prompt="cat", **CALL, generator=seeded(1))
    assert len(guided._calibrations) == 2


def shielded(pipe: Any, around: Tensor, **policy: Any) -> Any:
    return guide(
        pipe,
        shield=Shield(
            around, space=latent_space(latent_model(pipe), tuple(around.shape[1:])), radius=0.5
        ),
        **{"on_violation": "move", **policy},
    )


@pytest.mark.parametrize("output", ["images", None, ["images", "latents"]])
def test_image_inside_is_never_returned_when_it_is_refused(pipe: Any, output: Any) -> None:
    protected = pipe(prompt="cat", **CALL, generator=seeded(1))
    guided = shielded(pipe, protected, on_violation="refuse")
    with pytest.raises((RefusedError, UnsupportedError)) as caught:
        guided(prompt="cat", **{**CALL, "output": output}, generator=seeded(1))
    if output == "images":
        assert isinstance(caught.value, RefusedError)
        assert torch.equal(caught.value.output, torch.zeros_like(protected))


def test_image_is_drawn_again_when_it_is_inside(pipe: Any) -> None:
    protected = pipe(prompt="cat", **CALL, generator=seeded(1))
    guided = shielded(pipe, protected, on_violation="regenerate")
    images = guided(prompt="cat", num_images_per_prompt=2, **CALL, generator=seeded(2))
    assert (images[0] - protected[0]).norm() > 0.5
    assert guided.report is not None
    assert [image.attempts for image in guided.report.images] == [2, 1]


@pytest.mark.parametrize("output_type", ["latent", "pt"])
@pytest.mark.parametrize("output", ["images", None])
def test_certificate_is_of_the_pasted_latents_when_inpainting(
    pipe: Any, output_type: str, output: str | None
) -> None:
    image = torch.linspace(0, 1, 16).expand(1, 3, 16, 16).clone()
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8:] = 1
    arguments = {**CALL, "prompt": "cat", "image": image, "mask_image": mask, "strength": 1.0}
    plain = pipe(**arguments, generator=seeded(1))
    guided = shielded(pipe, plain)
    asked = {**arguments, "output_type": output_type, "output": output}
    made: Any = guided(**asked, generator=seeded(1))
    assert guided.report is not None
    certificate = guided.report.images[0].certificate
    assert certificate is not None
    assert certificate.moved
    assert guided.latents is not None
    distance = float((guided.latents - plain).double().norm())
    assert certificate.distance == pytest.approx(distance, rel=1e-6)
    assert distance >= certificate.radius
    if output_type == "latent":
        assert torch.equal(made if output else made.get("images"), guided.latents)
    if output is None:
        assert torch.equal(made.get("latents"), guided.latents)


def test_ordinary_pipelines_have_no_further_inputs(
    pipelines: Callable[[str], Any], pipe: Any
) -> None:
    assert not Host(pipelines("sd")).is_modular
    assert Host(pipe).is_modular
    assert {"prompt", "generator", "num_images_per_prompt"} < set(Host(pipe).parameters)
