"""How a protected set looks after the images of a pipeline, whatever space it is in."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from unalike.attach.latents import encode_images
from unalike.guidance.base import Protected, Pushing
from unalike.shields import Shield


class Guard(Protocol):
    """A shield with the pipeline whose images it is to keep out.

    Attributes:
        shield: the protected set.
    """

    @property
    def shield(self) -> Shield:
        """The protected set."""
        ...

    def regions(self, space: str, device: torch.device) -> Protected | Pushing:
        """What methods see of it during one call whose latents are of this space.

        Raises:
            StoreError: for another space than the shield's.
        """
        ...

    def inside(self, latents: Tensor) -> Tensor:
        """Which of the final latents (B, …) lie in a ball (B,)."""
        ...

    def move_out(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The final latents (B, …), those inside moved out of all balls as far as that is possible, and which were moved (B,)."""
        ...

    def nearest(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The number (B,) of the protected point nearest to each of the final latents (B, …), and its exact distance (B,)."""
        ...

    def nearest_to_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The same for finished images (B, 3, h, w) in [0, 1], as anybody can measure it who has nothing but the images."""
        ...


class LatentGuard:
    """A shield in the latent space of a pipeline.

    Args:
        shield: the protected set.
        pipe: the pipeline.
    """

    def __init__(self, shield: Shield, pipe: Any) -> None:
        self.shield = shield
        self._pipe = pipe

    def regions(self, space: str, device: torch.device) -> Protected:
        """The balls themselves, with a search that goes along with the call's predictions."""
        return self.shield.trajectory(space, device)

    def inside(self, latents: Tensor) -> Tensor:
        """Which of the final latents (B, …) lie in a ball (B,)."""
        return self.shield.inside(latents)

    def move_out(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The final latents (B, …), those inside moved out of all balls, and which were moved (B,)."""
        return self.shield.move_out(latents)

    def nearest(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The number (B,) of the protected latent nearest to each of the final latents (B, …), and its exact distance (B,)."""
        return self.shield.nearest(latents)

    def nearest_to_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The same for finished images (B, 3, h, w) in [0, 1], encoded again."""
        return self.shield.nearest(encode_images(self._pipe, images))
