"""Encoders of images into the points of a protected set: latents of a model, or features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from PIL import Image
from torch import Tensor

from unalike.attach.diffusers.host import Host
from unalike.attach.diffusers.vae import encode_images
from unalike.attach.spaces import latent_model, latent_space
from unalike.errors import OptionError, StoreError, named
from unalike.extractors import extractor
from unalike.extractors.base import torch_device
from unalike.extractors.table import portable
from unalike.pipelines.loading import load
from unalike.runs.shield.settings import LATENT
from unalike.shields.manifest import Manifest


class Encoder(Protocol):
    """Encodes images as points.

    Attributes:
        space: names the space of the points.
        shape: of one point.
        size: height and width that images are resized to; None where the features do that by
            themselves.
        embedding: the spelling of the features, a folder in it by its own name alone; None for
            latents.
        copy_distance, copy_errors: below which two points are those of copies, and how often that
            is wrong; None where that is not known.
    """

    space: str
    shape: tuple[int, ...]
    size: tuple[int, int] | None
    embedding: str | None
    copy_distance: float | None
    copy_errors: str | None

    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        """The points (m, …) float32 of images of any sizes, at least one."""
        ...


class LatentEncoder:
    """The latents of a model, of images resized to one size.

    Args:
        model: as `load` takes it; of the pipeline only the autoencoder is moved to the device.
        size: height and width; None for the size that the model draws.
        device: "auto", or a device of torch.
    """

    embedding: str | None = None
    copy_distance: float | None = None
    copy_errors: str | None = None

    def __init__(
        self, model: str, *, size: tuple[int, int] | None = None, device: str = "auto"
    ) -> None:
        self._pipe: Any = load(model)
        self.size: tuple[int, int] | None = Host(self._pipe).image_size(size)
        vae = Host(self._pipe).part("vae")
        if vae is not None:
            vae.to(torch_device(device))
        self.shape: tuple[int, ...] = tuple(self.encode([Image.new("RGB", (64, 64))]).shape[1:])
        self.space = latent_space(latent_model(self._pipe), self.shape)

    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        """The latents (m, …) of the images."""
        return encode_images(self._pipe, images, size=self.size).float().cpu()


class FeatureEncoder:
    """Features of images.

    Args:
        name: as `extractor` takes it.
        device, batch_size: likewise.
    """

    size: tuple[int, int] | None = None

    def __init__(self, name: str, *, device: str = "auto", batch_size: int = 32) -> None:
        self._extractor = extractor(name, device=device, batch_size=batch_size)
        self.embedding: str | None = portable(name)
        self.copy_distance: float | None = self._extractor.copy_distance
        self.copy_errors: str | None = self._extractor.copy_errors
        self.shape: tuple[int, ...] = tuple(self.encode([Image.new("RGB", (64, 64))]).shape[1:])
        self.space = f"{self._extractor.fingerprint}/{self.shape[0]}"

    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        """The features (m, d) of the images; those of one size are embedded together."""
        return self._extractor.of_images(list(images))


def open_encoder(
    space: str,
    model: str | None,
    *,
    size: tuple[int, int] | None = None,
    device: str = "auto",
    batch_size: int = 32,
) -> Encoder:
    """The encoder into a space, its network loaded.

    Args:
        space: "latent", or the spelling of features.
        model: whose latents, for "latent".
        size, device, batch_size: as above.

    Raises:
        OptionError: for a model, size or device that is not to be had.
        StoreError: for files of a model that cannot be loaded.
        UnsupportedError: for a model without an autoencoder, and for a package that is missing.
    """
    if space != LATENT:
        return FeatureEncoder(space, device=device, batch_size=batch_size)
    if model is None:
        raise OptionError(
            named(
                "{model} is missing: the set is one of latents; name the model that they are of, "
                "as in {model='emoji'}"
            )
        )
    return LatentEncoder(model, size=size, device=device)


def encoder_of(
    manifest: Manifest, model: str | None, space: str | None, *, device: str, batch_size: int
) -> Encoder:
    """The encoder into the space of a protected set.

    Args:
        manifest: of the set.
        model: whose latents, where it is one of latents.
        space: another spelling of its features, with a folder that they are in; None for its own.
        device, batch_size: as above.

    Raises:
        OptionError: for a model or features that are not needed or missing.
        StoreError: where they make points of another space than the set's.
    """
    own = manifest.embedding or LATENT
    if space is not None and (space.partition(":")[0] != own.partition(":")[0]):
        raise OptionError(
            named("{space} is {!r}, and the set is one of {}; leave it out", space, own)
        )
    if model is not None and own != LATENT:
        raise OptionError(
            named(
                "{model} is {!r}, and the set is one of {}, which needs none; leave it out",
                model,
                own,
            )
        )
    encoder = open_encoder(
        space or own, model, size=manifest.size, device=device, batch_size=batch_size
    )
    if encoder.space != manifest.space:
        what = f"the model {model!r}" if own == LATENT else repr(space or own)
        raise StoreError(
            f"the set protects {manifest.space!r} and {what} makes {encoder.space!r}; give the "
            "one that it was built with"
        )
    return encoder
