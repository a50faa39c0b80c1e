"""Families of pipelines that make videos and sounds, and modular pipelines."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    AutoencoderKLMochi,
    AutoencoderKLTemporalDecoder,
    AutoencoderKLWan,
    AutoencoderOobleck,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    EDMDPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    LattePipeline,
    LatteTransformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    MochiPipeline,
    MochiTransformer3DModel,
    ModularPipeline,
    MotionAdapter,
    StableAudioDiTModel,
    StableAudioPipeline,
    StableAudioProjectionModel,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from PIL import Image
from tests import tiny
from tests.hosts import texts
from tests.hosts.family import MIXED, ONE_EACH, POOLED, Family, repeated_prompts
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    LlamaConfig,
    LlamaModel,
    UMT5Config,
    UMT5EncoderModel,
)


def several_videos(prompts: list[str], each: int) -> dict[str, Any]:
    """The arguments that ask a video pipeline for `each` videos of each prompt."""
    return {"prompt": prompts, "num_videos_per_prompt": each}


def several_guided_videos(prompts: list[str], each: int) -> dict[str, Any]:
    """The same for pipelines that guide only where there is a negative prompt, and take one for
    each prompt.
    """
    return {**several_videos(prompts, each), "negative_prompt": ["bad"] * len(prompts)}


def several_sounds(prompts: list[str], each: int) -> dict[str, Any]:
    """The arguments that ask an audio pipeline for `each` sounds of each prompt."""
    return {"prompt": prompts, "num_waveforms_per_prompt": each}


def wan_transformer() -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
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


def wan(folder: Path, **config: Any) -> WanPipeline:
    encoder = UMT5Config(
        vocab_size=4 + len(tiny.LETTERS), d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    return WanPipeline(
        tokenizer=tiny.t5_tokenizer(),  # type: ignore[arg-type]
        text_encoder=UMT5EncoderModel(encoder).eval(),
        vae=AutoencoderKLWan(
            base_dim=4,
            z_dim=16,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
        ),
        transformer=wan_transformer(),
        scheduler=UniPCMultistepScheduler(  # type: ignore[arg-type]
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            num_train_timesteps=1000,
            flow_shift=3.0,
        ),
        **config,
    )


def wan22(folder: Path) -> WanPipeline:
    return wan(folder, transformer_2=wan_transformer(), boundary_ratio=0.875)


def ltx(folder: Path) -> LTXPipeline:
    blocks: dict[str, Any] = {
        name: (8, 8, 8, 8)
        if "channels" in name
        else (1, 1, 1, 1, 1)
        if "layers" in name
        else (True, True, False, False)
        for part in ("", "decoder_")
        for name in (
            f"{part}block_out_channels",
            f"{part}layers_per_block",
            f"{part}spatio_temporal_scaling",
        )
    }
    return LTXPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_image_seq_len=1024, max_shift=2.05, base_shift=0.95
        ),
        vae=AutoencoderKLLTXVideo(
            latent_channels=8,
            **blocks,
            decoder_inject_noise=(False,) * 5,
            upsample_residual=(False,) * 4,
            upsample_factor=(1,) * 4,
            patch_size=1,
            patch_size_t=1,
        ),
        text_encoder=tiny.t5(),
        tokenizer=tiny.t5_tokenizer(),
        transformer=LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=2,
            attention_head_dim=8,
            cross_attention_dim=16,
            num_layers=1,
            caption_channels=32,
        ),
    )


def cogvideox(folder: Path) -> CogVideoXPipeline:
    blocks: dict[str, Any] = {
        "down_block_types": ("CogVideoXDownBlock3D",) * 4,
        "up_block_types": ("CogVideoXUpBlock3D",) * 4,
        "block_out_channels": (8, 8, 8, 8),
    }
    return CogVideoXPipeline(
        tokenizer=tiny.t5_tokenizer(),
        text_encoder=tiny.t5(),
        vae=AutoencoderKLCogVideoX(
            **blocks, latent_channels=4, layers_per_block=1, norm_num_groups=2
        ),
        transformer=CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            time_embed_dim=2,
            text_embed_dim=32,
            num_layers=1,
            sample_width=2,
            sample_height=2,
            sample_frames=9,
            max_text_seq_length=tiny.LENGTH,
        ),
        scheduler=CogVideoXDDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            snr_shift_scale=3.0,
            timestep_spacing="trailing",
        ),
    )


def mochi(folder: Path) -> MochiPipeline:
    blocks: dict[str, Any] = {
        f"{part}_block_out_channels": (32, 32, 32, 32) for part in ("encoder", "decoder")
    }
    blocks["layers_per_block"] = (1, 1, 1, 1, 1)
    return MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        vae=AutoencoderKLMochi(**blocks),
        text_encoder=tiny.t5(),
        tokenizer=tiny.t5_tokenizer(),
        transformer=MochiTransformer3DModel(
            patch_size=2,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            pooled_projection_dim=16,
            in_channels=12,
            text_embed_dim=32,
            time_embed_dim=4,
            max_sequence_length=tiny.LENGTH,
        ),
    )


def animatediff(folder: Path) -> AnimateDiffPipeline:
    return AnimateDiffPipeline(
        vae=tiny.vae(),
        text_encoder=tiny.clip(),
        tokenizer=tiny.clip_tokenizer(folder),
        unet=tiny.unet(cross_attention_dim=16, attention_head_dim=4),
        motion_adapter=MotionAdapter(
            block_out_channels=(8, 16),
            motion_layers_per_block=1,
            motion_norm_num_groups=4,
            motion_num_attention_heads=2,
        ),
        scheduler=tiny.ddim(),  # type: ignore[arg-type]
    )


def stable_audio(folder: Path) -> StableAudioPipeline:
    return StableAudioPipeline(
        vae=AutoencoderOobleck(
            encoder_hidden_size=6,
            downsampling_ratios=[1, 2],
            decoder_channels=3,
            decoder_input_channels=3,
            audio_channels=2,
            channel_multiples=[2, 4],
            sampling_rate=4,
        ),
        text_encoder=tiny.t5(),
        projection_model=StableAudioProjectionModel(
            text_encoder_dim=32, conditioning_dim=4, min_value=0, max_value=32
        ),
        tokenizer=tiny.t5_tokenizer(),
        transformer=StableAudioDiTModel(
            sample_size=4,
            in_channels=3,
            num_layers=1,
            attention_head_dim=4,
            num_key_value_attention_heads=2,
            out_channels=3,
            cross_attention_dim=4,
            time_proj_dim=8,
            global_states_input_dim=8,
            cross_attention_input_dim=4,
        ),
        scheduler=EDMDPMSolverMultistepScheduler(
            prediction_type="v_prediction", sigma_data=1.0, sigma_schedule="exponential"
        ),
    )


def hunyuan_video(folder: Path) -> HunyuanVideoPipeline:
    llama: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
    }
    blocks: dict[str, Any] = {"block_out_channels": (8, 8, 8, 8)}
    clip = CLIPTextConfig(**{**tiny.clip_text_config().to_dict(), "max_position_embeddings": 77})
    return HunyuanVideoPipeline(
        text_encoder=LlamaModel(LlamaConfig(vocab_size=128, pad_token_id=0, **llama)).eval(),
        tokenizer=texts.gemma_tokenizer(),  # type: ignore[arg-type]
        transformer=HunyuanVideoTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=10,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            patch_size=1,
            text_embed_dim=16,
            pooled_projection_dim=16,
            rope_axes_dim=(2, 4, 4),
        ),
        vae=AutoencoderKLHunyuanVideo(
            **blocks, latent_channels=4, layers_per_block=1, norm_num_groups=4
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=CLIPTextModel(clip).eval(),
        tokenizer_2=tiny.clip_tokenizer(folder),
    )


def latte(folder: Path) -> LattePipeline:
    return LattePipeline(
        tokenizer=tiny.t5_tokenizer(),
        text_encoder=tiny.t5(),
        vae=tiny.vae(),
        transformer=LatteTransformer3DModel(
            sample_size=8,
            video_length=2,
            num_layers=1,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=3,
            caption_channels=32,
            in_channels=4,
            cross_attention_dim=24,
            out_channels=8,
            attention_bias=True,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
        ),
        scheduler=tiny.ddim(),  # type: ignore[arg-type]
    )


def stable_video(folder: Path) -> StableVideoDiffusionPipeline:
    blocks: dict[str, Any] = {
        "block_out_channels": (32, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
    }
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=224,
        patch_size=112,
        projection_dim=16,
    )
    return StableVideoDiffusionPipeline(
        vae=AutoencoderKLTemporalDecoder(**blocks, layers_per_block=1, latent_channels=4),
        image_encoder=CLIPVisionModelWithProjection(vision).eval(),
        unet=UNetSpatioTemporalConditionModel(
            sample_size=8,
            in_channels=8,
            out_channels=4,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            cross_attention_dim=16,
            num_attention_heads=2,
            projection_class_embeddings_input_dim=96,
            addition_time_embed_dim=32,
        ),
        scheduler=EulerDiscreteScheduler(
            prediction_type="v_prediction",
            use_karras_sigmas=True,
            sigma_min=0.002,
            sigma_max=700.0,
            timestep_type="continuous",
        ),
        feature_extractor=CLIPImageProcessorPil(crop_size=224, size=224),  # type: ignore[arg-type]
    )


def animated(prompts: list[str], each: int) -> dict[str, Any]:
    """The arguments that ask for a video of one picture for each image."""
    return {"image": [Image.new("RGB", (16, 16), (200, 40, 90))] * (len(prompts) * each)}


def load_modular(folder: Path) -> Any:
    """The modular pipeline of a folder in the layout of an ordinary one, quiet."""
    pipe = ModularPipeline.from_pretrained(str(folder))
    own = {path.name for path in folder.iterdir()}
    pipe.load_components(
        [name for name in pipe.pretrained_component_names if name in own], dtype=torch.float32
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


ALONE = (
    "A video is another one alone than in a batch: the pipeline itself cuts a single prompt and "
    "masks several."
)
PICTURED = "No methods that act on prompts (CADS, interval guidance): the prompt is an image."
TEXT = {"max_sequence_length": tiny.LENGTH, "guidance_scale": 3.0, "output_type": "latent"}

FAMILIES: tuple[Family, ...] = (
    Family(
        name="Wan",
        pipeline="WanPipeline",
        build=wan,
        sample="(B, C, F, H, W)",
        arguments={**TEXT, "height": 16, "width": 16, "num_frames": 5},
        ask=several_videos,
    ),
    Family(
        name="Wan 2.2",
        pipeline="WanPipeline",
        build=wan22,
        sample="(B, C, F, H, W)",
        arguments={**TEXT, "height": 16, "width": 16, "num_frames": 5},
        ask=several_videos,
    ),
    Family(
        name="LTX",
        pipeline="LTXPipeline",
        build=ltx,
        sample="(B, S, C), packed",
        arguments={**TEXT, "height": 32, "width": 32, "num_frames": 9},
        ask=repeated_prompts,
        limits=(MIXED,),
    ),
    Family(
        name="CogVideoX",
        pipeline="CogVideoXPipeline",
        build=cogvideox,
        sample="(B, F, C, H, W)",
        arguments={**TEXT, "height": 16, "width": 16, "num_frames": 5},
        ask=repeated_prompts,
        limits=(ONE_EACH,),
    ),
    Family(
        name="Mochi",
        pipeline="MochiPipeline",
        build=mochi,
        sample="(B, C, F, H, W)",
        arguments={**TEXT, "height": 16, "width": 16, "num_frames": 7},
        ask=repeated_prompts,
        limits=(MIXED,),
    ),
    Family(
        name="HunyuanVideo",
        pipeline="HunyuanVideoPipeline",
        build=hunyuan_video,
        sample="(B, C, F, H, W)",
        arguments={
            "max_sequence_length": tiny.LENGTH,
            "prompt_template": {"template": "{}", "crop_start": 0},
            "true_cfg_scale": 3.0,
            "height": 16,
            "width": 16,
            "num_frames": 5,
            "output_type": "latent",
        },
        without_guidance={"true_cfg_scale": 1.0},
        ask=several_guided_videos,
    ),
    Family(
        name="Latte",
        pipeline="LattePipeline",
        build=latte,
        sample="(B, C, F, H, W)",
        arguments={
            "height": 16,
            "width": 16,
            "video_length": 2,
            "guidance_scale": 3.0,
            "clean_caption": False,
            "output_type": "latent",
        },
        ask=repeated_prompts,
        exact_batches=False,
        limits=(MIXED, ALONE),
    ),
    Family(
        name="Stable Video Diffusion",
        pipeline="StableVideoDiffusionPipeline",
        build=stable_video,
        sample="(B, F, C, H, W)",
        arguments={"height": 16, "width": 16, "num_frames": 2, "output_type": "latent"},
        ask=animated,
        prompted=False,
        prompt_methods=False,
        limits=(PICTURED,),
    ),
    Family(
        name="AnimateDiff",
        pipeline="AnimateDiffPipeline",
        build=animatediff,
        sample="(B, C, F, H, W)",
        arguments={
            "height": 16,
            "width": 16,
            "num_frames": 3,
            "guidance_scale": 3.0,
            "output_type": "latent",
        },
        ask=repeated_prompts,
        limits=(ONE_EACH,),
    ),
    Family(
        name="Stable Audio",
        pipeline="StableAudioPipeline",
        build=stable_audio,
        sample="(B, C, L)",
        arguments={"guidance_scale": 3.0, "output_type": "latent"},
        ask=several_sounds,
    ),
    Family(
        name="modular Stable Diffusion XL",
        pipeline="StableDiffusionXLModularPipeline",
        build=tiny.sdxl,
        load=load_modular,
        sample="(B, C, H, W)",
        ask=repeated_prompts,
        limits=(POOLED,),
        arguments={"height": 16, "width": 16, "output_type": "latent", "output": "images"},
        decodes=True,
        output=torch.as_tensor,
    ),
)
