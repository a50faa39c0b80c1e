"""Train the emoji autoencoder: `python -m training emoji autoencoder joint`, then `… decoder`.

The second stage trains the decoder alone and leaves the latents as they are, so that the denoiser
can be trained before, between or after.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from training import options
from training.emoji.measure import autoencoder_psnr
from training.loop import Checkpoint, Recipe, fit
from unalike.models.emoji.data import load_images

CONFIG = json.loads((Path(__file__).parent / "train.json").read_text())["autoencoder"]


def build() -> Any:
    """The untrained autoencoder in the shipped shape."""
    torch.manual_seed(CONFIG["seed"])
    channels = CONFIG["block_out_channels"]
    autoencoder: Any = diffusers.AutoencoderKL  # its annotations ask for a single block
    model = autoencoder(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=CONFIG["layers_per_block"],
        latent_channels=CONFIG["latent_channels"],
        norm_num_groups=CONFIG["norm_num_groups"],
        sample_size=64,
    )
    # Begin nearly deterministic: at the default variance of 1 the posterior collapses within a
    # hundred steps.
    with torch.no_grad():
        model.quant_conv.bias[CONFIG["latent_channels"] :] = CONFIG["initial_logvar"]
    return model.to(memory_format=torch.channels_last)


def reconstruction_loss(y: Tensor, x: Tensor) -> Tensor:
    """L1 + MSE + L1 of the horizontal and vertical differences, for images in [-1, 1]."""
    error = y - x
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (
        error[..., 1:, :] - error[..., :-1, :]
    ).abs().mean()
    return (
        error.abs().mean()
        + CONFIG["mse_weight"] * error.pow(2).mean()
        + CONFIG["edge_weight"] * edges
    )


@torch.no_grad()
def encode(model: Any, images: Tensor, batch: int = 64) -> Tensor:
    """Posterior means (n, channels, 8, 8) of images (n, 3, 64, 64) in [-1, 1], not yet scaled by
    `scaling_factor`.
    """
    return torch.cat(
        [model.encode(_on_device(x, model)).latent_dist.mean.cpu() for x in images.split(batch)]
    )


def train(stage: str, work: Path, device: str, minutes: float) -> float:
    """Train one of the stages from its checkpoint on, and return the PSNR of the averaged weights
    in dB.
    """
    images = load_images().float().div(127.5).sub(1)
    model = build()
    if stage == "decoder":
        Checkpoint(work / "autoencoder-joint.safetensors").load_average(model)
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
    model.to(device)
    recipe = Recipe(seed=CONFIG["seed"], **CONFIG[stage])
    loss_at = (
        _joint_loss(model, images, recipe)
        if stage == "joint"
        else _decoder_loss(model, images, recipe)
    )
    fit(
        model,
        loss_at,
        recipe,
        Checkpoint(work / f"autoencoder-{stage}.safetensors"),
        minutes=minutes,
        save_every=250,
    )
    return autoencoder_psnr(model)


def _joint_loss(model: Any, images: Tensor, recipe: Recipe) -> Callable[[int], Tensor]:
    def loss_at(step: int) -> Tensor:
        x = _on_device(images[recipe.epoch_batch(step, len(images))], model)
        with torch.autocast(model.device.type, torch.bfloat16):
            posterior = model.encode(x).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=recipe.generator(step)).to(x)
            y = model.decode(posterior.mean + posterior.std * noise).sample
        kl = (
            0.5
            * (
                posterior.mean.float().square()
                + posterior.var.float()
                - 1
                - posterior.logvar.float()
            ).mean()
        )
        return reconstruction_loss(y.float(), x) + CONFIG["kl_weight"] * kl

    return loss_at


def _decoder_loss(model: Any, images: Tensor, recipe: Recipe) -> Callable[[int], Tensor]:
    """Reconstruction from the frozen encoder's latents with noise of up to `latent_noise` of their
    standard deviation.

    The noise prepares the decoder for latents that a denoiser drew.
    """
    latents = encode(model, images)
    amount = CONFIG["latent_noise"] * latents.std()

    def loss_at(step: int) -> Tensor:
        index, generator = recipe.epoch_batch(step, len(images)), recipe.generator(step)
        x, z = _on_device(images[index], model), latents[index]
        z = z + amount * torch.rand(len(z), 1, 1, 1, generator=generator) * torch.randn(
            z.shape, generator=generator
        )
        with torch.autocast(model.device.type, torch.bfloat16):
            y = model.decode(z.to(x)).sample
        return reconstruction_loss(y.float(), x)

    return loss_at


def _on_device(images: Tensor, model: Any) -> Tensor:
    return images.to(model.device).contiguous(memory_format=torch.channels_last)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run this step from the command line."""
    parser = options.parser("emoji", "autoencoder", __doc__)
    parser.add_argument("stage", choices=["joint", "decoder"])
    options.add_work(parser, "emoji")
    options.add_device(parser)
    options.add_minutes(parser)
    given = parser.parse_args(arguments)
    value = train(given.stage, given.work, given.device, given.minutes)
    print(f"PSNR of the averaged weights: {value:.2f} dB")
