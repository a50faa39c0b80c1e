"""Interfaces of what hosts provide to methods: earlier samples, protected sets, decoded images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

if TYPE_CHECKING:
    from unalike.guidance.context import Context


@dataclass(frozen=True)
class References:
    """Flattened clean latents (n, d) in float32, and embeddings (n, p) of their prompts or None."""

    latents: Tensor
    prompts: Tensor | None = None

    def __len__(self) -> int:
        return self.latents.shape[0]


class Protected(Protocol):
    """Balls of one radius around protected latents, wherever they are kept."""

    @property
    def radius(self) -> float:
        """The radius of every ball, in the units of the latents."""
        ...

    def __len__(self) -> int:
        """The number of balls."""
        ...

    def touched(self, x0: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Pairs of an image's row in x0 (B, d) and centres (k, d) on its device, in one or several
        parts; all balls that the image lies in are among them.
        """
        ...


@runtime_checkable
class ProtectedFeatures(Protocol):
    """Balls around protected feature vectors: outside the latent space, so that the way out of one
    is no straight line.
    """

    def __len__(self) -> int:
        """The number of balls."""
        ...

    def way_out(self, x0: Tensor, context: Context) -> Tensor | None:
        """The move (B, …) of the predictions x0 (B, …) out of the balls: exactly 0 for images in no
        ball, None where no image is in one.
        """
        ...


class Images(Protocol):
    """Predictions and earlier samples as images, for methods that compare their features."""

    def embedded(self, x0: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor:
        """The features (B, e), with gradients, that `embed` computes from decoded predictions.

        Args:
            x0: predictions (B, …).
            embed: from images (B, 3, h, w) in [0, 1] to features (B, e).
        """
        ...

    def remembered(self, embed: Callable[[Tensor], Tensor]) -> Tensor:
        """The features (n, e) of all samples of the memory, in its order, without gradients."""
        ...
