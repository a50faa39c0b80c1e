"""Encode images into scheduler-space latents."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import get_module_execution_device
from torch import Tensor

from unalike.attach.diffusers.host import Host
from unalike.attach.spaces import latent_model, latent_space
from unalike.errors import OptionError, UnsupportedError
from unalike.extractors.base import Extractor
from unalike.extractors.table import EXTRACTORS
from unalike.images import read_all
from unalike.shields import Shield

_BATCH = 8


def encode_images(pipe: Any, images: Any, *, size: tuple[int, int] | None = None) -> Tensor:
    """The clean latents (m, …) of images, in the form that the pipeline's scheduler sees: scaled,
    shifted and packed as it does.

    The encoder's mode, not a sample, so the same image always has the same latent. One in half
    precision encodes in float32 all the same: some overflow in float16, and the distances of an
    image should not depend on where they are measured. In a pipeline without an autoencoder the
    latents are the image itself, from -1 to 1.

    Args:
        pipe: a diffusers pipeline for images.
        images: paths, PIL images, arrays or tensors, read as `unalike.images` says, or a tensor (m,
            3, H, W) in [0, 1].
        size: height and width to resize to; that of the images to be generated. As they are unless
            given.

    Raises:
        OptionError: for no images, images of different sizes, and those that cannot be read.
        UnsupportedError: for a pipeline without such an autoencoder, or with latents packed in an
            unknown way.

    Cost: one pass of the encoder, 8 images at a time.
    """
    name, vae = Host(pipe).autoencoder
    if vae is None and Host(pipe).part("scheduler") is not None:
        return _pixels(pipe, images, size)
    if vae is None or not hasattr(vae, "encode") or name == "vqgan":
        raise UnsupportedError(
            f"{type(pipe).__name__} has no vae with an encoder known here, so images cannot be "
            "turned into its latents; give latents"
        )
    if Host(pipe).draws_videos or "audio_channels" in vae.config:
        raise UnsupportedError(
            f"{type(pipe).__name__} makes videos or sounds, whose latents cannot be had from "
            "images; give latents as its scheduler sees "
            "them, such as guided.latents of an earlier call"
        )
    pixels = _pixels(pipe, images, size)
    own, device = (
        vae.dtype,
        get_module_execution_device(vae),
    )  # where it runs, which with offloading is not where its weights are
    here = not any(p.is_meta for p in vae.parameters())
    upcast = (
        here
        and {p.dtype for p in vae.parameters()} == {own}
        and own in (torch.float16, torch.bfloat16)
    )
    try:
        if upcast:
            vae.to(dtype=torch.float32)
        with torch.no_grad():
            parts = [
                _latents(pipe, vae, part.to(device=device, dtype=vae.dtype))
                for part in pixels.split(_BATCH)
            ]
    finally:
        if upcast:
            vae.to(dtype=own)
        # an offloaded autoencoder would stay where it ran, beside the next denoiser
        Host(pipe).free_models()
    return torch.cat(parts)


def shield_from_images(
    pipe: Any,
    images: Any,
    radius: float | str,
    *,
    ids: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
) -> Shield:
    """A shield around images, for pipelines with this one's autoencoder, or in the space of an
    extractor, for any pipeline.

    Args:
        pipe: a diffusers pipeline; its autoencoder encodes the images. Or an extractor of
            `unalike.extractors`, to be given to `guide` as `embed` too.
        images: the protected ones, as `encode_images` takes them.
        radius: in the units of the latents or features, or "auto": the distance of copies where the
            extractor knows it, else measured on the set.
        ids: a name for each, to appear in certificates.
        size: height and width to resize to; that of the images to be generated. An extractor
            resizes images by itself.

    Raises:
        OptionError: for no images, images of different sizes, or a radius that is not above 0.
        UnsupportedError: as `encode_images`.
    """
    if isinstance(pipe, Extractor):
        return _shield_of_features(pipe, images, radius, ids, size)
    latents = encode_images(pipe, images, size=size).float()
    return Shield(
        latents,
        space=latent_space(latent_model(pipe), tuple(latents.shape[1:])),
        radius=radius,
        ids=ids,
    )


def _shield_of_features(
    extractor: Extractor,
    images: Any,
    radius: float | str,
    ids: Sequence[str] | None,
    size: tuple[int, int] | None,
) -> Shield:
    if size is not None:
        raise OptionError(
            f"size is {size}, and the extractor {extractor.name!r} resizes images by itself; leave "
            "it out"
        )
    features = extractor.of_images(images)
    space = f"{extractor.fingerprint}/{features.shape[1]}"
    known = extractor.copy_distance if radius == "auto" else None
    shield = Shield(features, space=space, radius=known or radius, ids=ids)
    if not EXTRACTORS[extractor.name].named:  # else its source is not known here
        shield.embedding = extractor.name
    return shield


def _pixels(pipe: Any, images: Any, size: tuple[int, int] | None) -> Tensor:
    given = read_all(images)
    sizes = {image.size for image in given} if isinstance(given, list) else set()
    if len(sizes) > 1 and size is None:
        raise OptionError(
            f"images have {len(sizes)} different sizes; pass size=(height, width), that of the "
            "images "
            "to be generated"
        )
    host = Host(pipe)
    processor = host.processor
    if processor is None or _asks_for_more(processor.preprocess):
        processor = VaeImageProcessor(vae_scale_factor=host.scale_factor or 1)
    height, width = size if size is not None else (None, None)
    return processor.preprocess(given, height=height, width=width)


def _asks_for_more(preprocess: Any) -> bool:
    """Whether images cannot be processed alone, as where prompts go with them."""
    others = list(signature(preprocess).parameters.values())[1:]
    return any(p.default is p.empty for p in others if p.kind is p.POSITIONAL_OR_KEYWORD)


def _latents(pipe: Any, vae: Any, pixels: Tensor) -> Tensor:
    encoded = vae.encode(pixels[:, :, None] if of_one_frame(vae) else pixels)
    if hasattr(encoded, "latent_dist"):
        latents = encoded.latent_dist.mode()
    else:
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent
    if of_one_frame(vae):
        latents = latents[:, :, 0]
    if latents.ndim != 4:
        raise UnsupportedError(
            f"{type(vae).__name__} makes latents of shape {tuple(latents.shape[1:])}; only those "
            "of images (C, H, W) are known"
        )
    return _packed(pipe, scaled(pipe, latents))


def of_one_frame(vae: Any) -> bool:
    """True for an autoencoder that takes images as videos of one frame: (n, c, 1, h, w)."""
    return isinstance(vae, AutoencoderKLQwenImage)


def scaled(pipe: Any, encoded: Tensor) -> Tensor:
    """Scale encoded images (n, c, h, w) to the latents of the pipeline's scheduler.

    Those of a MoVQ are taken as they are.
    """
    name, vae = Host(pipe).autoencoder
    if name == "vqgan":
        return encoded / vae.config.scale_factor
    return (encoded if name == "movq" else normalised(vae, encoded)) * Host(pipe).latent_scale


def unscaled(pipe: Any, latents: Tensor) -> Tensor:
    """Scale the scheduler's final latents (n, c, h, w) to those that the autoencoder decodes.

    The inverse of `scaled`.
    """
    name, vae = Host(pipe).autoencoder
    if name == "vqgan":
        return latents * vae.config.scale_factor
    own = latents / Host(pipe).latent_scale
    return own if name == "movq" else denormalised(vae, own)


def normalised(vae: Any, latents: Tensor) -> Tensor:
    """Scale and shift encoded images (n, c, h, w) to the latents that a denoiser is trained on."""
    scale = vae.config.get("scaling_factor") or 1.0
    mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
    if mean is not None and std is not None:
        mean, std = (_by_channel(v, latents) for v in (mean, std))
        return (latents - mean) * scale / std
    return (latents - (vae.config.get("shift_factor") or 0.0)) * scale


def denormalised(vae: Any, latents: Tensor) -> Tensor:
    """Scale and shift a denoiser's final latents (n, c, h, w) to those that are decoded.

    The inverse of `normalised`.
    """
    scale = vae.config.get("scaling_factor") or 1.0
    mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
    if mean is not None and std is not None:
        mean, std = (_by_channel(v, latents) for v in (mean, std))
        return latents * std / scale + mean
    return latents / scale + (vae.config.get("shift_factor") or 0.0)


def _by_channel(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values).to(like).view(1, -1, *[1] * (like.ndim - 2))


def _packed(pipe: Any, latents: Tensor) -> Tensor:
    host = Host(pipe)
    if not host.packs:
        return latents
    if not host.packs_as_images:
        raise UnsupportedError(
            f"{type(pipe).__name__} packs its latents in a way that is not known here; give "
            "latents as its scheduler sees them"
        )
    return host.pack(latents)
