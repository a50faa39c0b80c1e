"""DAVE: removes part of the spatial mean of an image's features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unalike.guidance.context import Context, Layer
from unalike.guidance.method import Method
from unalike.options import option


@dataclass(frozen=True, kw_only=True)
class DAVE(Method):
    """Lowers what all places of an image share in each layer of the denoiser, at the first steps.

        h ← h - strength · mean of h over places

    The shared part carries what seeds have in common: without some of it they differ more. Each
    image is treated by itself, so it needs no batch and an image does not depend on the others. It
    acts on the features of places alone (mid and up blocks of a U-Net, the image's tokens in each
    block of a transformer), with and without the prompt alike.

    Source: arXiv:2606.06813 (2026), which keeps a share `α` of 0.2 to 0.5 of the mean during the
    first 15% of the steps; here `strength = 1 - α`. From its abstract: that the layers are these,
    all of them, is ours, as is the default.

    Cost: a mean over the features of each layer.

    Args:
        strength: share of the spatial mean that is removed; 0 changes nothing.
        layers: "all", or "middle": the mid block of a U-Net, the middle one of a transformer.
        stop: as in all methods. The default is the first step of up to 6, the first 3 of 20.

    Raises:
        OptionError: for an option outside its allowed values, or a `limit`, for x0 is not
            corrected.

    Example:
        >>> import torch
        >>> from unalike.guidance.context import Context, Layer
        >>> from unalike.guidance.level import Level
        >>> level = Level(alpha=0.1, sigma=0.9, next_alpha=0.5, next_sigma=0.5)
        >>> x_t, groups = torch.zeros(1, 1), torch.zeros(1)
        >>> context = Context(step=0, steps=4, level=level, x_t=x_t, groups=groups)
        >>> layer = Layer("blocks.0", 0, 1, "image", (1,))
        >>> DAVE(strength=0.5).features(torch.tensor([[[1.0], [3.0]]]), layer, context).flatten()
        tensor([0., 2.])
    """

    name: ClassVar[str] = "dave"
    summary: ClassVar[str] = "removes part of the spatial mean of the denoiser's features"
    citation: ClassVar[str] = """@article{dave2026,
  title = {Breaking the Lock-in: Diversifying Text-to-Image Generation via Representation
    Modulation},
  journal = {arXiv preprint arXiv:2606.06813},
  year = {2026}
}"""

    strength: float = option(0.5, "share of the spatial mean that is removed", low=0, high=1)
    layers: str = option(
        "all", "which layers of the denoiser it acts on", choices=("all", "middle")
    )
    stop: float = option(0.15, "fraction of the schedule at which it ends", low=0, high=1)

    def features(self, hidden: Tensor, layer: Layer, context: Context) -> Tensor | None:
        """The features (B, …) without part of their mean; None for those of the text."""
        if self.strength == 0 or layer.stream != "image" or not layer.is_among(self.layers):
            return None
        own = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        return own - self.strength * own.mean(dim=layer.places, keepdim=True)
