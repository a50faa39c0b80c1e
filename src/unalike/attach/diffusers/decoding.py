"""Decode scheduler-space latents into images, with gradients where they are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from unalike.attach.diffusers.host import Host
from unalike.attach.diffusers.vae import of_one_frame, unscaled
from unalike.errors import UnsupportedError


class Decoder:
    """Decodes final latents as the pipeline does, to images in [0, 1] of the size asked for.

    In a pipeline without an autoencoder the latents are the image itself.

    Args:
        pipe: a diffusers pipeline.
        size: height and width of the images of the call; None stands for the pipeline's own. Packed
            latents need it, and pipelines that draw at the nearest size they were trained on and
            then resize and crop.

    Raises:
        UnsupportedError: for an autoencoder that is not one of images, or latents packed in an
            unknown way.
    """

    def __init__(self, pipe: Any, size: tuple[int | None, int | None] = (None, None)) -> None:
        self._pipe = pipe
        self._host = host = Host(pipe)
        self._size = size
        name, self._vae = host.autoencoder
        self._options = {"force_not_quantize": True} if name == "movq" else {}
        own = host.name
        if name == "vqgan":
            raise UnsupportedError(
                f"the latents of {own} are decoded in a way that is not known here; use a shield "
                "of latents"
            )
        if host.packs and not host.unpacks_as_images:
            raise UnsupportedError(
                f"{own} unpacks its latents in a way that is not known here; use a shield of "
                "latents"
            )
        config = getattr(host.processor, "config", None)
        self._symmetric = bool(getattr(config, "do_normalize", True))  # -1 to 1, as nearly all are

    def images(self, latents: Tensor) -> Tensor:
        """The images (B, 3, h, w) in [0, 1], float32, of final latents (B, …); inside of `open`.

        Raises:
            UnsupportedError: for latents that are not those of images, or do not fit the size of
                the call.
        """
        vae, x = self._vae, latents
        if vae is not None:
            x = self._unpacked(x.to(vae.dtype))
            if x.ndim != 4:
                raise UnsupportedError(
                    f"latents have shape {tuple(x.shape[1:])}; only those of images (C, H, W) can "
                    "be decoded here"
                )
            x = unscaled(self._pipe, x)
            x = vae.decode(
                x[:, :, None] if of_one_frame(vae) else x, return_dict=False, **self._options
            )[0]
            x = self._resized(x[:, :, 0] if of_one_frame(vae) else x)
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise UnsupportedError(
                f"{self._host.name} makes images of shape {tuple(x.shape[1:])}; allowed: (3, h, "
                "w) or (1, h, w)"
            )
        return (x / 2 + 0.5 if self._symmetric else x).clamp(0, 1).float().expand(-1, 3, -1, -1)

    @contextmanager
    def open(self) -> Iterator[None]:
        """The autoencoder as decoding needs it, and afterwards as it was.

        Gradients go through its blocks one at a time where it can do that, so that their
        intermediate results do not add up; and where the pipeline decodes in float32 because
        float16 overflows, so does this.
        """
        vae = self._vae
        if vae is None:
            yield
            return
        widened = (
            vae.dtype == torch.float16 and vae.config.get("force_upcast") and self._host.upcasts
        )
        thrifty = (
            getattr(vae, "_supports_gradient_checkpointing", False)
            and not vae.is_gradient_checkpointing
        )
        try:
            if widened:
                vae.to(dtype=torch.float32)
            if thrifty:
                vae.enable_gradient_checkpointing()
            yield
        finally:
            if thrifty:
                vae.disable_gradient_checkpointing()
            if widened:
                vae.to(dtype=torch.float16)

    def _unpacked(self, latents: Tensor) -> Tensor:
        host = self._host
        if not host.packs:
            return latents
        own = (host.part("default_sample_size") or 0) * self._pipe.vae_scale_factor
        height, width = (side or own for side in self._size)
        rows, columns = host.packed_cells((height, width))
        tokens = rows * columns
        if latents.ndim != 3 or latents.shape[1] != tokens:
            raise UnsupportedError(
                f"{host.name} makes {latents.shape[1]} tokens an image, which are not those of "
                f"{height}×{width} pixels; "
                "give the call the size of its images, as in height=1024, width=1024"
            )
        unpacked = host.unpack(latents, (height, width))
        return unpacked[:, :, 0] if of_one_frame(self._vae) else unpacked

    def _resized(self, images: Tensor) -> Tensor:
        """Images that were drawn at one of the sizes that the pipeline was trained on, in the size
        that was asked for.
        """
        resize, (height, width) = (
            getattr(self._host.processor, "resize_and_crop_tensor", None),
            self._size,
        )
        if (
            resize is None
            or height is None
            or width is None
            or images.ndim != 4
            or images.shape[2:] == (height, width)
        ):
            return images
        return resize(images, width, height)


def as_returned(images: Tensor) -> Tensor:
    """Images in [0, 1] rounded to 8 bits, as files and PIL images have them.

    Example:
        >>> as_returned(torch.tensor([0.0, 0.5, 1.0])) * 255
        tensor([  0., 128., 255.])
    """
    return (images * 255).round() / 255
