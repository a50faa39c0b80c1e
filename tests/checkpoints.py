"""Tiny pipelines as one file, in the layout of the original code of Stable Diffusion."""

import re
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def write_checkpoint(pipe: Any, path: Path, *, text_encoder: bool = True) -> Path:
    """Write UNet, autoencoder and text encoder into one file."""
    tensors = {f"model.diffusion_model.{k}": t for k, t in original_unet(pipe.unet).items()}
    tensors |= {f"first_stage_model.{k}": t for k, t in original_vae(pipe.vae).items()}
    if text_encoder:
        prefix = "cond_stage_model.transformer.text_model."
        own = pipe.text_encoder.state_dict()
        tensors |= {prefix + k.removeprefix("text_model."): t for k, t in own.items()}
    save_file({k: t.contiguous() for k, t in tensors.items()}, path)
    return path


def original_unet(unet: Any) -> dict[str, Tensor]:
    """The weights of a UNet by their original names."""
    layers = unet.config.layers_per_block
    return {_unet_name(name, layers, unet): t for name, t in unet.state_dict().items()}


def original_vae(vae: Any) -> dict[str, Tensor]:
    """The weights of an autoencoder by their original names, attention as convolutions."""
    last, found = len(vae.config.block_out_channels) - 1, {}
    for name, tensor in vae.state_dict().items():
        if ".attentions.0." in name and tensor.ndim == 2:
            tensor = tensor[:, :, None, None]
        found[_vae_name(name, last)] = tensor
    return found


def _unet_name(name: str, layers: int, unet: Any) -> str:
    for own, original in _ENDS.items():
        if name.startswith(f"{own}."):
            return name.replace(own, original, 1)
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        kind, number, rest = match.groups()
        place = 1 if kind == "attentions" else 2 * int(number)
        return f"middle_block.{place}.{_inside(rest) if kind == 'resnets' else rest}"
    match = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name)
    assert match is not None, name
    way, block, kind, number, rest = match.groups()
    first = int(block) * (layers + 1)
    if way == "down":
        if kind == "downsamplers":
            return f"input_blocks.{1 + first + layers}.0.{rest.replace('conv', 'op')}"
        place = f"input_blocks.{1 + first + int(number)}"
    elif kind == "upsamplers":
        attends = hasattr(unet.up_blocks[int(block)], "attentions")
        return f"output_blocks.{first + layers}.{2 if attends else 1}.{rest}"
    else:
        place = f"output_blocks.{first + int(number)}"
    return f"{place}.0.{_inside(rest)}" if kind == "resnets" else f"{place}.1.{rest}"


def _inside(rest: str) -> str:
    part, dot, kind = rest.partition(".")
    return f"{_RESNET[part]}{dot}{kind}"


def _vae_name(name: str, last: int) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    if "mid_block.attentions.0." in name:
        name = name.replace("mid_block.attentions.0.", "mid.attn_1.")
        for own, original in _ATTENTION.items():
            name = name.replace(f".{own}.", f".{original}.")
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{last - int(m[1])}.block", name)
    return re.sub(
        r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", name
    )
