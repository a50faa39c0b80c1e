"""The latents of a model's autoencoder: where guidance itself measures distances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from unalike.attach.diffusers.vae import normalised
from unalike.errors import StoreError, UnsupportedError, named
from unalike.extractors.base import Extractor, pretrained
from unalike.extractors.resizing import squared
from unalike.pipelines.catalogue import MODELS
from unalike.pipelines.sources import find


class Latents(Extractor):
    """The means that a model's autoencoder encodes images to, scaled as its denoiser sees them and
    flattened.

    Distances are those of SPELL's radius and of certificates for the same model at the size that
    its autoencoder was trained at.

    Args:
        source: a shipped model, a folder in diffusers' layout, or a hub id; of a pipeline only the
            autoencoder is loaded.
        device, batch_size: as for `Extractor`.

    Raises:
        UnsupportedError: for a pipeline without an autoencoder for images.

    Cost: one pass of the encoder an image: 14 ms on one core with the shipped emoji model.

    Example:
        >>> import torch
        >>> Latents("emoji", device="cpu").features(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 1024])
    """

    name = "latents"
    unit_name = "Euclidean distance of latents"

    def __init__(self, source: str, *, device: str = "auto", batch_size: int = 32) -> None:
        super().__init__(_autoencoder(source), device=device, batch_size=batch_size)
        self.side = int(self.model.config.sample_size)
        self.basis = (
            f"latents of {Path(source).name}'s {type(self.model).__name__} at "
            f"{self.side}×{self.side}, compared by their cosine"
        )
        self.resizing = (
            f"resized to {self.side}×{self.side} (bicubic); other shapes than a square are squeezed"
        )

    def embed(self, images: Tensor) -> Tensor:
        """The latents of the batch, flattened."""
        encoded = self.model.encode(2 * squared(images, self.side) - 1)
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return normalised(self.model, latents).flatten(1)


def _autoencoder(source: str) -> torch.nn.Module:
    if source in MODELS:
        return _autoencoder(str(find(MODELS[source].base or source).place))
    config = pretrained(ModelIndex, source, "latents")
    kind = getattr(diffusers, (config.get("vae") or (None, ""))[1] or "", None)
    if kind is None or not hasattr(kind, "encode"):
        raise UnsupportedError(
            named(
                "{!r} has no autoencoder for images; choose a latent diffusion model, or other "
                "features, as in {features='pixels'}",
                str(source),
            )
        )
    model = pretrained(kind, source, "latents", subfolder="vae", dtype=torch.float32)
    if not isinstance(model.config.get("sample_size"), int):
        raise StoreError(
            f"the autoencoder of {str(source)!r} does not say its sample_size; add it to the "
            "config.json of its vae"
        )
    return model


class ModelIndex:
    """`model_index.json` alone, from wherever a pipeline comes from."""

    @staticmethod
    def from_pretrained(source: str) -> Any:
        """The class of each component of the pipeline."""
        return diffusers.DiffusionPipeline.load_config(source)
