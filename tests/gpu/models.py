"""Stable Diffusion XL and FLUX with random weights, at their real sizes or tiny.

`sizes.json` holds the configurations. The denoisers and autoencoders are those of
`stabilityai/stable-diffusion-xl-base-1.0` and `black-forest-labs/FLUX.1-dev`; the text encoders
have the real widths and two layers, since they run once a call.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tests import tiny
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

SIZES = json.loads((Path(__file__).parent / "sizes.json").read_text("utf-8"))


@contextmanager
def random_weights(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Make modules on the device and in the precision, from seed 0."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())), device:
            torch.manual_seed(0)
            yield
    finally:
        torch.set_default_dtype(before)


def denoiser(name: str, size: str) -> Any:
    """The U-Net of Stable Diffusion XL or the transformer of FLUX.1-dev."""
    config = SIZES[name][size]["denoiser"]
    if name == "flux":
        return FluxTransformer2DModel(patch_size=1, guidance_embeds=True, **config).eval()
    return UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        use_linear_projection=True,
        addition_embed_type="text_time",
        **config,
    ).eval()


def build(name: str, size: str, device: torch.device, dtype: torch.dtype, folder: Path) -> Any:
    """The pipeline of a model ("sdxl" or "flux") and a size ("real" or "tiny")."""
    sizes = SIZES[name][size]
    with random_weights(device, dtype):
        parts = {
            "vae": _autoencoder(**sizes["vae"], flux=name == "flux"),
            "text_encoder": _clip(CLIPTextModel, sizes["clip"]),
        }
        model = denoiser(name, size)
        if name == "flux":
            t5 = T5Config(vocab_size=30, num_layers=2, **sizes["t5"])
            parts |= {"transformer": model, "text_encoder_2": T5EncoderModel(t5).eval()}
        else:
            second = _clip(CLIPTextModelWithProjection, sizes["clip_2"])
            parts |= {"unet": model, "text_encoder_2": second}
    pipe = (_flux if name == "flux" else _sdxl)(parts, folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def release() -> None:
    """Give back the GPU memory of pipelines that nothing refers to."""
    gc.collect()
    torch.cuda.empty_cache()


def _sdxl(parts: dict[str, Any], folder: Path) -> Any:
    return StableDiffusionXLPipeline(
        **parts,
        tokenizer=tiny.clip_tokenizer(folder),
        tokenizer_2=tiny.clip_tokenizer(folder),
        scheduler=EulerDiscreteScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            steps_offset=1,
            timestep_spacing="leading",
        ),  # type: ignore[arg-type]
        add_watermarker=False,
    )


def _flux(parts: dict[str, Any], folder: Path) -> Any:
    return FluxPipeline(
        **parts,
        tokenizer=tiny.clip_tokenizer(folder),
        tokenizer_2=tiny.t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )


def _clip(kind: type, sizes: dict[str, Any]) -> Any:
    config = CLIPTextConfig(
        vocab_size=2 + 2 * len(tiny.LETTERS),
        num_hidden_layers=2,
        max_position_embeddings=tiny.LENGTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        **sizes,
    )
    return kind(config).eval()


def _autoencoder(*, block_out_channels: list[int], flux: bool, **sizes: Any) -> Any:
    levels = len(block_out_channels)
    kind: Any = AutoencoderKL  # its annotations ask for a single block
    scale: dict[str, Any] = {"scaling_factor": 0.13025}
    if flux:
        scale = {"scaling_factor": 0.3611, "shift_factor": 0.1159}
        scale |= {"use_quant_conv": False, "use_post_quant_conv": False}
    return kind(
        block_out_channels=block_out_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        **scale,
        **sizes,
    ).eval()
