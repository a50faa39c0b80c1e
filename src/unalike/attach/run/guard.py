"""Enforce a shield on the outputs of a pipeline or a function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from unalike.errors import NumericsError, ShieldError, UnsupportedError
from unalike.guidance.protocols import Protected, ProtectedFeatures
from unalike.shields import Shield
from unalike.shields.trajectory import Trajectory


class Guard(Protocol):
    """A shield together with the pipeline whose images are kept out of it.

    Attributes:
        shield: the protected set.
        of_images: whether final latents are measured by the images that they make, so that those
            can be measured in their place.
    """

    of_images: bool

    @property
    def shield(self) -> Shield:
        """The protected set."""
        ...

    def regions(self, space: str, device: torch.device) -> Protected | ProtectedFeatures:
        """Return the protected regions that methods see during one call.

        Raises:
            StoreError: for another space than the shield's.
        """
        ...

    def inside(self, latents: Tensor) -> Tensor:
        """Test which of the final latents (B, …) lie in a ball: (B,) bool."""
        ...

    def move_out(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Move final latents (B, …) out of all balls; return them and which were moved (B,).

        Raises:
            ShieldError: when one of them cannot be moved out.
        """
        ...

    def nearest(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Find the nearest protected point of each final latent: number (B,), distance (B,)."""
        ...

    def nearest_to_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Find the nearest protected point of each finished image (B, 3, h, w) in [0, 1].

        Anybody who has nothing but the images can measure this.

        Raises:
            UnsupportedError: where images cannot be turned into points of the shield's space.
            NumericsError: when what they are turned into is not finite.
        """
        ...


def inside_any(guards: Sequence[Guard], latents: Tensor) -> Tensor:
    """(B,) bool, on the CPU: which latents (B, …) lie in a ball of any of the shields."""
    found = torch.zeros(len(latents), dtype=torch.bool)
    for guard in guards:
        found |= guard.inside(latents).cpu()
    return found


def steering(guards: Sequence[Guard]) -> Guard | None:
    """The guard whose regions methods see: the first of latents, which costs no decoding, else the
    first; None for none.
    """
    return next((g for g in guards if isinstance(g, PlainGuard)), next(iter(guards), None))


@dataclass(frozen=True)
class Moved:
    """Final latents after those inside a ball were moved out.

    Attributes:
        latents: (B, …); what could not be moved is as it was.
        moved: which were moved (B,).
        inside: which are inside all the same (B,).
        failures: why an image could not be moved, by its number.
    """

    latents: Tensor
    moved: Tensor
    inside: Tensor
    failures: dict[int, ShieldError]


def moved_out(guard: Guard, latents: Tensor) -> Moved:
    """Move final latents (B, …) out of all balls; one that cannot be moved stops no other."""
    try:
        result, moved = guard.move_out(latents)
        return Moved(result, moved, torch.zeros_like(moved), {})
    except ShieldError:  # of one image at least: which, and why, each says by itself
        result, failures = latents.clone(), {}
    moved = torch.zeros(len(latents), dtype=torch.bool, device=latents.device)
    for i in guard.inside(latents).nonzero().flatten().tolist():
        try:
            row, was_moved = guard.move_out(latents[i : i + 1])
        except ShieldError as error:
            failures[i] = error
            continue
        result[i], moved[i] = row[0], was_moved[0]
    return Moved(result, moved, guard.inside(result), failures)


class PlainGuard:
    """A shield in the space of the samples themselves, for functions.

    Args:
        shield: the protected set.
        steering: the radius of the balls that methods see, where it is larger than the shield's.
    """

    of_images = False

    def __init__(self, shield: Shield, steering: float = 0.0) -> None:
        self.shield = shield
        self._steering = steering

    def regions(self, space: str, device: torch.device) -> Protected:
        """Return the balls, with a search that follows the predictions of the call."""
        found = self.shield.trajectory(space, device)
        return Trajectory(found.search, self._steering) if self._steering > found.radius else found

    def inside(self, latents: Tensor) -> Tensor:
        """Test which of the final latents (B, …) lie in a ball: (B,) bool."""
        return self.shield.inside(latents)

    def move_out(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Move final latents (B, …) out of all balls; return them and which were moved (B,)."""
        return self.shield.move_out(latents)

    def nearest(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Find the nearest protected latent of each final latent: number (B,), distance (B,)."""
        return self.shield.nearest(latents)

    def nearest_to_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Refuse: a function has no encoder for images."""
        raise UnsupportedError(
            "a guided function has no encoder for finished images; measure its samples, as in "
            "shield.nearest(samples), or guide a pipeline"
        )


class LatentGuard(PlainGuard):
    """A shield in the latent space of a pipeline.

    Args:
        shield, steering: as of `PlainGuard`.
        pipe: the pipeline.
    """

    def __init__(self, shield: Shield, pipe: Any, steering: float = 0.0) -> None:
        super().__init__(shield, steering)
        self._pipe = pipe

    def nearest_to_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode finished images (B, 3, h, w) in [0, 1] again and find their nearest points."""
        from unalike.attach.diffusers.vae import (
            encode_images,
        )  # with diffusers, which code outside it need not have

        latents = encode_images(self._pipe, images)
        if tuple(latents.shape[1:]) != self.shield.shape:
            raise UnsupportedError(
                f"the images are encoded to latents of shape {tuple(latents.shape[1:])} and the "
                f"protected ones have {self.shield.shape}, "
                "so they cannot be compared; give images of the size that the shield was built for"
            )
        if not torch.isfinite(latents).all():
            raise NumericsError(
                "the images, encoded again, have NaN or infinite latents, so their distances "
                "cannot be measured; run the pipeline in "
                "float32 or bfloat16"
            )
        return self.shield.nearest(latents)
