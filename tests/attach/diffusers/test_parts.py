"""Pipelines of several parts: what is not guided is reported, what cannot be is refused early."""

import copy
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tests.attach.conftest import prompted, seeded
from tests.attach.test_cascade import built
from tests.hosts.videos import wan
from torch import Tensor

from unalike import SPARKE, Auto, Memory, Shield
from unalike.attach import guide
from unalike.attach.functions import guide_denoiser
from unalike.attach.spaces import latent_model, latent_space
from unalike.errors import OptionError, UnsupportedError

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array_:DeprecationWarning", "ignore:.*deprecated:FutureWarning"
)

TextToImage: Any = diffusers.StableDiffusionPipeline
STEPS = 3


class WithSound(TextToImage):
    """Draws something else beside the images, on a copy of the scheduler, as LTX-2 its sound."""

    def __call__(self, **arguments: Any) -> Any:
        sound = torch.ones(1, 4, 2, 2)
        copied: list[Any] = []

        def step_sound(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> Any:
            nonlocal sound
            copied[:] = copied or [copy.deepcopy(pipe.scheduler)]
            sound = copied[0].step(sound * 0.1, timestep, sound, return_dict=False)[0]
            return tensors

        output = super().__call__(**arguments, callback_on_step_end=step_sound)
        return (*output.to_tuple(), sound)


class InSegments(TextToImage):
    """Draws one segment after another, and sets the schedule after each, as Wan Animate does."""

    segments = 1

    def __call__(self, **arguments: Any) -> Any:
        made = []
        for _ in range(self.segments):
            made.append(super().__call__(**arguments).images)
            self.scheduler.set_timesteps(STEPS)
        return (torch.cat([torch.as_tensor(m) for m in made]),)


def made(kind: Any, sd: Any) -> Any:
    pipe = kind(**sd.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(**more: Any) -> dict[str, Any]:
    return {**prompted("sd", ["cat"], 1), "num_inference_steps": STEPS, **more}


def far_shield(pipe: Any) -> Shield:
    space = latent_space(latent_model(pipe), (4, 8, 8))
    return Shield(torch.full((1, 4, 8, 8), 50.0), space=space, radius=1.0)


def test_report_names_the_copy_when_a_part_is_drawn_on_it(sd: Any) -> None:
    pipe = made(WithSound, sd)
    plain = pipe(**call(), generator=seeded(1))
    guided = guide(pipe, SPARKE(strength=0.0))
    out = guided(**call(), generator=seeded(1))
    assert torch.equal(out[0], plain[0])
    assert torch.equal(out[-1], plain[-1])
    assert guided.report is not None
    assert guided.report.unguided == ["copy of scheduler (DDIMScheduler)"]
    ordinary = guide(sd)
    ordinary(**call(), generator=seeded(1))
    assert ordinary.report is not None
    assert ordinary.report.unguided == []


def test_report_names_the_prior_when_a_pipeline_draws_in_two_stages(tmp_path: Path) -> None:
    from diffusers import StableCascadeCombinedPipeline

    with torch.random.fork_rng():
        torch.manual_seed(0)
        prior, decoder = built("prior", tmp_path), built("decoder", tmp_path)
    parts = {**decoder.components}
    pipe = StableCascadeCombinedPipeline(
        tokenizer=parts["tokenizer"],
        text_encoder=parts["text_encoder"],
        decoder=parts["decoder"],
        scheduler=parts["scheduler"],
        vqgan=parts["vqgan"],
        prior_prior=prior.components["prior"],
        prior_text_encoder=prior.components["text_encoder"],
        prior_tokenizer=prior.components["tokenizer"],
        prior_scheduler=prior.components["scheduler"],
        prior_feature_extractor=None,  # type: ignore[arg-type]
        prior_image_encoder=None,  # type: ignore[arg-type]
    )
    pipe.set_progress_bar_config(disable=True)
    arguments = {
        "prompt": "a cat",
        "height": 84,
        "width": 84,
        "num_inference_steps": 2,
        "prior_num_inference_steps": 2,
        "output_type": "pt",
    }
    plain = pipe(**arguments, generator=seeded(1)[0])[0]
    memory = Memory()
    guided = guide(pipe, memory=memory)
    assert torch.equal(guided(**arguments, generator=seeded(1)[0])[0], plain)
    assert guided.report is not None
    assert guided.report.unguided == ["prior_scheduler (DDPMWuerstchenScheduler)"]
    assert len(memory) == 1


@pytest.mark.parametrize("output_type", ["latent", "pt"])
def test_last_result_stays_when_a_schedule_is_set_after_it(sd: Any, output_type: str) -> None:
    pipe, memory = made(InSegments, sd), Memory()
    guided = guide(pipe, SPARKE(strength=0.1), memory=memory, shield=far_shield(sd))
    out = guided(**call(output_type=output_type), generator=seeded(1))
    assert guided.report is not None
    assert guided.report.finished
    assert guided.report.steps == STEPS
    assert guided.report.images[0].certificate is not None
    assert len(memory) == 1
    if output_type == "latent":
        assert guided.latents is not None
        assert torch.equal(out[0], guided.latents)


def test_second_segment_is_refused_when_one_alone_can_be_measured(sd: Any) -> None:
    class Three(InSegments):
        segments = 3

    pipe = made(Three, sd)
    stores: list[dict[str, Any]] = [{"memory": Memory()}, {"shield": far_shield(sd)}]
    for store in stores:
        with pytest.raises(UnsupportedError, match="makes its result in parts"):
            guide(pipe, **store)(**call(output_type="pt"), generator=seeded(1))
    guided = guide(pipe, SPARKE(strength=0.1))
    assert len(guided(**call(output_type="pt"), generator=seeded(1))[0]) == 3


def test_diffusion_forcing_is_refused_at_its_first_step(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = wan(tmp_path).components
        transformer = diffusers.SkyReelsV2Transformer3DModel(
            patch_size=(1, 2, 2),  # type: ignore[arg-type]
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=16,
            out_channels=16,
            text_dim=32,
            freq_dim=16,
            ffn_dim=16,
            num_layers=1,
            cross_attn_norm=True,
            rope_max_seq_len=32,
        )
    parts["transformer"] = transformer
    parts.pop("transformer_2", None)
    pipe = diffusers.SkyReelsV2DiffusionForcingPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    calls: list[int] = []
    transformer.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(UnsupportedError, match="steps copies of its UniPCMultistepScheduler"):
        guide(pipe, SPARKE())(
            prompt=None,
            prompt_embeds=torch.ones(1, 12, 32),
            negative_prompt_embeds=torch.zeros(1, 12, 32),
            height=16,
            width=16,
            num_frames=9,
            base_num_frames=9,
            num_inference_steps=4,
            output_type="latent",
        )
    assert len(calls) <= 2  # one evaluation, with classifier-free guidance


@pytest.mark.parametrize("method", [SPARKE(strength=0.2), Auto()], ids=["sparke", "auto"])
def test_memory_is_compared_again_and_again_when_there_are_no_prompts(
    pixel_pipe: Any, method: Any
) -> None:
    memory = Memory()
    guided = guide(pixel_pipe, method, memory=memory)
    rows: list[Tensor] = []
    for _ in range(3):
        guided(num_inference_steps=3, output_type="np", generator=seeded(1)[0])
        assert guided.latents is not None
        rows.append(guided.latents[0])
    assert len(memory) == 3
    assert not torch.equal(rows[0], rows[1])  # the same noise, moved away from what was drawn
    assert not torch.equal(rows[1], rows[2])


def test_texts_without_embeddings_are_refused_at_the_first_call_with_a_memory() -> None:
    guided = guide_denoiser(
        lambda x, sigma: x * 0,
        SPARKE(),
        sigmas=[1.0, 0.5],
        prompts=["cat"],
        space="pixels",
        memory=Memory(),
    ).begin()
    with pytest.raises(OptionError, match="pass prompt_encoder="):
        guided(torch.ones(1, 3, 4, 4), torch.tensor([1.0]))
