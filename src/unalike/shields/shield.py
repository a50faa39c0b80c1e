"""A protected set in memory: regions that no image may end in."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from unalike import tensorfile
from unalike.errors import NumericsError, OptionError, ShieldError, StoreError
from unalike.guidance.base import Balls
from unalike.shields.exit import directions_out, ray_exit
from unalike.shields.search import nearest

_KIND = "unalike.shield"
_VERSION = 1
_VECTORS, _MANIFEST = "vectors.safetensors", "manifest.json"
_MARGIN = 1e-6
_ATTEMPTS = 64


class Shield:
    """A ball of one radius around each protected latent, searched exactly. For sets that fit in memory; every check reads all of them.

    Args:
        latents: (m, …) protected clean latents, at least one.
        space: names the latent space they live in; only images of the same space can be checked.
        radius: of every ball, in the units of the latents; a point at exactly this distance is outside.
        ids: a name for each, to appear in certificates; "0", "1", … unless given.

    Raises:
        OptionError: for no latents, a radius that is not a finite number above 0, an empty space name, or ids that do not fit.
        NumericsError: for NaN or infinite latents.

    Example:
        >>> shield = Shield(torch.zeros(1, 2), space="model/2", radius=1.0, ids=["logo"])
        >>> latents, moved = shield.move_out(torch.tensor([[0.5, 0.0], [3.0, 0.0]]))
        >>> moved, bool((latents.norm(dim=1) >= 1).all())
        (tensor([ True, False]), True)
    """

    def __init__(self, latents: Tensor, *, space: str, radius: float, ids: Sequence[str] | None = None) -> None:
        if not isinstance(latents, Tensor) or latents.ndim < 2 or len(latents) == 0:
            got = f"of shape {tuple(latents.shape)}" if isinstance(latents, Tensor) else f"a {type(latents).__name__}"
            raise OptionError(f"latents is {got}; allowed: a tensor (m, …) with at least one row, as in Shield(latents, space=…, radius=…)")
        if isinstance(radius, bool) or not isinstance(radius, int | float) or not (math.isfinite(radius) and radius > 0):
            raise OptionError(f"radius is {radius!r}; allowed: a finite number above 0, as in Shield(latents, space=…, radius=20.0)")
        if not space:
            raise OptionError("space is empty; shield_from_images(pipe, images, radius) names it after the model")
        names = [str(i) for i in range(len(latents))] if ids is None else [str(i) for i in ids]
        if len(names) != len(latents):
            raise OptionError(f"ids has {len(names)} entries for {len(latents)} latents; give one for each, or None")
        self.shape = tuple(latents.shape[1:])
        self.centres = latents.detach().flatten(1).to(device="cpu", dtype=torch.float32).contiguous()
        if not torch.isfinite(self.centres).all():
            raise NumericsError("latents has NaN or infinite values; a protected latent must be finite")
        self.space = space
        self.radius = float(radius)
        self.ids = names

    def __len__(self) -> int:
        return len(self.centres)

    def __repr__(self) -> str:
        return f"Shield({len(self)} balls of radius {self.radius:g} in {self.space})"

    def balls(self, space: str) -> Balls:
        """The protected regions of a space.

        Raises:
            StoreError: when the shield is of another space.
        """
        if space != self.space:
            raise StoreError(
                f"the shield protects latents of {self.space!r} and this model makes {space!r}; build a shield with this model's "
                "autoencoder and size, as in shield_from_images(pipe, images, radius)"
            )
        return Balls(self.centres, self.radius)

    def nearest(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The index (B,) of the nearest protected latent and its exact distance (B,) in float64, for latents (B, …)."""
        return nearest(self._rows(latents), self.centres)

    def move_out(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The latents (B, …), those inside a ball moved out of all of them, and which were moved (B,).

        A latent inside leaves along the ray with the nearest exit of those that `directions_out` tries; overlapping balls are walked
        through to the end of their union. The result is checked after rounding to the latents' own precision, and pushed further where
        that rounding led back inside. Latents outside are returned bit by bit. O(m d) for each latent that is inside.

        Raises:
            ShieldError: when the way out leads beyond what the precision of the latents can express.
        """
        rows = self._rows(latents)
        _, distance = nearest(rows, self.centres)
        moved = distance < self.radius
        if not moved.any():
            return latents, moved.to(latents.device)
        result = latents.clone()
        for i in moved.nonzero().flatten().tolist():
            result[i] = self._outside(rows[i].double(), latents[i])
        return result, moved.to(latents.device)

    def _outside(self, x: Tensor, like: Tensor) -> Tensor:
        margin = _MARGIN
        for _ in range(_ATTEMPTS):
            radius = self.radius * (1 + margin)
            distance = torch.cat([(x - block.double()).norm(dim=1) for block in self.centres.split(2048)])
            around = (distance < radius).nonzero().flatten()
            around = around[distance[around].argsort()]
            directions = directions_out(x, self.centres[around], radius)
            exits = ray_exit(x, directions, self.centres, radius)
            best = int(exits.argmin())
            placed = (x + exits[best] * directions[best]).view(like.shape).to(like)
            if torch.isfinite(placed).all() and float(nearest(self._rows(placed[None]), self.centres)[1][0]) >= self.radius:
                return placed
            margin *= 2
        raise ShieldError(
            f"a latent in {str(like.dtype).removeprefix('torch.')} could not be placed outside balls of radius {self.radius:g}: "
            "the way out leads beyond the largest number of that precision; run the pipeline in float32"
        )

    def _rows(self, latents: Tensor) -> Tensor:
        if tuple(latents.shape[1:]) != self.shape:
            raise OptionError(
                f"latents have shape {tuple(latents.shape[1:])} and the protected ones {self.shape}; they must be of one space"
            )
        return latents.detach().flatten(1).to(device="cpu")

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `vectors.safetensors` and `manifest.json` into the folder, which is made if need be.

        Raises:
            StoreError: when the folder holds something else, or cannot be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            foreign = sorted(p.name for p in folder.iterdir() if p.name not in (_VECTORS, _MANIFEST))
        except OSError as error:
            raise StoreError(f"cannot write a shield to {folder.name!r} ({error.strerror}); give a folder that you may write to") from error
        if foreign:
            raise StoreError(f"the folder {folder.name!r} holds other files ({foreign[0]}); save the shield to a folder of its own")
        manifest = self._manifest()
        tensorfile.write(folder / _VECTORS, _KIND, _VERSION, manifest, {"centres": self.centres})
        tensorfile.write_bytes(folder / _MANIFEST, json.dumps({"kind": _KIND, "version": _VERSION, **manifest}, indent=2).encode())

    def _manifest(self) -> dict[str, Any]:
        return {
            "count": len(self),
            "dimension": self.centres.shape[1],
            "shape": list(self.shape),
            "space": self.space,
            "radius": self.radius,
            "ids": self.ids,
        }

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Self:
        """The shield that `save` wrote into the folder.

        Raises:
            StoreError: when there is none, or it is damaged: the manifest, the vectors and their checksum must agree.
        """
        folder = Path(folder)
        if not (folder / _MANIFEST).is_file():
            raise StoreError(f"there is no shield in {folder.name!r}; give a folder written by Shield.save")
        try:
            manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"the shield {folder.name!r} is damaged: its manifest cannot be read ({error}); use a backup") from error
        header, tensors = tensorfile.read(folder / _VECTORS, _KIND, _VERSION)
        if not isinstance(manifest, dict) or any(manifest.get(key) != value for key, value in header.items() if key != "checksum"):
            raise StoreError(f"the shield {folder.name!r} is damaged: its manifest and its vectors do not belong together; use a backup")
        try:
            shape = (manifest["count"], *manifest["shape"])
            return cls(tensors["centres"].view(shape), space=manifest["space"], radius=manifest["radius"], ids=manifest["ids"])
        except (KeyError, TypeError, RuntimeError, OptionError, NumericsError) as error:
            raise StoreError(f"the shield {folder.name!r} is damaged: {error}; use a backup") from error
