"""Train the transformer of `emoji-flow`: `python -m training emoji-flow denoiser`.

It is a rectified flow (Liu, Gong and Liu 2022, arXiv:2209.03003; Esser et al. 2024,
arXiv:2403.03206) on the latents and the frozen text model of the shipped `emoji`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor, nn
from torch.nn import functional

from training import options
from training.emoji.text import CaptionSampler, entry_weights
from training.loop import Checkpoint, Recipe, fit
from unalike.models.emoji.data import entries, load_images
from unalike.pipelines import load
from unalike.pipelines.flow_parts import flow_parts

CONFIG = json.loads((Path(__file__).parent / "train.json").read_text())


def build() -> Any:
    """The transformer before training: each block passes its input on, and the output is 0."""
    torch.manual_seed(CONFIG["seed"])
    model: Any = diffusers.SD3Transformer2DModel(**CONFIG["transformer"])
    for block in model.transformer_blocks:
        for norm in (block.norm1, block.norm1_context):
            nn.init.zeros_(norm.linear.weight)
            nn.init.zeros_(norm.linear.bias)
    for layer in (model.norm_out.linear, model.proj_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


def scheduler() -> Any:
    """The sampler of the trained model."""
    return diffusers.FlowMatchEulerDiscreteScheduler()


class CountedBlank:
    """Joint attention whose last text token stands for `count` equal ones.

    Stable Diffusion 3 appends the tokens of a second text model, which are all 0 where there is
    none: 256 by default. Text tokens have no position, so that equal tokens stay equal, and one of
    them whose score is raised by `log count` has the effect of all.
    """

    count = 1

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        image = hidden_states.shape[1]
        parts = [
            (
                attn.norm_q(_heads(attn, attn.to_q(hidden_states))),
                attn.norm_k(_heads(attn, attn.to_k(hidden_states))),
                _heads(attn, attn.to_v(hidden_states)),
            ),
            (
                attn.norm_added_q(_heads(attn, attn.add_q_proj(encoder_hidden_states))),
                attn.norm_added_k(_heads(attn, attn.add_k_proj(encoder_hidden_states))),
                _heads(attn, attn.add_v_proj(encoder_hidden_states)),
            ),
        ]
        query, key, value = (torch.cat(pair, dim=2) for pair in zip(*parts, strict=True))
        bias = torch.zeros(1, 1, 1, key.shape[2])
        bias[..., -1] = math.log(self.count)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        mixed = mixed.transpose(1, 2).flatten(2)
        text = mixed[:, image:]
        if not attn.context_pre_only:
            text = attn.to_add_out(text)
        return attn.to_out[0](mixed[:, :image]), text


def _heads(attn: Any, x: Tensor) -> Tensor:
    return x.unflatten(2, (attn.heads, -1)).transpose(1, 2)


class Texts:
    """What the pipeline makes of each caption: token features (n, tokens, 256), with one blank
    token at the end, and a pooled vector (n, 256).
    """

    def __init__(self, captions: Sequence[str]) -> None:
        pipeline: Any = diffusers.StableDiffusion3Pipeline
        pipe = pipeline(transformer=build(), scheduler=scheduler(), **flow_parts(load("emoji")))
        with torch.no_grad():
            parts = [
                pipe.encode_prompt(
                    list(captions[i : i + 256]),
                    None,
                    None,
                    max_sequence_length=1,
                    do_classifier_free_guidance=False,
                )
                for i in range(0, len(captions), 256)
            ]
        self.tokens = torch.cat([part[0] for part in parts])
        self.pooled = torch.cat([part[2] for part in parts])


@torch.no_grad()
def cached_latents() -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents of all images."""
    vae = load("emoji").vae
    posteriors = [
        vae.encode(x.contiguous(memory_format=torch.channels_last)).latent_dist
        for x in load_images().float().div(127.5).sub(1).split(64)
    ]
    return torch.cat([p.mean for p in posteriors]), torch.cat([p.std for p in posteriors])


def train(work: Path, device: str, minutes: float) -> None:
    """Train from the checkpoint on."""
    recipe = Recipe(seed=CONFIG["seed"], **CONFIG["recipe"])
    model, checkpoint = build().to(device), Checkpoint(work / "denoiser.safetensors")
    fit(model, _loss(model, recipe), recipe, checkpoint, minutes=minutes)


def _loss(model: Any, recipe: Recipe) -> Callable[[int], Tensor]:
    """Mean squared error of the predicted velocity `noise - x0`, with captions, latents, noise and
    noise levels drawn afresh at each step.
    """
    sampler = CaptionSampler(CONFIG["captions"])
    texts, (mean, std) = Texts(sampler.all_texts), cached_latents()
    image_of = torch.tensor([entry.image for entry in entries()])
    weights, batch = entry_weights(**CONFIG["weights"]), recipe.batch
    device = next(model.parameters()).device
    blank = CountedBlank()
    for block in model.transformer_blocks:
        block.attn.set_processor(blank)
    normal = torch.distributions.Normal(0.0, 1.0)

    def loss_at(step: int) -> Tensor:
        generator = recipe.generator(step)
        chosen = torch.multinomial(weights, batch, replacement=True, generator=generator)
        caption, image = sampler.draw(chosen, generator), image_of[chosen]
        x0 = mean[image] + std[image] * torch.randn(mean[image].shape, generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        spread = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
        # stratified: every batch sees all noise levels
        t = torch.sigmoid(
            CONFIG["noise"]["mean"]
            + CONFIG["noise"]["std"] * normal.icdf(spread.clamp(1e-4, 1 - 1e-4))
        )
        at = t.view(-1, 1, 1, 1)
        blank.count = CONFIG["blanks"][step % len(CONFIG["blanks"])]
        velocity = model(
            hidden_states=((1 - at) * x0 + at * noise).to(device),
            timestep=(1000 * t).to(device),
            encoder_hidden_states=texts.tokens[caption].to(device),
            pooled_projections=texts.pooled[caption].to(device),
        ).sample
        return (velocity.float() - (noise - x0).to(device)).square().mean()

    return loss_at


def main(arguments: Sequence[str] | None = None) -> None:
    """Run this step from the command line."""
    given = options.training("emoji-flow", "denoiser", __doc__).parse_args(arguments)
    train(given.work, given.device, given.minutes)
