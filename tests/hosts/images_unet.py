"""Image pipelines around a UNet, and DeepFloyd's of pixels."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    ControlNetModel,
    DDIMPipeline,
    DDIMScheduler,
    DDPMScheduler,
    IFPipeline,
    Kandinsky3Pipeline,
    Kandinsky3UNet,
    LDMTextToImagePipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLControlNetPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from PIL import Image, ImageDraw
from tests import tiny
from tests.hosts import texts
from tests.hosts.family import MIXED, ONE_EACH, Family, batch_size, repeated_prompts

SMALL = {"height": 16, "width": 16, "output_type": "latent", "guidance_scale": 3.0}
IMAGE = "(B, C, H, W)"


def stick_figure(size: int = 16) -> Image.Image:
    """A pose, as coloured limbs on black."""
    pose = Image.new("RGB", (size, size))
    draw, unit = ImageDraw.Draw(pose), size / 16
    limbs = {
        "red": (8, 4, 8, 9),
        "yellow": (8, 5, 3, 8),
        "lime": (8, 5, 13, 8),
        "cyan": (8, 9, 5, 14),
        "blue": (8, 9, 11, 14),
    }
    for colour, ends in limbs.items():
        draw.line([unit * n for n in ends], fill=colour, width=max(1, round(unit)))
    draw.ellipse([unit * n for n in (6, 1, 10, 4)], outline="magenta")
    return pose


def drawing(size: int = 16) -> Image.Image:
    """Something to begin with: a shade from one corner to the other."""
    row = torch.arange(size).float()
    shade = (row[:, None] + row) / (2 * size) * 255
    return Image.merge(
        "RGB", [Image.fromarray(s.byte().numpy()) for s in (shade, 255 - shade, shade / 2)]
    )


def right_half(size: int = 16) -> Image.Image:
    mask = Image.new("L", (size, size))
    mask.paste(255, (size // 2, 0, size, size))
    return mask


def img2img(folder: Path) -> Any:
    return StableDiffusionImg2ImgPipeline(
        **tiny.sd(folder).components, requires_safety_checker=False
    )


def inpaint(folder: Path) -> Any:
    return StableDiffusionInpaintPipeline(
        **tiny.sd(folder).components, requires_safety_checker=False
    )


def controlled(pipe: Any, kind: type) -> Any:
    """A pipeline with a control network beside its UNet, which has learned something: it begins
    with zeros.
    """
    net = ControlNetModel.from_unet(
        pipe.unet, conditioning_embedding_out_channels=(4, 4), load_weights_from_unet=False
    )
    for part in (
        *net.controlnet_down_blocks,
        net.controlnet_mid_block,
        net.controlnet_cond_embedding.conv_out,
    ):
        for weight in part.parameters():
            torch.nn.init.normal_(weight, std=0.5)
    return kind(
        **pipe.components,
        controlnet=net,
        **{k: v for k, v in pipe.config.items() if k == "requires_safety_checker"},
    )


def sd_controlnet(folder: Path) -> Any:
    return controlled(tiny.sd(folder), StableDiffusionControlNetPipeline)


def sdxl_controlnet(folder: Path) -> Any:
    return controlled(tiny.sdxl(folder), StableDiffusionXLControlNetPipeline)


def movq() -> VQModel:
    return VQModel(
        block_out_channels=(32, 32),  # its spatial norm has 32 groups
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        num_vq_embeddings=8,
        vq_embed_dim=4,
        norm_type="spatial",
    )


def kandinsky3(folder: Path) -> Any:
    unet = Kandinsky3UNet(
        time_embedding_dim=8,
        groups=2,
        attention_head_dim=4,
        layers_per_block=2,
        block_out_channels=(8, 16),
        cross_attention_dim=8,
        encoder_hid_dim=32,
    )
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", clip_sample=True, thresholding=False, steps_offset=1
    )
    return Kandinsky3Pipeline(
        tokenizer=tiny.t5_tokenizer(),
        text_encoder=tiny.t5(),
        unet=unet,
        scheduler=scheduler,
        movq=movq(),
    )


def ldm(folder: Path) -> Any:
    return LDMTextToImagePipeline(
        vqvae=tiny.vae(levels=4),
        bert=texts.bert(),
        tokenizer=texts.bert_tokenizer(),  # type: ignore[arg-type]
        unet=tiny.unet(cross_attention_dim=texts.WIDTH, attention_head_dim=4),
        scheduler=tiny.ddim(),
    )


def deepfloyd(folder: Path) -> Any:
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=3,
        out_channels=6,
        layers_per_block=1,
        block_out_channels=(32, 32),
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        cross_attention_dim=32,
        encoder_hid_dim=32,
        attention_head_dim=4,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
    )
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=1.5,
        variance_type="learned_range",
    )
    return IFPipeline(
        tokenizer=tiny.t5_tokenizer(),
        text_encoder=tiny.t5(),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )


def unconditional(folder: Path) -> Any:
    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    return DDIMPipeline(unet=unet, scheduler=DDIMScheduler())


FAMILIES = (
    Family(
        name="Stable Diffusion",
        pipeline="StableDiffusionPipeline",
        build=tiny.sd,
        sample=IMAGE,
        arguments=SMALL,
        decodes=True,
    ),
    Family(
        name="Stable Diffusion, image to image",
        pipeline="StableDiffusionImg2ImgPipeline",
        build=img2img,
        sample=IMAGE,
        arguments={
            "image": drawing(),
            "strength": 0.8,
            "output_type": "latent",
            "guidance_scale": 3.0,
        },
        decodes=True,
    ),
    Family(
        name="Stable Diffusion, inpainting",
        pipeline="StableDiffusionInpaintPipeline",
        build=inpaint,
        sample=IMAGE,
        arguments={**SMALL, "image": drawing(), "mask_image": right_half()},
        decodes=True,
    ),
    Family(
        name="Stable Diffusion XL",
        pipeline="StableDiffusionXLPipeline",
        build=tiny.sdxl,
        sample=IMAGE,
        arguments=SMALL,
        decodes=True,
    ),
    Family(
        name="Stable Diffusion, ControlNet",
        pipeline="StableDiffusionControlNetPipeline",
        build=sd_controlnet,
        sample=IMAGE,
        arguments={**SMALL, "image": stick_figure()},
        decodes=True,
    ),
    Family(
        name="Stable Diffusion XL, ControlNet",
        pipeline="StableDiffusionXLControlNetPipeline",
        build=sdxl_controlnet,
        sample=IMAGE,
        arguments={**SMALL, "image": stick_figure()},
        decodes=True,
    ),
    Family(
        name="Kandinsky 3",
        pipeline="Kandinsky3Pipeline",
        build=kandinsky3,
        sample=IMAGE,
        arguments=SMALL,
        limits=(MIXED,),
        decodes=True,
    ),
    Family(
        name="Latent Diffusion",
        pipeline="LDMTextToImagePipeline",
        build=ldm,
        sample=IMAGE,
        arguments={"height": 64, "width": 64, "output_type": "np", "guidance_scale": 3.0},
        ask=repeated_prompts,
        limits=(ONE_EACH,),
        decodes=True,
    ),
    Family(
        name="DeepFloyd IF",
        pipeline="IFPipeline",
        build=deepfloyd,
        sample="(B, 3, H, W), pixels",
        arguments={"output_type": "pt", "guidance_scale": 3.0, "clean_caption": False},
        decodes=True,
    ),
    Family(
        name="Unconditional",
        pipeline="DDIMPipeline",
        build=unconditional,
        sample="(B, 3, H, W), pixels",
        arguments={"output_type": "np"},
        ask=batch_size,
        prompted=False,
        prompt_methods=False,
        guidance=False,
        decodes=True,
    ),
)
