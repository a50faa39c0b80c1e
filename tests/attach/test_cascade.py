"""Stable Cascade's two stages, whose scheduler is stepped with a share of the schedule for each
image.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDPMWuerstchenScheduler,
    DiffusionPipeline,
    StableCascadeDecoderPipeline,
    StableCascadePriorPipeline,
)
from diffusers.models import StableCascadeUNet
from diffusers.pipelines.stable_cascade.pipeline_stable_cascade import PaellaVQModel
from tests import tiny
from torch import Tensor
from transformers import CLIPTextModelWithProjection

from unalike import SPARKE, SPELL, Memory
from unalike.attach import guide

BLOCKS = {
    "conditioning_dim": 16,
    "block_out_channels": (16, 16),
    "num_attention_heads": (2, 2),
    "down_num_layers_per_block": (1, 1),
    "up_num_layers_per_block": (1, 1),
    "switch_level": (False,),
    "clip_text_pooled_in_channels": 16,
    "dropout": (0.0, 0.0),
}


def built(stage: str, folder: Path) -> DiffusionPipeline:
    parts: dict[str, Any] = {
        "tokenizer": tiny.clip_tokenizer(folder),
        "text_encoder": tiny.clip(CLIPTextModelWithProjection),
        "scheduler": DDPMWuerstchenScheduler(),
    }
    if stage == "prior":
        prior = StableCascadeUNet(**BLOCKS, clip_text_in_channels=16, clip_image_in_channels=16)
        return StableCascadePriorPipeline(
            prior=prior, feature_extractor=None, image_encoder=None, **parts
        )
    decoder = StableCascadeUNet(**BLOCKS, in_channels=4, out_channels=4, effnet_in_channels=16)
    vqgan = PaellaVQModel(bottleneck_blocks=1, num_vq_embeddings=2, embed_dim=8)
    return StableCascadeDecoderPipeline(decoder=decoder, vqgan=vqgan, **parts)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Both stages; diffusers cannot read its own PaellaVQModel back from where it wrote it, so
    nothing is written.
    """
    made = {}
    for stage in ("prior", "decoder"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made[stage] = built(stage, tmp_path_factory.mktemp(stage))
        made[stage].set_progress_bar_config(disable=True)
    return made


def latents(pipe: Any, stage: str, **options: Any) -> Tensor:
    """The final latents of two prompts with two images each."""
    generator = [torch.Generator().manual_seed(i) for i in range(4)]
    if stage == "prior":
        options |= {"height": 84, "width": 84, "num_images_per_prompt": 2}
    else:
        options |= {
            "image_embeddings": torch.randn(
                4, 16, 2, 2, generator=torch.Generator().manual_seed(9)
            ),
            "output_type": "latent",
        }
    return pipe(
        prompt=["a cat", "a dog"],
        num_inference_steps=4,
        guidance_scale=2.0,
        generator=generator,
        **options,
    )[0]


@pytest.mark.parametrize("stage", ["prior", "decoder"])
def test_latents_are_bit_identical_when_nothing_is_corrected(
    stages: dict[str, Any], stage: str
) -> None:
    pipe = stages[stage]
    plain = latents(pipe, stage)
    assert torch.equal(latents(guide(pipe, SPARKE(strength=0.0), SPELL(radius=1e-6)), stage), plain)


@pytest.mark.parametrize("stage", ["prior", "decoder"])
def test_latents_are_guided_when_the_stage_is(stages: dict[str, Any], stage: str) -> None:
    pipe, memory = stages[stage], Memory()
    guided = guide(pipe, SPARKE(strength=0.2), memory=memory)
    assert not torch.equal(latents(guided, stage), latents(pipe, stage))
    assert guided.report is not None
    assert guided.report.steps == 4
    assert [image.group for image in guided.report.images] == [0, 0, 1, 1]
    assert all(
        min(image.corrections["sparke"][:3]) > 0 and image.corrections["sparke"][3] == 0
        for image in guided.report.images
    )
    assert len(memory) == 4
