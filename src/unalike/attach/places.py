"""Where in the latents of a running pipeline the regions are that methods were given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unalike.attach.cells import box_cells, mask_cells, mask_pixels, require_box
from unalike.attach.sizes import call_size, latent_size
from unalike.errors import OptionError, UnsupportedError

_PACKING = ["latents", "batch_size", "num_channels_latents", "height", "width"]


class Grid:
    """The places of a pipeline's latents: their rows and columns, the same in every channel and in every frame of a video.

    Args:
        pipe: a diffusers pipeline.
        arguments: of the call, by name.
    """

    def __init__(self, pipe: Any, arguments: dict[str, Any]) -> None:
        self._pipe = pipe
        self._arguments = arguments
        self._packed = hasattr(pipe, "_pack_latents")

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of the call's images.

        Raises:
            UnsupportedError: where neither the call nor the pipeline tells.
        """
        return call_size(self._pipe, self._arguments)

    def require(self) -> None:
        """Refuses pipelines whose latents have no places, or places that are not known here.

        Raises:
            UnsupportedError: for sound, and for latents that are packed in another way than those of images.
        """
        name = type(self._pipe).__name__
        if any(p.startswith("audio_") for p in inspect.signature(type(self._pipe).__call__).parameters):
            raise UnsupportedError(f"{name} makes sound, which has no places in an image; leave region out")
        if self._packed and list(inspect.signature(self._pipe._pack_latents).parameters) != _PACKING:
            raise UnsupportedError(
                f"{name} packs its latents in a way that is not known here, so that a region cannot be found in them; leave region out"
            )

    def cells(self, latents: Tensor) -> tuple[int, int]:
        """Height and width of the grid of latents (R, …) as the scheduler sees them.

        Raises:
            UnsupportedError: for latents without places, and packed ones that are not of the size of the call.
        """
        if latents.ndim in (4, 5):
            return latents.shape[-2], latents.shape[-1]
        if latents.ndim != 3 or not self._packed:
            raise UnsupportedError(
                f"latents of {type(self._pipe).__name__} have shape {tuple(latents.shape[1:])}, which has no places; allowed: "
                "(C, h, w) of images, (C, F, h, w) of videos, and packed ones (S, C); leave region out"
            )
        factor, (height, width) = 2 * self._pipe.vae_scale_factor, self.pixels
        cells = 2 * (height // factor), 2 * (width // factor)
        channels, rest = divmod(latents[0].numel(), max(1, cells[0] * cells[1]))
        if rest or not channels or self._pack(torch.empty(1, channels, *cells)).shape[1:] != latents.shape[1:]:
            raise UnsupportedError(
                f"{type(self._pipe).__name__} makes {latents.shape[1]} tokens an image, which are not those of {height}×{width} pixels; "
                "give the call the size of its images, as in height=1024, width=1024"
            )
        return cells

    def spread(self, cells: Tensor, latents: Tensor) -> Tensor:
        """A mask (b, …) that broadcasts to latents (B, …), from cells (b, h, w) of their grid."""
        if latents.ndim != 3:
            return cells.reshape(len(cells), *[1] * (latents.ndim - 3), *cells.shape[1:])
        channels = latents[0].numel() // cells[0].numel()
        return self._pack(cells[:, None].expand(-1, channels, -1, -1).contiguous())

    def _pack(self, latents: Tensor) -> Tensor:
        return self._pipe._pack_latents(latents, *latents.shape)


class Places:
    """The regions of one call's methods, checked before the pipeline begins.

    Args:
        pipe: a diffusers pipeline.
        arguments: of the call, by name.
        regions: of the methods; None for those without.
        images: how many the call asks for; None where that is not known.

    Raises:
        OptionError: for a region that is none, or a mask that fits neither the images nor their latents.
        UnsupportedError: for a pipeline whose latents have no places.
    """

    def __init__(self, pipe: Any, arguments: dict[str, Any], regions: Sequence[Any], *, images: int | None = None) -> None:
        self.grid = Grid(pipe, arguments)
        self._images = images
        asked = [region for region in regions if region is not None]
        if asked:
            self.grid.require()
        for region in asked:
            if is_box(region):
                require_box(region)
            elif is_mask(region):
                self._require_fitting(mask_pixels(region), self._sizes())

    def masks(self, latents: Tensor) -> Callable[[Any], Tensor]:
        """The function from a region to where it is: (B or 1, …) bool that broadcasts to latents (B, …), as the scheduler sees them."""
        known: list[tuple[Any, Tensor]] = []

        def mask(region: Any) -> Tensor:
            for other, made in known:
                if other is region:
                    return made
            made = self.grid.spread(self._cells(region, latents), latents).to(latents.device)
            known.append((region, made))
            return made

        return mask

    def _cells(self, region: Any, latents: Tensor) -> Tensor:
        self.grid.require()
        height, width = self.grid.cells(latents)
        if is_box(region):
            return box_cells(region, height, width)
        if not is_mask(region):
            raise OptionError(
                f"region is {region!r}; allowed: a box (left, top, right, bottom) of shares from 0 to 1, or a mask, a PIL image or a "
                "tensor (height, width)"
            )
        pixels = mask_pixels(region)
        sizes = {"the images": self.grid.pixels} if tuple(pixels.shape[1:]) != (height, width) else {}
        self._images = len(latents)
        self._require_fitting(pixels, {**sizes, "their latents": (height, width)})
        return mask_cells(pixels, height, width)

    def _sizes(self) -> dict[str, tuple[int, int]]:
        """The sizes that a mask may have, as far as they are known before the call."""
        size = self.grid.pixels
        latents = latent_size(self.grid._pipe, size)
        return {"the images": size} if latents is None else {"the images": size, "their latents": latents}

    def _require_fitting(self, pixels: Tensor, sizes: dict[str, tuple[int, int]]) -> None:
        if tuple(pixels.shape[1:]) not in sizes.values():
            allowed = " or ".join(f"{height}×{width} of {what}" for what, (height, width) in sizes.items())
            raise OptionError(
                f"region is a mask of {pixels.shape[1]}×{pixels.shape[2]} (height × width); allowed: {allowed}; resize it, as in "
                f"region=mask.resize(({next(iter(sizes.values()))[1]}, {next(iter(sizes.values()))[0]}))"
            )
        if len(pixels) > 1 and self._images is not None and len(pixels) != self._images:
            raise OptionError(
                f"region has {len(pixels)} masks and this call makes {self._images} images; give one mask for all, or one for each image"
            )


def is_box(region: Any) -> bool:
    """Whether a region is meant as a box: a tuple or list that does not begin with a word."""
    return isinstance(region, tuple | list) and not any(isinstance(part, str) for part in region)


def is_mask(region: Any) -> bool:
    """Whether a region is meant as a mask: a tensor or a PIL image."""
    return isinstance(region, Tensor) or hasattr(region, "convert")
