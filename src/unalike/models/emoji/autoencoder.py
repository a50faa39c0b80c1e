"""Training of the emoji autoencoder: the whole of it first, then the decoder alone on the frozen encoder's latents.

`python -m unalike.models.emoji.autoencoder joint --work DIR` and then `… decoder --work DIR`; both resume. The second stage leaves
the latents as they are, so the denoiser can be trained before, between or after.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from unalike.models.emoji.data import load_images
from unalike.models.training import Checkpoint, WeightAverage, cosine_lr, epoch_order, step_generator

CONFIG = json.loads((Path(__file__).parent / "train.json").read_text())["autoencoder"]


def build() -> AutoencoderKL:
    """The untrained autoencoder in the shipped shape."""
    torch.manual_seed(CONFIG["seed"])
    channels = CONFIG["block_out_channels"]
    model = AutoencoderKL(
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
    with torch.no_grad():  # begin nearly deterministic: at the default variance of 1 the posterior collapses within a hundred steps
        model.quant_conv.bias[CONFIG["latent_channels"] :] = CONFIG["initial_logvar"]
    return model.to(memory_format=torch.channels_last)


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images in [-1, 1], from the mean squared error over all of them."""
    return float(-10 * torch.log10(((a.clamp(-1, 1) - b) / 2).pow(2).mean()))


def reconstruction_loss(y: Tensor, x: Tensor) -> Tensor:
    """L1 + MSE + L1 of the horizontal and vertical differences, for images in [-1, 1]."""
    error = y - x
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean() + CONFIG["mse_weight"] * error.pow(2).mean() + CONFIG["edge_weight"] * edges


@torch.no_grad()
def encode(model: AutoencoderKL, images: Tensor, batch: int = 64) -> Tensor:
    """Posterior means (n, channels, 8, 8) of images (n, 3, 64, 64) in [-1, 1], not yet scaled by `scaling_factor`."""
    return torch.cat([model.encode(x.contiguous(memory_format=torch.channels_last)).latent_dist.mean for x in images.split(batch)])


def train(stage: str, work: Path, device: str, minutes: float) -> None:
    settings = CONFIG[stage]
    torch.set_flush_denormal(True)  # denormal activations and moments slow a CPU step several times
    images = load_images().float().div(127.5).sub(1)
    model = build().to(device)
    average = WeightAverage(model, settings["ema"])
    if stage == "decoder":
        start = Checkpoint(work / "autoencoder-joint.safetensors")
        if not start.path.exists():
            raise SystemExit(f"{start.path} is missing: run the joint stage first")
        start.load(model, average, torch.optim.AdamW(model.parameters()))
        average.copy_to(model)
        latents = encode(model, images.to(device))
        noise = settings["latent_noise"] * latents.std()
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings["lr"], betas=(0.9, 0.99), weight_decay=0.0)
    checkpoint = Checkpoint(work / f"autoencoder-{stage}.safetensors")
    step = checkpoint.load(model, average, optimizer)
    begun, total, batch, error = time.monotonic(), settings["steps"], settings["batch"], 0.0
    for index in epoch_order(len(images), seed=CONFIG["seed"], start=step, batch=batch):
        out_of_time = time.monotonic() - begun > 60 * minutes
        if step % 250 == 0 or step >= total or out_of_time:
            checkpoint.save(model, average, optimizer, step, {"psnr": error})
        if step >= total or out_of_time:
            break
        generator = step_generator(CONFIG["seed"], step)
        x = images[index].to(device).contiguous(memory_format=torch.channels_last)
        for group in optimizer.param_groups:
            group["lr"] = cosine_lr(step, total=total, peak=settings["lr"], warmup=settings["warmup"])
        with torch.autocast(device, torch.bfloat16):
            if stage == "joint":
                posterior = model.encode(x).latent_dist
                z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator).to(device)
                kl = 0.5 * (posterior.mean.float().pow(2) + posterior.var.float() - 1 - posterior.logvar.float()).mean()
            else:
                amount = torch.rand((len(index), 1, 1, 1), generator=generator)
                z = latents[index] + noise * (amount * torch.randn(latents[index].shape, generator=generator)).to(device)
                kl = torch.zeros((), device=device)
            y = model.decode(z).sample.float()
        loss = reconstruction_loss(y, x) + CONFIG["kl_weight"] * kl
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        average.update(model, step)
        step += 1
        error = 0.98 * error + 0.02 * psnr(y.detach(), x) if error else psnr(y.detach(), x)
        if step % 50 == 0:
            rate = batch * 50 / max(1e-9, time.monotonic() - stamp) if step > 50 and "stamp" in locals() else 0.0
            stamp = time.monotonic()
            print(
                f"{stage} step {step}/{total} loss {loss.item():.4f} kl {kl.item():.2f} psnr {error:.2f} dB {rate:.1f} images/s", flush=True
            )
    average.copy_to(model)
    evaluate(model, images)


@torch.no_grad()
def evaluate(model: AutoencoderKL, images: Tensor) -> float:
    """Print and return the PSNR of encoding (posterior mean) and decoding all images."""
    device = next(model.parameters()).device
    outputs = [model.decode(encode(model, x.to(device))).sample.cpu() for x in images.split(64)]
    value = psnr(torch.cat(outputs), images)
    print(f"PSNR of the averaged weights over {len(images)} images: {value:.2f} dB", flush=True)
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["joint", "decoder"])
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop, with a checkpoint, after this long")
    arguments = parser.parse_args()
    train(arguments.stage, arguments.work, arguments.device, arguments.minutes)


if __name__ == "__main__":
    main()
