"""Train the digits denoiser: `python -m training digits denoiser`.

It needs the checkpoint of `python -m training digits autoencoder`, whose latents it is trained on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.embeddings import LabelEmbedding
from torch import Tensor

from training import options
from training.digits.autoencoder import frozen, pictures
from training.loop import Checkpoint, Recipe, fit
from unalike.models.digits.data import CLASSES, load_labels

CONFIG = json.loads((Path(__file__).parent / "train.json").read_text("utf-8"))["denoiser"]
NULL = 1000
"""The label of no class; DiTPipeline has this number built in, so that the tables of labels need
1,001 rows.
"""


def build() -> Any:
    """The untrained transformer in the shipped shape, blocks and output beginning at zero (Peebles
    and Xie 2023, arXiv:2212.09748).
    """
    torch.manual_seed(CONFIG["seed"])
    model: Any = diffusers.DiTTransformer2DModel(**CONFIG["transformer"])
    with torch.no_grad():
        for block in model.transformer_blocks:
            block.norm1.linear.weight.zero_()
            block.norm1.linear.bias.zero_()
            block.attn1.set_processor(
                AttnProcessor()
            )  # on 16 tokens plain attention trains twice as fast as the fused kernel
        for layer in (model.proj_out_1, model.proj_out_2):
            layer.weight.zero_()
            layer.bias.zero_()
        for part in model.modules():
            if isinstance(part, LabelEmbedding):
                part.embedding_table.weight.mul_(0.02)
                part.embedding_table.weight[CLASSES:NULL] = 0  # labels that do not exist
    return (
        model.eval()
    )  # so that the label embedding drops none by itself, from the global generator


def scheduler() -> Any:
    """The noise schedule of training and sampling."""
    return diffusers.DDIMScheduler(
        **CONFIG["scheduler"], set_alpha_to_one=True, timestep_spacing="trailing"
    )


class Variational:
    """The variational bound on the learned variance, level by level, for given noise and its
    prediction.

    `v` in [-1, 1] places the logarithm of the variance between that of the posterior, β̃, and that
    of the noise, β. At level `t ≥ 1` the term is `KL(q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t))`, at
    level 0 the negative log-density of `x0`, in nats and averaged over a sample. Source: Nichol and
    Dhariwal 2021, equations 15 and 16 (arXiv:2102.09672); they take the probability of a pixel at
    level 0.
    """

    def __init__(self, alphas_cumprod: Tensor) -> None:
        before = torch.cat([torch.ones(1, dtype=alphas_cumprod.dtype), alphas_cumprod[:-1]])
        beta = 1 - alphas_cumprod / before
        posterior = beta * (1 - before) / (1 - alphas_cumprod)
        posterior[0] = posterior[1]  # that of level 0 is zero
        self._log_posterior, self._log_beta = posterior.log(), beta.log()
        # The posterior's mean is `c (x_t - w noise)` with the true noise, and the model's the same
        # with the predicted one.
        self._noise_in_mean = beta / ((1 - alphas_cumprod).sqrt() * (1 - beta).sqrt())

    def term(self, noise: Tensor, predicted: Tensor, v: Tensor, timesteps: Tensor) -> Tensor:
        """The terms (n,) for predictions (n, c, h, w) at levels (n,)."""
        share = (v + 1) / 2
        low, high, weight = (
            values.to(v)[timesteps].view(-1, 1, 1, 1)
            for values in (self._log_posterior, self._log_beta, self._noise_in_mean)
        )
        logvar = share * high + (1 - share) * low
        squared = (weight * (noise - predicted)).square()
        kl = 0.5 * (logvar - low - 1 + (low - logvar).exp() + squared * (-logvar).exp())
        density = 0.5 * (math.log(2 * math.pi) + logvar + squared * (-logvar).exp())
        return torch.where(timesteps.view(-1, 1, 1, 1) == 0, density, kl).flatten(1).mean(1)


@torch.no_grad()
def cached_latents(work: Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents of all images, (1797, 4, 8, 8) each."""
    posterior = frozen(work).encode(pictures().expand(-1, 3, -1, -1)).latent_dist
    return posterior.mean, posterior.std


def train(work: Path, device: str, minutes: float) -> None:
    """Train from the checkpoint on."""
    model = build().to(device)
    recipe = Recipe(seed=CONFIG["seed"], **CONFIG["recipe"])
    loss_at = _loss(model, cached_latents(work), recipe)
    fit(model, loss_at, recipe, Checkpoint(work / "denoiser.safetensors"), minutes=minutes)


def _loss(model: Any, latents: tuple[Tensor, Tensor], recipe: Recipe) -> Callable[[int], Tensor]:
    """The hybrid loss: mean squared error of the noise, and a little of the bound, which trains the
    variance alone.
    """
    labels, (mean, std) = load_labels(), latents
    noise_schedule = scheduler()
    bound = Variational(noise_schedule.alphas_cumprod.double())
    levels, batch, device = noise_schedule.config["num_train_timesteps"], recipe.batch, model.device
    weight = CONFIG["variance_weight"] * levels

    def loss_at(step: int) -> Tensor:
        generator = recipe.generator(step)
        chosen = recipe.epoch_batch(step, len(labels))
        unlabelled = torch.rand(batch, generator=generator) < CONFIG["unlabelled"]
        label = torch.where(unlabelled, NULL, labels[chosen])
        x0 = mean[chosen] + std[chosen] * torch.randn(mean[chosen].shape, generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        spread = (
            torch.randperm(batch, generator=generator) + torch.rand(batch, generator=generator)
        ) / batch  # every batch has all levels
        timesteps = (spread * levels).long()
        noisy, noise = noise_schedule.add_noise(x0, noise, timesteps).to(device), noise.to(device)
        with torch.autocast(device.type, torch.bfloat16):
            output = model(
                noisy, timestep=timesteps.to(device), class_labels=label.to(device)
            ).sample
        predicted, v = output.float().chunk(2, dim=1)
        variance = bound.term(noise, predicted.detach(), v, timesteps.to(device)).mean()
        return (predicted - noise).square().mean() + weight * variance

    return loss_at


def main(arguments: Sequence[str] | None = None) -> None:
    """Run this step from the command line."""
    given = options.training("digits", "denoiser", __doc__).parse_args(arguments)
    train(given.work, given.device, given.minutes)
