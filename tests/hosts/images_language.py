"""Image pipelines around a transformer whose text encoder is a language model."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKLQwenImage,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaSprintPipeline,
    SanaTransformer2DModel,
    SCMScheduler,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tests import tiny
from tests.hosts import texts
from tests.hosts.family import LISTED, MIXED, Family, with_negative_prompts
from tests.hosts.images_transformer import BINNED, IMAGE, PACKED, SMALL


def video_vae() -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 1.0, 2.0, 0.8],
    )


def qwen_image(folder: Path) -> Any:
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=texts.WIDTH,
        axes_dims_rope=(8, 4, 4),
    )
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=video_vae(),
        text_encoder=texts.qwen_vl(),
        tokenizer=texts.qwen_tokenizer(),
        transformer=transformer,
    )


def z_image(folder: Path) -> Any:
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=texts.WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    for padding in (
        transformer.x_pad_token,
        transformer.cap_pad_token,
    ):  # which are made without values
        torch.nn.init.normal_(padding, std=0.02)
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=tiny.vae(shift_factor=0.06, scaling_factor=1.5),
        text_encoder=texts.qwen3(),
        tokenizer=texts.qwen_tokenizer(),  # type: ignore[arg-type]
        transformer=transformer,
    )


def dc_ae() -> AutoencoderDC:
    return AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),  # type: ignore[arg-type]
        decoder_block_types=("ResBlock", "EfficientViTBlock"),  # type: ignore[arg-type]
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    )


def sana_transformer(**config: Any) -> SanaTransformer2DModel:
    return SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=4,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=texts.WIDTH,
        sample_size=16,
        **config,
    )


def sana(folder: Path) -> Any:
    return SanaPipeline(
        tokenizer=texts.gemma_tokenizer(),
        text_encoder=texts.gemma(),
        vae=dc_ae(),
        transformer=sana_transformer(),
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )


def sana_sprint(folder: Path) -> Any:
    return SanaSprintPipeline(
        tokenizer=texts.gemma_tokenizer(),
        text_encoder=texts.gemma(),
        vae=dc_ae(),
        transformer=sana_transformer(guidance_embeds=True),
        scheduler=SCMScheduler(),  # type: ignore[arg-type]
    )


def lumina2(folder: Path) -> Any:
    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=24,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=2,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(128, 32, 32),
        cap_feat_dim=texts.WIDTH,
    )
    return Lumina2Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=tiny.vae(levels=4, shift_factor=0.06, scaling_factor=1.5),
        text_encoder=texts.gemma(),
        tokenizer=texts.gemma_tokenizer(),
    )


FAMILIES = (
    Family(
        name="Lumina 2",
        pipeline="Lumina2Pipeline",
        build=lumina2,
        sample=IMAGE,
        arguments={
            "height": 32,
            "width": 32,
            "output_type": "latent",
            "guidance_scale": 3.0,
            "system_prompt": "draw",
            "max_sequence_length": 40,
        },
        limits=(MIXED,),
        decodes=True,
    ),
    Family(
        name="Sana",
        pipeline="SanaPipeline",
        build=sana,
        sample=IMAGE,
        arguments={**BINNED, "max_sequence_length": 12, "complex_human_instruction": None},
        limits=(MIXED,),
        decodes=True,
    ),
    Family(
        name="Sana-Sprint",
        pipeline="SanaSprintPipeline",
        build=sana_sprint,
        sample=IMAGE,
        arguments={**BINNED, "max_sequence_length": 12, "complex_human_instruction": None},
        steps=2,
        limits=(MIXED,),
        guidance=False,
        decodes=True,
    ),
    Family(
        name="Qwen-Image",
        pipeline="QwenImagePipeline",
        build=qwen_image,
        sample=PACKED,
        arguments={**SMALL, "true_cfg_scale": 3.0},
        ask=with_negative_prompts,
        without_guidance={"true_cfg_scale": 1.0},
        limits=(MIXED,),
        decodes=True,
    ),
    Family(
        name="Z-Image",
        pipeline="ZImagePipeline",
        build=z_image,
        sample=IMAGE,
        arguments={**SMALL, "guidance_scale": 3.0, "max_sequence_length": 64},
        without_guidance={"guidance_scale": 0.0},
        prompt_methods=False,
        limits=(LISTED,),
        decodes=True,
    ),
)
