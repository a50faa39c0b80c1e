"""Names for the spaces that latents and prompt embeddings live in, so that vectors of different models are never compared."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import diffusers
import torch
from torch import Tensor

from unalike.errors import UnsupportedError

_SAMPLED = 64


def latent_model(pipe: Any) -> str:
    """The autoencoder that the pipeline's latents belong to: its class and a fingerprint; "pixels" where there is none.

    A number follows where the scheduler's latents are that many times those of other pipelines with this autoencoder.
    """
    vae, scale = autoencoder(pipe)[1], latent_scale(pipe)
    own = "pixels" if vae is None else f"{type(vae).__name__}-{fingerprint(vae)}"
    return own if scale == 1 else f"{own}-x{scale:g}"


def prompt_model(pipe: Any, encoder: Any = None) -> str:
    """What embeds the prompts: the given encoder by its name, else the pipeline's text encoders by their fingerprints."""
    if encoder is not None:
        return getattr(encoder, "__qualname__", type(encoder).__qualname__)
    names = sorted(name for name in getattr(pipe, "components", {}) if name.startswith("text_encoder") or name == "bert")
    parts = [fingerprint(getattr(pipe, name)) for name in names if getattr(pipe, name) is not None]
    return "text-" + "-".join(parts) if parts else "labels"


def embedding_model(embed: Any) -> str:
    """What embeds images: the fingerprint of an extractor; of a function its name, and of a network its class and fingerprint.

    Example:
        >>> def brightness(images): ...
        >>> embedding_model(brightness)
        'brightness'
    """
    own = getattr(embed, "fingerprint", None)
    if isinstance(own, str):
        return own
    if isinstance(embed, torch.nn.Module):
        return f"{type(embed).__name__}-{fingerprint(embed)}"
    return getattr(embed, "__qualname__", type(embed).__qualname__)


def latent_space(model: str, shape: tuple[int, ...]) -> str:
    """The name of a latent space: the model's and the shape of one sample, such as `AutoencoderKL-1c0ffee5/4x64x64`."""
    return f"{model}/{'x'.join(str(n) for n in shape)}"


def memory_space(latent: str, prompts: str, size: int | None) -> str:
    """The name of a latent space together with that of the prompt embeddings of this size."""
    return f"{latent} {prompts}/{size or 0}"


def fingerprint(module: torch.nn.Module) -> str:
    """Ten hexadecimal digits that tell a model's configuration and weights from any other's.

    Of each weight matrix the signs of its first 64 numbers are read: they are the same on every device and in every precision.

    Raises:
        UnsupportedError: when the weights are not in memory.
    """
    config = getattr(module, "config", None)
    plain = config.to_dict() if config is not None and hasattr(config, "to_dict") else dict(config or {})
    settings = {k: v for k, v in plain.items() if not k.startswith("_") and k not in ("torch_dtype", "dtype", "transformers_version")}
    digest = hashlib.sha256(type(module).__name__.encode() + json.dumps(settings, sort_keys=True, default=str).encode())
    weights = [(name, p) for name, p in sorted(module.named_parameters()) if p.ndim >= 2]
    missing = [name for name, p in weights if p.is_meta]
    if missing:
        raise UnsupportedError(
            f"the weights of {type(module).__name__} are not in memory ({missing[0]} is on the meta device); "
            "call guide(pipe, …) first and pipe.enable_sequential_cpu_offload() after it"
        )
    for device in {p.device for _, p in weights}:
        signs = torch.cat([_signs(p) for _, p in weights if p.device == device])
        digest.update(bytes(signs.to(torch.uint8).cpu().tolist()))
    return digest.hexdigest()[:10]


def _signs(weight: Tensor) -> Tensor:
    return torch.signbit(weight.detach()[tuple(0 for _ in range(weight.ndim - 1))][:_SAMPLED])


def autoencoder(pipe: Any) -> tuple[str, Any]:
    """The name and the module of the pipeline's autoencoder; an empty name and None where there is none."""
    for name in ("vae", "vqvae", "vqgan", "movq"):
        module = getattr(pipe, "components", {}).get(name) or getattr(pipe, name, None)
        if module is not None:
            return name, module
    return "", None


def latent_scale(pipe: Any) -> float:
    """What the scheduler's latents are multiples of, in units of those that the autoencoder's own scaling gives: σ_data of SCM, or 1."""
    scheduler: Any = getattr(pipe, "scheduler", None)
    return float(scheduler.config.sigma_data) if issubclass(type(scheduler), diffusers.SCMScheduler) else 1.0
