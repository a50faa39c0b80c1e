"""Image pipelines around a transformer."""

from pathlib import Path
from typing import Any

from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)
from tests import tiny
from tests.hosts import texts
from tests.hosts.family import Family, class_labels

IMAGE, PACKED = "(B, C, H, W)", "(B, S, C), packed"
SMALL = {"height": 16, "width": 16, "output_type": "latent"}
BINNED = {
    "height": 32,
    "width": 32,
    "output_type": "latent",
    "guidance_scale": 3.0,
    "use_resolution_binning": False,
    "clean_caption": False,
}


def pixart(folder: Path, kind: type = PixArtSigmaPipeline) -> Any:
    transformer = PixArtTransformer2DModel(
        sample_size=32,  # 256 pixels
        in_channels=4,
        out_channels=8,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        cross_attention_dim=16,
        caption_channels=32,
        use_additional_conditions=False,
    )
    return kind(
        tokenizer=tiny.t5_tokenizer(),
        text_encoder=tiny.t5(),
        vae=tiny.vae(levels=4),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(
            beta_start=0.0001, beta_end=0.02, beta_schedule="linear"
        ),
    )


def pixart_alpha(folder: Path) -> Any:
    return pixart(folder, PixArtAlphaPipeline)


def aura_flow(folder: Path) -> Any:
    transformer = AuraFlowTransformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_projection_dim=16,
        joint_attention_dim=32,
        pos_embed_max_size=64,
    )
    return AuraFlowPipeline(
        tokenizer=tiny.t5_tokenizer(),
        text_encoder=texts.umt5(),
        vae=tiny.vae(),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
    )


FAMILIES = (
    Family(
        name="DiT",
        pipeline="DiTPipeline",
        build=tiny.dit,
        sample="(2B, C, H, W), each image twice",
        arguments={"output_type": "np", "guidance_scale": 3.0},
        ask=class_labels,
        decodes=True,
    ),
    Family(
        name="PixArt-alpha",
        pipeline="PixArtAlphaPipeline",
        build=pixart_alpha,
        sample=IMAGE,
        arguments={**BINNED, "max_sequence_length": 12},
        decodes=True,
    ),
    Family(
        name="PixArt-Sigma",
        pipeline="PixArtSigmaPipeline",
        build=pixart,
        sample=IMAGE,
        arguments={**BINNED, "max_sequence_length": 12},
        decodes=True,
    ),
    Family(
        name="Stable Diffusion 3",
        pipeline="StableDiffusion3Pipeline",
        build=tiny.sd3,
        sample=IMAGE,
        arguments={**SMALL, "guidance_scale": 3.0, "max_sequence_length": 12},
        decodes=True,
    ),
    Family(
        name="Flux",
        pipeline="FluxPipeline",
        build=tiny.flux,
        sample=PACKED,
        arguments={**SMALL, "max_sequence_length": 12},
        guidance=False,
        decodes=True,
    ),
    Family(
        name="AuraFlow",
        pipeline="AuraFlowPipeline",
        build=aura_flow,
        sample=IMAGE,
        arguments={
            **SMALL,
            "guidance_scale": 50.0,  # for random weights hardly look at the prompt
            "max_sequence_length": 12,
        },
        decodes=True,
    ),
)
