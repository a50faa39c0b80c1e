"""What videos and sounds have besides what every family has."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.hosts.family import WARNINGS, Family
from tests.hosts.videos import FAMILIES
from torch import Tensor

from unalike.attach import guide, shield_from_images
from unalike.attach.spaces import latent_model, latent_space
from unalike.errors import RefusedError, UnsupportedError
from unalike.guidance.cads import CADS
from unalike.guidance.interval import IntervalGuidance
from unalike.guidance.sparke import SPARKE
from unalike.memory import Memory
from unalike.shields import Shield

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]

BY_NAME = {family.name: family for family in FAMILIES}
VIDEOS = ["Wan", "LTX", "CogVideoX", "Mochi", "HunyuanVideo", "AnimateDiff"]
Known = Callable[[str], tuple[Family, Any]]


@pytest.fixture
def known(read: Callable[[Family], Any]) -> Known:
    """A family by its name, and its tiny pipeline."""
    return lambda name: (BY_NAME[name], read(BY_NAME[name]))


def frames(result: Any) -> Tensor:
    """The videos (B, F, h, w, 3) of a result of PIL images or arrays."""
    made = result[0]
    return torch.stack(
        [torch.stack([torch.as_tensor(np.array(frame)) for frame in video]) for video in made]
    )


@pytest.mark.parametrize("prompt", ["cat", {0: "cat", 5: "dog"}], ids=["one", "two"])
def test_prompts_of_frames_count_as_one_when_a_video_has_several(known: Known, prompt: Any) -> None:
    family, shared = known("AnimateDiff")
    pipe, memory = copy.deepcopy(shared), Memory()
    pipe.enable_free_noise(context_length=4, context_stride=2)
    arguments = {**family.arguments, "num_frames": 6, "num_inference_steps": 3, "prompt": prompt}
    guided = guide(pipe, SPARKE(strength=0.2), memory=memory)
    first = guided(**arguments, generator=torch.Generator().manual_seed(0))[0]
    again = guided(**arguments, generator=torch.Generator().manual_seed(0))[0]
    assert torch.equal(first, pipe(**arguments, generator=torch.Generator().manual_seed(0))[0])
    assert not torch.equal(again, first)
    assert guided.report is not None
    assert [image.prompt for image in guided.report.images] == [
        "cat" if prompt == "cat" else "cat, dog"
    ]


@pytest.mark.parametrize("output_type", ["pil", "np"])
@pytest.mark.parametrize("name", VIDEOS)
def test_refused_video_is_blank_and_the_others_are_returned_when_one_is_inside(
    known: Known, name: str, output_type: str
) -> None:
    family, pipe = known(name)
    guided = guide(pipe)
    latents = family.call(guided, ["cat"], 1)
    shield = Shield(
        latents,
        space=latent_space(latent_model(pipe), tuple(latents.shape[1:])),
        radius=1.0,
        ids=["mine"],
    )
    arguments = {
        **family.arguments,
        "output_type": output_type,
        "num_inference_steps": family.steps,
    }
    seeds = [torch.Generator().manual_seed(i) for i in (0, 1)]
    with pytest.raises(RefusedError, match="1 of 2 images are inside the protected set") as caught:
        guide(pipe, shield=shield, on_violation="refuse")(
            prompt=["cat", "cat"], **arguments, generator=seeds
        )
    refused, other = frames(caught.value.output)
    assert (refused == 0).all()
    seeds = [torch.Generator().manual_seed(i) for i in (0, 1)]
    plain = frames(pipe(prompt=["cat", "cat"], **arguments, generator=seeds))
    assert torch.equal(other, plain[1])
    assert not (plain[0] == 0).all()


def test_sound_inside_is_silent_when_it_is_refused(known: Known) -> None:
    family, pipe = known("Stable Audio")
    latents = family.call(guide(pipe), ["cat"], 1)
    shield = Shield(
        latents, space=latent_space(latent_model(pipe), tuple(latents.shape[1:])), radius=0.5
    )
    with pytest.raises(RefusedError) as caught:
        family.call(guide(pipe, shield=shield, on_violation="refuse"), ["cat"], 2, output_type="pt")
    silent, other = caught.value.output[0]
    assert not silent.any()
    assert other.any()


@pytest.mark.parametrize("name", [*VIDEOS, "Stable Audio"])
def test_shield_of_images_is_refused_when_the_pipeline_makes_none(known: Known, name: str) -> None:
    pipe = known(name)[1]
    with pytest.raises(
        UnsupportedError, match="makes videos or sounds, whose latents cannot be had from images"
    ):
        shield_from_images(pipe, torch.zeros(1, 3, 32, 32), 1.0)


@pytest.mark.parametrize("negative", ["dog", ["dog", "bird"]])
def test_prompts_are_the_positive_ones_when_the_pipeline_joins_them_with_the_negative(
    known: Known, negative: Any
) -> None:
    family, pipe = known("Stable Audio")
    memories = []
    wanted: list[dict[str, Any]] = [
        {},
        {"negative_prompt": negative if isinstance(negative, list) else [negative] * 2},
    ]
    for more in wanted:
        memories.append(Memory())
        family.call(guide(pipe, memory=memories[-1]), ["cat", "horse"], 2, **more)
    without, with_negative = (
        memory.view(next(iter(memory.spaces()))).prompts for memory in memories
    )
    assert without.shape == (4, 4)
    assert torch.allclose(without, with_negative)


def test_prompts_are_annealed_and_guidance_left_out_when_a_sound_has_a_negative_prompt(
    known: Known,
) -> None:
    family, pipe = known("Stable Audio")
    more: dict[str, Any] = {"negative_prompt": ["dog", "bird"]}
    without = family.call(pipe, ["cat", "horse"], 2, guidance_scale=1.0)
    never = guide(pipe, IntervalGuidance(sigma_low=1e-9, sigma_high=1e-8))
    torch.testing.assert_close(
        family.call(never, ["cat", "horse"], 2, **more), without, atol=1e-4, rtol=1e-4
    )
    assert not torch.allclose(
        family.call(guide(pipe, CADS()), ["cat", "horse"], 2, **more),
        family.call(pipe, ["cat", "horse"], 2, **more),
    )


def test_duration_is_left_as_it_is_when_the_prompt_is_annealed(known: Known) -> None:
    family, pipe = known("Stable Audio")
    given: list[dict[str, Tensor]] = []
    handle = pipe.transformer.register_forward_hook(
        lambda module, args, kwargs, output: given.append(kwargs), with_kwargs=True
    )
    try:
        family.call(guide(pipe, CADS()), ["cat"], 1)
    finally:
        handle.remove()
    first, last = given[0]["encoder_hidden_states"][1], given[-1]["encoder_hidden_states"][1]
    assert not torch.allclose(first[:-2], last[:-2])
    assert torch.equal(first[-2:], last[-2:])
    assert torch.equal(given[0]["global_hidden_states"], given[-1]["global_hidden_states"])


def test_both_transformers_are_given_the_annealed_prompt_when_they_take_turns(known: Known) -> None:
    family, pipe = known("Wan 2.2")
    plain, annealed = [], []
    for guided, calls in ((pipe, plain), (guide(pipe, CADS(tau_1=0.0, tau_2=1.0)), annealed)):
        handles = [
            part.register_forward_hook(
                lambda module, args, kwargs, output, name=name, calls=calls: calls.append(
                    (name, kwargs["encoder_hidden_states"])
                ),
                with_kwargs=True,
            )
            for name, part in (("first", pipe.transformer), ("second", pipe.transformer_2))
        ]
        family.call(guided, ["cat"], 1)
        for handle in handles:
            handle.remove()
    changed = [
        name
        for (name, ours), (_, theirs) in zip(annealed, plain, strict=True)
        if not torch.equal(ours, theirs)
    ]
    assert [name for name, _ in annealed[::2]] == changed
    assert set(changed) == {"first", "second"}


def test_frames_of_a_video_have_one_prompt_together_when_it_is_annealed(known: Known) -> None:
    family, pipe = known("AnimateDiff")
    given: list[Tensor] = []
    handle = pipe.unet.register_forward_hook(
        lambda module, args, kwargs, output: given.append(kwargs["encoder_hidden_states"]),
        with_kwargs=True,
    )
    try:
        family.call(guide(pipe, CADS()), ["cat", "dog"], 1)
    finally:
        handle.remove()
    rows = given[0].unflatten(0, (2, 2, 3))[1]  # those of the prompts, by video and frame
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    assert not torch.allclose(rows[0], rows[1])


def test_error_says_so_when_the_frames_of_a_video_have_several_prompts(tmp_path: Path) -> None:
    family = BY_NAME["AnimateDiff"]
    pipe: Any = family.read(tmp_path)
    pipe.enable_free_noise(context_length=2, context_stride=1)
    with pytest.raises(
        UnsupportedError,
        match="CADS: AnimateDiffPipeline gives UNetMotionModel several prompts for the frames of",
    ):
        guide(pipe, CADS())(prompt={0: "cat", 2: "dog"}, **family.arguments, num_inference_steps=2)
