"""Tiny pipelines of the real classes with random weights, written to disk in diffusers' layout and
read back by `from_pretrained`.
"""

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    DiTPipeline,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

LETTERS = list(string.ascii_lowercase)
LENGTH = 12


def load(folder: Path) -> Any:
    """The pipeline that was written to `folder`, quiet."""
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def write(name: str, folder: Path) -> Path:
    """Builds one of `BUILDERS` from seed 0 and saves it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BUILDERS[name](folder).save_pretrained(folder / name)
    return folder / name


def vae(channels: int = 4, levels: int = 2, **config: Any) -> AutoencoderKL:
    """An autoencoder that makes images smaller by `2 ** (levels - 1)`."""
    blocks: dict[str, Any] = {
        "block_out_channels": (8,) * levels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }
    return AutoencoderKL(
        **blocks, norm_num_groups=4, latent_channels=channels, sample_size=16, **config
    )


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{c}</w>" for c in LETTERS)]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=LENGTH
    )


def clip_text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=2 + 2 * len(LETTERS),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        projection_dim=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def clip(kind: type = CLIPTextModel) -> Any:
    return kind(clip_text_config()).eval()


def write_clip(folder: Path) -> Path:
    """A CLIP of both towers for images of 16×16, with a tokenizer of the alphabet, from seed 0."""
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=16,
    )
    config = CLIPConfig(
        text_config=clip_text_config().to_dict(), vision_config=vision.to_dict(), projection_dim=16
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    clip_tokenizer(folder).save_pretrained(folder)
    return folder


def t5_tokenizer() -> T5Tokenizer:
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("▁", -2.0),
        *((c, -3.0) for c in LETTERS),
    ]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=LENGTH)


def t5() -> Any:
    config = T5Config(
        vocab_size=4 + len(LETTERS), d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    return T5EncoderModel(config).eval()


def unet(**config: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **config,
    )


def ddim() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        steps_offset=1,
        clip_sample=False,
    )


def sd(folder: Path) -> Any:
    return StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(folder),
        unet=unet(cross_attention_dim=16, attention_head_dim=4),
        scheduler=ddim(),  # type: ignore[arg-type]
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )


def sdxl(folder: Path) -> Any:
    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=clip(),
        text_encoder_2=clip(CLIPTextModelWithProjection),
        tokenizer=clip_tokenizer(folder),
        tokenizer_2=clip_tokenizer(folder),
        unet=unet(
            cross_attention_dim=32,
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            transformer_layers_per_block=(1, 1),
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 16,
        ),
        scheduler=ddim(),  # type: ignore[arg-type]
        add_watermarker=False,
    )


def sd3(folder: Path) -> Any:
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pooled_projection_dim=32,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(shift_factor=0.06, scaling_factor=1.5),
        text_encoder=clip(CLIPTextModelWithProjection),
        text_encoder_2=clip(CLIPTextModelWithProjection),
        text_encoder_3=t5(),
        tokenizer=clip_tokenizer(folder),
        tokenizer_2=clip_tokenizer(folder),
        tokenizer_3=t5_tokenizer(),
    )


def dit(folder: Path) -> Any:
    return DiTPipeline(
        transformer=DiTTransformer2DModel(
            sample_size=8,
            patch_size=4,
            in_channels=4,
            out_channels=8,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            attention_bias=True,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_zero",
            norm_elementwise_affine=False,
        ),
        vae=vae(),
        scheduler=ddim(),  # type: ignore[arg-type]
        id2label={0: "tench", 1: "goldfish"},
    )


def flux(folder: Path) -> Any:
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(shift_factor=0.06, scaling_factor=1.5),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(folder),
        text_encoder_2=t5(),
        tokenizer_2=t5_tokenizer(),
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=16,
            axes_dims_rope=(4, 4, 8),
        ),
    )


BUILDERS: dict[str, Callable[[Path], Any]] = {
    "sd": sd,
    "sdxl": sdxl,
    "sd3": sd3,
    "dit": dit,
    "flux": flux,
}
