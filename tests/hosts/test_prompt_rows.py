"""Which rows of a denoiser's batch carry the prompts, in pipelines with other blocks than two."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from diffusers import (
    DDPMScheduler,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPipeline,
    StableDiffusionUpscalePipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    StableDiffusionXLPAGPipeline,
)
from tests import tiny
from tests.attach.conftest import seeded
from torch import Tensor

from unalike import CADS, SPARKE, IntervalGuidance
from unalike.attach import guide
from unalike.errors import UnsupportedError
from unalike.guidance.context import Context
from unalike.guidance.method import Method

NEVER = IntervalGuidance(sigma_low=1e-9, sigma_high=1e-8)


@dataclass(frozen=True, kw_only=True)
class Sevens(Method):
    """Replaces all embeddings of prompts by sevens, and keeps how many images it is given."""

    name: ClassVar[str] = "sevens"
    images: list[int]
    replace: bool = True

    def condition(self, embeddings: Tensor, context: Context) -> Tensor | None:
        self.images.append(len(embeddings))
        return torch.full_like(embeddings, 7.0) if self.replace else None


@contextmanager
def inputs(module: torch.nn.Module) -> Iterator[list[Tensor]]:
    """The embeddings that a denoiser is given, call by call."""
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    try:
        yield seen
    finally:
        handle.remove()


def treated(pipe: Any, arguments: dict[str, Any]) -> list[list[bool]]:
    """Which rows of each evaluation were replaced: all of one, or none of it."""
    module = getattr(pipe, "unet", None) or pipe.transformer
    counted: list[int] = []
    images = len(arguments["generator"])
    with inputs(module) as seen:
        guide(pipe, Sevens(images=counted))(**arguments)
    assert set(counted) == {images}
    rows = [(call == 7).flatten(1) for call in seen]
    assert all(torch.equal(row.any(1), row.all(1)) for row in rows)
    return [row.all(1).tolist() for row in rows]


def call(prompts: list[str], each: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "prompt": prompts,
        "num_images_per_prompt": each,
        "num_inference_steps": 2,
        "generator": seeded(len(prompts) * each),
        "output_type": "latent",
        **more,
    }


SQUARE = {"height": 16, "width": 16}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Tiny pipelines by name, each built once."""
    folder, made = tmp_path_factory.mktemp("rows"), {}

    def pipeline(name: str) -> Any:
        if name not in made:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                made[name] = PIPELINES[name](folder)
            made[name].set_progress_bar_config(disable=True)
        return made[name]

    return pipeline


def with_unet(parts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Components with a U-Net of another configuration."""
    kind = type(parts["unet"])
    return {**parts, "unet": kind.from_config({**parts["unet"].config, **changes})}


def upscaler(folder: Path) -> Any:
    parts = with_unet(tiny.sd(folder).components, in_channels=7, num_class_embeds=1000)
    del parts["image_encoder"]
    parts["vae"] = tiny.vae(scaling_factor=0.08333)
    return StableDiffusionUpscalePipeline(
        **parts, low_res_scheduler=DDPMScheduler(), max_noise_level=350
    )


def edits(folder: Path, kind: Any, base: Any) -> Any:
    accepted = inspect.signature(kind).parameters
    parts = with_unet(base(folder).components, in_channels=8) | {"requires_safety_checker": False}
    return kind(**{name: part for name, part in parts.items() if name in accepted})


PIPELINES: dict[str, Callable[[Path], Any]] = {
    "sd": tiny.sd,
    "sd3": tiny.sd3,
    "flux": tiny.flux,
    "pag": lambda folder: StableDiffusionPAGPipeline(
        **tiny.sd(folder).components, pag_applied_layers="mid", requires_safety_checker=False
    ),
    "pag-sdxl": lambda folder: StableDiffusionXLPAGPipeline(
        **tiny.sdxl(folder).components, pag_applied_layers="mid"
    ),
    "edit": lambda folder: edits(folder, StableDiffusionInstructPix2PixPipeline, tiny.sd),
    "edit-sdxl": lambda folder: edits(folder, StableDiffusionXLInstructPix2PixPipeline, tiny.sdxl),
    "upscaler": upscaler,
}
IMAGE = {"image": torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(5))}
PAG = ("pag", "pag-sdxl")
EDITS = ("edit", "edit-sdxl")


def arguments(name: str, prompts: list[str], each: int = 1, **more: Any) -> dict[str, Any]:
    if name == "upscaler":
        own = {
            "image": IMAGE["image"][..., :8, :8].expand(len(prompts), -1, -1, -1),
            "noise_level": 20,
        }
    elif name in EDITS:
        own = {"image": IMAGE["image"].expand(len(prompts) * each, -1, -1, -1)}
    else:
        own = {**SQUARE}
    return call(prompts, each, **own, **more)


@pytest.mark.parametrize("name", PAG)
def test_both_blocks_are_treated_when_attention_is_perturbed_without_guidance(
    build: Any, name: str
) -> None:
    asked = arguments(name, ["cat", "dog"], 2, guidance_scale=0.0, pag_scale=3.0)
    assert treated(build(name), asked) == [[True] * 8] * 2


@pytest.mark.parametrize("name", PAG)
@pytest.mark.parametrize("negative", ["owl", "cat", ""])
def test_both_blocks_are_treated_when_attention_is_perturbed_with_guidance(
    build: Any, name: str, negative: str
) -> None:
    asked = arguments(
        name, ["cat"], 2, guidance_scale=3.0, pag_scale=3.0, negative_prompt=[negative]
    )
    assert treated(build(name), asked) == [[False] * 2 + [True] * 4] * 2


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("negative", [["owl", "owl"], ["dog", "cat"]])
def test_first_block_is_treated_when_images_are_edited(
    build: Any, name: str, negative: list[str]
) -> None:
    asked = arguments(name, ["cat", "dog"], 1, guidance_scale=3.0, negative_prompt=negative)
    assert treated(build(name), asked) == [[True] * 2 + [False] * 4] * 2


@pytest.mark.parametrize("name", EDITS)
def test_first_block_is_treated_when_several_images_of_a_prompt_are_edited(
    build: Any, name: str
) -> None:
    asked = arguments(name, ["cat"], 2, guidance_scale=3.0, negative_prompt=["owl"])
    assert treated(build(name), asked) == [[True] * 2 + [False] * 4] * 2


@pytest.mark.parametrize("name", [*PAG, "edit-sdxl"])
def test_words_are_found_when_the_batch_has_other_blocks_than_two(build: Any, name: str) -> None:
    pipe, method = build(name), SPARKE(strength=0.2, region=["cat"])
    asked = arguments(name, ["a cat", "cat"], guidance_scale=3.0)
    guided = guide(pipe, method)
    guided(**asked)
    assert guided.report is not None
    assert len(guided.report.images) == 2


@pytest.mark.parametrize("name", EDITS)
def test_call_is_refused_before_the_model_when_blocks_cannot_be_told_apart(
    build: Any, name: str
) -> None:
    pipe, calls = build(name), []
    handle = pipe.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        with pytest.raises(UnsupportedError, match="negative prompt equals the prompt"):
            guide(pipe, CADS())(
                **arguments(name, ["cat"], guidance_scale=3.0, negative_prompt=["cat"])
            )
    finally:
        handle.remove()
    assert not calls


def test_prompts_are_treated_when_class_labels_are_a_level_of_noise(build: Any) -> None:
    asked = arguments("upscaler", ["cat", "dog"], guidance_scale=3.0)
    assert treated(build("upscaler"), asked) == [[False] * 2 + [True] * 2] * 2


@pytest.mark.parametrize(
    ("prompts", "negative"),
    [
        (["cat"], ["cat"]),
        ([""], None),
        (["cat", "dog"], ["dog", "cat"]),
        (["cat", "dog"], ["cat", "dog"]),
        (["cat", "dog"], ["cat", "owl"]),
        (["cat", "cat"], ["", "cat"]),
    ],
)
@pytest.mark.parametrize("name", ["sd", "sd3"])
def test_only_the_last_block_is_treated_whatever_the_negative_prompts_are(
    build: Any, name: str, prompts: list[str], negative: list[str] | None
) -> None:
    asked = arguments(name, prompts, guidance_scale=3.0, negative_prompt=negative)
    count = len(prompts)
    assert treated(build(name), asked) == [[False] * count + [True] * count] * 2


@pytest.mark.parametrize("negative", ["owl", "cat"])
def test_only_the_prompts_call_is_treated_when_negative_prompts_have_one_of_their_own(
    build: Any, negative: str
) -> None:
    asked = arguments("flux", ["cat"], 2, true_cfg_scale=3.0, negative_prompt=[negative])
    asked["max_sequence_length"] = 12
    assert treated(build("flux"), asked) == [[True] * 2, [False] * 2] * 2


@pytest.mark.parametrize("name", [*PAG, *EDITS, "upscaler"])
def test_images_are_bit_identical_when_prompts_are_left_alone(build: Any, name: str) -> None:
    pipe, counted = build(name), []
    method = Sevens(images=counted, replace=False)
    asked = arguments(name, ["cat", "dog"], guidance_scale=3.0)
    plain = pipe(**asked)[0]
    asked["generator"] = seeded(2)
    assert torch.equal(guide(pipe, method, SPARKE(strength=0.0))(**asked)[0], plain)
    assert set(counted) == {2}


@pytest.mark.parametrize("name", ["pag", "edit", "upscaler"])
def test_images_are_those_of_a_scale_of_1_when_guidance_is_left_out(build: Any, name: str) -> None:
    pipe = build(name)
    off: dict[str, Any] = {"guidance_scale": 1.0} | ({"pag_scale": 3.0} if name == "pag" else {})
    on: dict[str, Any] = {**off, "guidance_scale": 3.0}
    if name == "edit":  # without guidance there is no block to leave out
        off, on = {"guidance_scale": 1.0 + 1e-9, "image_guidance_scale": 1.0}, on
    without = pipe(**arguments(name, ["cat", "dog"], **off))[0]
    left_out = guide(pipe, NEVER)(**arguments(name, ["cat", "dog"], **on))[0]
    torch.testing.assert_close(left_out, without, rtol=1e-4, atol=1e-4)


def test_embedding_is_that_of_the_prompt_when_the_negative_prompt_is_encoded_last(
    build: Any,
) -> None:
    seen: list[Tensor] = []

    @dataclass(frozen=True, kw_only=True)
    class Looks(Method):
        name: ClassVar[str] = "looks"

        def x0_delta(self, x0: Tensor, context: Context) -> None:
            assert context.prompts is not None
            seen.append(context.prompts)

    for name, kind in (
        ("edit", StableDiffusionInstructPix2PixPipeline),
        ("sd", StableDiffusionPipeline),
    ):
        pipe = build(name)
        assert type(pipe) is kind
        guide(pipe, Looks())(
            **arguments(name, ["cat", "dog"], guidance_scale=3.0, negative_prompt=["owl", "owl"])
        )
    torch.testing.assert_close(seen[0], seen[-1])
