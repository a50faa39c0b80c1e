"""Train the digits autoencoder: `python -m training digits autoencoder`.

It is trained on one channel. The shipped one has three, as pipelines and feature extractors expect:
the first convolution reads their mean and the last one writes three equal channels, so that its
images are exactly grey.
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
from training.loop import Checkpoint, Recipe, fit
from unalike.models.digits.data import SIDE, load_images

CONFIG = json.loads((Path(__file__).parent / "train.json").read_text("utf-8"))["autoencoder"]


def build(channels: int = 1) -> Any:
    """The untrained autoencoder, of images with so many channels."""
    torch.manual_seed(CONFIG["seed"])
    blocks = CONFIG["block_out_channels"]
    autoencoder: Any = diffusers.AutoencoderKL  # its annotations ask for a single block
    model = autoencoder(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(blocks),
        up_block_types=("UpDecoderBlock2D",) * len(blocks),
        block_out_channels=blocks,
        layers_per_block=CONFIG["layers_per_block"],
        latent_channels=CONFIG["latent_channels"],
        norm_num_groups=CONFIG["norm_num_groups"],
        sample_size=SIDE,
    )
    with (
        torch.no_grad()
    ):  # begin nearly deterministic: at the default variance of 1 the posterior collapses
        model.quant_conv.bias[CONFIG["latent_channels"] :] = CONFIG["initial_logvar"]
    return model


def pictures() -> Tensor:
    """The data set as the model is given it: (1797, 1, 16, 16) in [-1, 1]."""
    return load_images()[:, :1].float().div(127.5).sub(1)


@torch.no_grad()
def frozen(work: Path) -> Any:
    """The trained autoencoder for images of three channels, its latents with mean 0 and standard
    deviation 1 in each channel.

    Both are folded into the 1×1 convolutions on either side, so that `scaling_factor` is 1 and any
    pipeline reads the model unchanged.
    """
    trained = build()
    Checkpoint(work / "autoencoder.safetensors").load_average(trained)
    weights = trained.state_dict()
    weights["encoder.conv_in.weight"] = weights["encoder.conv_in.weight"].repeat(1, 3, 1, 1) / 3
    for name in ("weight", "bias"):
        last = weights[f"decoder.conv_out.{name}"]
        weights[f"decoder.conv_out.{name}"] = last.repeat(3, *[1] * (last.ndim - 1))
    model = build(channels=3)
    model.load_state_dict(weights)
    latents = model.encode(pictures().expand(-1, 3, -1, -1)).latent_dist.mean
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    into, out, channels = model.quant_conv, model.post_quant_conv, len(mean)
    into.weight[:channels] /= std.view(-1, 1, 1, 1)
    into.bias[:channels] = (into.bias[:channels] - mean) / std
    into.bias[channels:] -= 2 * std.log()
    out.bias += (out.weight[:, :, 0, 0] @ mean).flatten()
    out.weight *= std.view(1, -1, 1, 1)
    model.register_to_config(scaling_factor=1.0)
    return model.eval()


def train(work: Path, device: str, minutes: float) -> None:
    """Train from the checkpoint on."""
    model = build().to(device)
    recipe = Recipe(seed=CONFIG["seed"], **CONFIG["recipe"])
    fit(
        model,
        _loss(model, pictures(), recipe),
        recipe,
        Checkpoint(work / "autoencoder.safetensors"),
        minutes=minutes,
    )


def _loss(model: Any, images: Tensor, recipe: Recipe) -> Callable[[int], Tensor]:
    """L1 + MSE of the reconstruction from the posterior and some noise more, and its divergence
    from the unit Gaussian.

    The noise, of up to `latent_noise` of the latents' standard deviation, prepares the decoder for
    latents that a denoiser drew.
    """

    def loss_at(step: int) -> Tensor:
        generator = recipe.generator(step)
        x = images[recipe.epoch_batch(step, len(images))].to(model.device)
        posterior = model.encode(x).latent_dist
        mean, std = posterior.mean, posterior.std
        amount = (
            CONFIG["latent_noise"]
            * torch.rand(len(x), 1, 1, 1, generator=generator).to(x)
            * mean.detach().std()
        )
        noise = torch.randn(mean.shape, generator=generator).to(x)
        error = model.decode(mean + (std.square() + amount.square()).sqrt() * noise).sample - x
        kl = 0.5 * (mean.square() + posterior.var - 1 - posterior.logvar).mean()
        return (
            error.abs().mean()
            + CONFIG["mse_weight"] * error.square().mean()
            + CONFIG["kl_weight"] * kl
        )

    return loss_at


def main(arguments: Sequence[str] | None = None) -> None:
    """Run this step from the command line."""
    given = options.training("digits", "autoencoder", __doc__).parse_args(arguments)
    train(given.work, given.device, given.minutes)
