"""Resolve regions to latent-grid masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unalike.attach.diffusers.host import Host
from unalike.attach.diffusers.prompts import Prompts
from unalike.attach.diffusers.regions.attention import WordMaps, attends
from unalike.attach.diffusers.regions.cells import box_cells, mask_cells, separated
from unalike.attach.diffusers.regions.words import word_tokens
from unalike.errors import OptionError, UnsupportedError
from unalike.guidance.method import Method
from unalike.guidance.region import Region, checked


class Grid:
    """The places of a pipeline's latents: their rows and columns, the same in every channel and in
    every frame of a video.

    Args:
        pipe: a diffusers pipeline.
        arguments: of the call, by name.
    """

    def __init__(self, pipe: Any, arguments: dict[str, Any]) -> None:
        self._host = Host(pipe)
        self._arguments = arguments

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of the call's images.

        Raises:
            UnsupportedError: where neither the call nor the pipeline tells.
        """
        return self._host.call_size(self._arguments)

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """The heights and widths that a mask may have, as far as they are known before the call.

        Raises:
            UnsupportedError: as `pixels`.
        """
        latents = self._host.latent_size(self.pixels)
        return (
            {"the images": self.pixels}
            if latents is None
            else {"the images": self.pixels, "their latents": latents}
        )

    def require(self) -> None:
        """Refuses pipelines whose latents have no places, or places that are not known here.

        Raises:
            UnsupportedError: for sound, and for latents that are packed in another way than those
                of images.
        """
        name = self._host.name
        if self._host.makes_sound:
            raise UnsupportedError(
                f"{name} makes sound, which has no places in an image; leave region out"
            )
        if self._host.packs and not self._host.packs_as_images:
            raise UnsupportedError(
                f"{name} packs its latents in a way that is not known here, so that a region "
                "cannot be found in them; leave region out"
            )

    def cells(self, latents: Tensor) -> tuple[int, int]:
        """Height and width of the grid of latents (R, …) as the scheduler sees them.

        Raises:
            UnsupportedError: for latents without places, and packed ones that are not of the size
                of the call.
        """
        if latents.ndim in (4, 5):
            return latents.shape[-2], latents.shape[-1]
        if latents.ndim != 3 or not self._host.packs:
            raise UnsupportedError(
                f"latents of {self._host.name} have shape {tuple(latents.shape[1:])}, which has "
                "no places; allowed: "
                "(C, h, w) of images, (C, F, h, w) of videos, and packed ones (S, C); leave "
                "region out"
            )
        height, width = self.pixels
        rows, columns = self._host.packed_cells((height, width))
        cells = 2 * rows, 2 * columns
        channels, rest = divmod(latents[0].numel(), max(1, cells[0] * cells[1]))
        if (
            rest
            or not channels
            or self._host.pack(torch.empty(1, channels, *cells)).shape[1:] != latents.shape[1:]
        ):
            raise UnsupportedError(
                f"{self._host.name} makes {latents.shape[1]} tokens an image, which are not those "
                f"of {height}×{width} pixels; "
                "give the call the size of its images, as in height=1024, width=1024"
            )
        return cells

    def spread(self, cells: Tensor, latents: Tensor) -> Tensor:
        """A mask (b, …) that broadcasts to latents (B, …), from cells (b, h, w) of their grid."""
        if latents.ndim != 3:
            return cells.reshape(len(cells), *[1] * (latents.ndim - 3), *cells.shape[1:])
        channels = latents[0].numel() // cells[0].numel()
        return self._host.pack(cells[:, None].expand(-1, channels, -1, -1).contiguous())


class Places:
    """Context manager of one call: the regions of its methods, checked when it is made, and found
    while it is open.

    Args:
        pipe: a diffusers pipeline.
        arguments: of the call, by name.
        methods: those with an attribute `region` that is not None have one.
        prompts: listens to the prompts of the call.

    Raises:
        OptionError: for a region that is none, a mask that fits neither the images nor their
            latents, or has nothing inside, and, on entering, words that a prompt has not where they
            have to be in it.
        UnsupportedError: for a pipeline whose latents have no places, and for words where the
            denoiser's attention cannot be read.
    """

    def __init__(
        self, pipe: Any, arguments: dict[str, Any], methods: Sequence[Method], prompts: Prompts
    ) -> None:
        self._pipe = pipe
        self._arguments = arguments
        self._prompts = prompts
        self._grid = Grid(pipe, arguments)
        self._words: list[str] = []
        self._found: WordMaps | None = None
        asked = [
            checked(region, type(m).__name__)
            for m in methods
            if (region := getattr(m, "region", None)) is not None
        ]
        if asked:
            self._grid.require()
        for region in asked:
            if isinstance(region, Tensor):
                _require_fitting(
                    region, self._grid.sizes, prompts.asked or arguments.get("batch_size")
                )
            self._words += [word for word in _words(region) if word not in self._words]
        self._attends = attends(pipe) if self._words else ""

    def __enter__(self) -> Places:
        if self._words:
            tokens = word_tokens(
                self._pipe, self._arguments, self._words, append=self._attends == "cross"
            )
            self._found = WordMaps(self._pipe, tokens, self._grid.cells, self._prompts).__enter__()
        return self

    def __exit__(self, *ended: Any) -> None:
        if self._found is not None:
            self._found.__exit__(*ended)

    def masks(self, latents: Tensor) -> Callable[[Any], Tensor]:
        """The function from a region to where it is, for predictions of the shape and on the device
        of latents (B, …).

        Its masks (B or 1, …) are bool and broadcast to them. Those of words are of the attention so
        far, so they change from step to step.
        """
        like, known = latents.to("meta"), []

        def mask(given: Any) -> Tensor:
            for other, made in known:
                if other is given:
                    return made
            region = checked(given, "masks")
            made = self._grid.spread(self._cells(region, like), like).to(latents.device)
            if not _words(region):
                known.append((given, made))
            return made

        return mask

    def _cells(self, region: Region | None, latents: Tensor) -> Tensor:
        self._grid.require()
        height, width = self._grid.cells(latents)
        if isinstance(region, Tensor):
            sizes = {"their latents": (height, width)}
            if tuple(region.shape[-2:]) != (height, width):
                sizes = {"the images": self._grid.pixels, **sizes}
            _require_fitting(region, sizes, len(latents))
            return mask_cells(
                region.cpu() if region.ndim == 3 else region.cpu()[None], height, width
            )
        words = _words(region)
        if words:
            return self._cells_of(words)
        box: Any = region or (0, 0, 1, 1)
        return box_cells([float(side) for side in box], height, width)

    def _cells_of(self, words: Sequence[str]) -> Tensor:
        if self._found is None or not set(words) <= set(self._words):
            raise OptionError(
                f"region names the words {', '.join(map(repr, words))}, which no method of this "
                "call has as its region; words have to be "
                "known before the call: keep them in a field of the method with the name region"
            )
        maps = self._found.maps
        return torch.stack([separated(maps[word]) for word in words]).any(0)


def _words(region: Region | None) -> tuple[str, ...]:
    if isinstance(region, str):
        return (region,)
    return (
        tuple(part for part in region if isinstance(part, str)) if isinstance(region, tuple) else ()
    )


def _require_fitting(mask: Tensor, sizes: dict[str, tuple[int, int]], images: int | None) -> None:
    """Refuses a mask (h, w) or (b, h, w) with nothing inside, of other sizes than these, or with as
    many as there are not images.
    """
    if not mask.any():
        raise OptionError(
            "region is a mask with nothing inside, so that nothing would be done; leave the "
            "method out, or give mask > 0"
        )
    if tuple(mask.shape[-2:]) not in sizes.values():
        allowed = " or ".join(
            f"{height}×{width} of {what}" for what, (height, width) in sizes.items()
        )
        height, width = next(iter(sizes.values()))
        raise OptionError(
            f"region is a mask of {mask.shape[-2]}×{mask.shape[-1]} (height × width); allowed: "
            f"{allowed}; resize it, as in "
            f"region=image.resize(({width}, {height}))"
        )
    if mask.ndim == 3 and images is not None and len(mask) not in (1, images):
        raise OptionError(
            f"region has {len(mask)} masks and this call makes {images} images; give one mask for "
            "all, or one for each image"
        )
