"""Train the emoji denoiser and text encoder: `python -m training emoji denoiser`.

They need the checkpoint of `python -m training emoji autoencoder joint`, whose latents they are
trained on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training import options
from training.emoji import autoencoder
from training.emoji.text import END, START, CaptionSampler, entry_weights, train_tokenizer
from training.loop import Checkpoint, Recipe, fit
from unalike.models.emoji.data import entries, load_images

CONFIG = json.loads((Path(__file__).parent / "train.json").read_text())["denoiser"]


class Denoiser(nn.Module):
    """Text model and U-Net together, so that one optimiser, one average and one checkpoint hold
    both.
    """

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        torch.manual_seed(CONFIG["seed"])
        self.text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=CONFIG["text_width"],
                intermediate_size=4 * CONFIG["text_width"],
                num_hidden_layers=CONFIG["text_layers"],
                num_attention_heads=4,
                max_position_embeddings=CONFIG["text_length"],
                bos_token_id=tokenizer.vocab[START],
                eos_token_id=tokenizer.vocab[END],
                projection_dim=CONFIG["text_width"],
            )
        )
        self.unet: Any = diffusers.UNet2DConditionModel(
            cross_attention_dim=CONFIG["text_width"], sample_size=8, **CONFIG["unet"]
        )
        self.text.set_attn_implementation(
            "eager"
        )  # on sequences this short plain attention trains faster than the fused kernel
        self.unet.set_attn_processor(AttnProcessor())
        self.unet.to(memory_format=torch.channels_last)

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        return self.unet(noisy, timesteps, self.text(tokens).last_hidden_state).sample


def scheduler() -> Any:
    """The noise schedule of training and sampling."""
    return diffusers.DDPMScheduler(**CONFIG["scheduler"])


def frozen_autoencoder(work: Path) -> Any:
    """The autoencoder of the joint stage, or of the decoder stage where that has begun, with
    unit-variance latents.

    The mean and standard deviation of each latent channel over the data are folded into the 1×1
    convolutions on either side, so that `scaling_factor` is 1 and any diffusers pipeline reads the
    model unchanged.
    """
    model = autoencoder.build()
    Checkpoint(work / "autoencoder-joint.safetensors").load_average(model)
    latents = autoencoder.encode(model, load_images().float().div(127.5).sub(1))
    if (decoder := Checkpoint(work / "autoencoder-decoder.safetensors")).path.exists():
        decoder.load_average(model)
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    with torch.no_grad():
        channels = len(mean)
        into, out = model.quant_conv, model.post_quant_conv
        into.weight[:channels] /= std.view(-1, 1, 1, 1)
        into.bias[:channels] = (into.bias[:channels] - mean) / std
        into.bias[channels:] -= 2 * std.log()
        out.bias += (out.weight[:, :, 0, 0] @ mean).flatten()
        out.weight *= std.view(1, -1, 1, 1)
    model.register_to_config(scaling_factor=1.0)
    return model.eval()


@torch.no_grad()
def cached_latents(work: Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents of all images."""
    model = frozen_autoencoder(work)
    images = load_images().float().div(127.5).sub(1)
    posteriors = [
        model.encode(x.contiguous(memory_format=torch.channels_last)).latent_dist
        for x in images.split(64)
    ]
    return torch.cat([p.mean for p in posteriors]), torch.cat([p.std for p in posteriors])


def train(work: Path, device: str, minutes: float) -> None:
    """Train from the checkpoint on."""
    folder = (
        work / "tokenizer"
    )  # learnt once: between equally frequent pairs the order of merges is not the same each time
    if (folder / "vocab.json").exists():
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    else:
        tokenizer = train_tokenizer(
            folder, vocabulary=CONFIG["vocabulary"], length=CONFIG["text_length"]
        )
    recipe = Recipe(seed=CONFIG["seed"], **CONFIG["recipe"])
    model = Denoiser(tokenizer).to(device)
    loss_at = _loss(model, tokenizer, cached_latents(work), recipe)
    fit(model, loss_at, recipe, Checkpoint(work / "denoiser.safetensors"), minutes=minutes)


def _loss(
    model: Denoiser, tokenizer: CLIPTokenizer, latents: tuple[Tensor, Tensor], recipe: Recipe
) -> Callable[[int], Tensor]:
    """Mean squared error of the predicted velocity, with captions, latents, noise and noise levels
    drawn afresh at each step.
    """
    sampler = CaptionSampler(CONFIG["captions"])
    tokens = tokenizer(
        sampler.all_texts, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    image_of = torch.tensor([entry.image for entry in entries()])
    noise_schedule, weights, (mean, std) = scheduler(), entry_weights(**CONFIG["weights"]), latents
    levels, batch, device = (
        noise_schedule.config["num_train_timesteps"],
        recipe.batch,
        next(model.parameters()).device,
    )

    def loss_at(step: int) -> Tensor:
        generator = recipe.generator(step)
        chosen = torch.multinomial(weights, batch, replacement=True, generator=generator)
        text = tokens[sampler.draw(chosen, generator)].to(device)
        image = image_of[chosen]
        x0 = mean[image] + std[image] * torch.randn(mean[image].shape, generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        spread = (
            torch.arange(batch) + torch.rand(batch, generator=generator)
        ) / batch  # stratified: every batch sees all noise levels
        timesteps = (spread ** CONFIG["noise_skew"] * levels).long()
        noisy = (
            noise_schedule.add_noise(x0, noise, timesteps)
            .to(device)
            .contiguous(memory_format=torch.channels_last)
        )
        target = noise_schedule.get_velocity(x0, noise, timesteps).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            velocity = model(noisy, timesteps.to(device), text)
        return (velocity.float() - target).square().mean()

    return loss_at


def main(arguments: Sequence[str] | None = None) -> None:
    """Run this step from the command line."""
    given = options.training("emoji", "denoiser", __doc__).parse_args(arguments)
    train(given.work, given.device, given.minutes)
