"""Names for the spaces that latents and prompt embeddings live in, so that vectors of different
models are never compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from unalike.attach.diffusers.host import Host
from unalike.fingerprint import fingerprint


def latent_model(pipe: Any) -> str:
    """The autoencoder that the pipeline's latents belong to: its class and a fingerprint; "pixels"
    where there is none.

    A number follows where the scheduler's latents are that many times those of other pipelines with
    this autoencoder.
    """
    vae, scale = Host(pipe).autoencoder[1], Host(pipe).latent_scale
    own = "pixels" if vae is None else f"{type(vae).__name__}-{fingerprint(vae)}"
    return own if scale == 1 else f"{own}-x{scale:g}"


def prompt_model(pipe: Any, encoder: Any = None) -> str:
    """Name the model that embeds the prompts.

    That is the given encoder (see `embedding_model`), else the pipeline's text encoders by their
    fingerprints.
    """
    if encoder is not None:
        return embedding_model(encoder)
    named = sorted(Host(pipe).prompt_parts.items())
    parts = [fingerprint(part) for _, part in named if part is not None]
    return "text-" + "-".join(parts) if parts else "labels"


def embedding_model(embed: Any) -> str:
    """Name the model that embeds images or prompts.

    For an extractor its fingerprint, for a function its name, for a network its class and
    fingerprint.

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


@dataclass(frozen=True)
class Space:
    """The space of latents or feature vectors, and with a memory that of its prompt embeddings.

    `str` writes the name that files keep, such as `AutoencoderKL-1c0ffee5/4x64x64 text-0ddba11/16`.

    Args:
        model: what makes the vectors.
        size: of one of them, such as "4x64x64".
        prompts: what embeds the prompts; empty where prompts are no part of the space.
        prompt_size: of an embedding, "0" where there are none.

    Example:
        >>> space = Space.parse("AutoencoderKL-1c0ffee5/4x64x64 labels/10")
        >>> space.model, space.size, space.prompts, str(space.of_latents)
        ('AutoencoderKL-1c0ffee5', '4x64x64', 'labels', 'AutoencoderKL-1c0ffee5/4x64x64')
    """

    model: str
    size: str
    prompts: str = ""
    prompt_size: str = ""

    @classmethod
    def parse(cls, name: str) -> Space:
        """The space of a name; a model's own name may have slashes."""
        latents, _, prompts = name.partition(" ")
        model, _, size = latents.rpartition("/")
        encoder, _, prompt_size = prompts.rpartition("/")
        return cls(model, size, encoder, prompt_size)

    @property
    def of_latents(self) -> Space:
        """The same without the prompts."""
        return Space(self.model, self.size)

    def __str__(self) -> str:
        own = f"{self.model}/{self.size}"
        return f"{own} {self.prompts}/{self.prompt_size}" if self.prompts else own


def latent_space(model: str, shape: tuple[int, ...]) -> str:
    """The name of a latent space: the model's and the shape of one sample, such as
    `AutoencoderKL-1c0ffee5/4x64x64`.
    """
    return str(Space(model, "x".join(str(n) for n in shape)))


def memory_space(latent: str, prompts: str, size: int | None) -> str:
    """The name of a latent space together with that of the prompt embeddings of this size."""
    return f"{latent} {prompts}/{size or 0}"
