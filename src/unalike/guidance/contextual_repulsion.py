"""Contextual repulsion: the features inside the denoiser of a prompt's images repel each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from unalike.guidance.context import Context, Layer
from unalike.guidance.method import Method
from unalike.guidance.stream import PromptStream
from unalike.options import option

_NEGLIGIBLE = 1e-6


@dataclass(frozen=True, kw_only=True)
class ContextualRepulsion(Method):
    """Turns the features of a prompt's images away from each other, in each layer, at first steps.

    With the flattened features `h` of a layer, `f = h / ||h||`, and the Gram matrix of the `n`
    images of a prompt, `K = f fᵀ / n`, the von Neumann entropy `-tr(K log K)` is ascended by its
    gradient in `f`, of which the part along `f` is left out:

        v = -(log K) f,    v ← v - <v, f> f
        h ← ||h|| (f + strength · v / ||v||) / √(1 + strength²)

    The layer's output is all that is differentiated, in closed form, and never the model. Norms
    stay, and the step is a share of them, so that one strength does for models of any size. In
    blocks of joint attention (Stable Diffusion 3, FLUX) the features are those of the text's
    tokens, which every place of the image reads: the content changes before the layout is drawn.
    Elsewhere they are those of places. With classifier-free guidance the evaluations with and
    without the prompt are each treated so.

    With `remember`, features of earlier images of the prompt repel too, those of the last
    `remember` of them. They are kept in this process alone, for one guided pipeline: a memory holds
    finished images.

    Source: contextual space repulsion, 2026 (arXiv:2603.28762): text tokens after each joint block,
    this entropy, the first step or the first four. Departures: the normalised step, where theirs
    has a weight between 5e2 and 8e9 for each model, the kept norm, U-Nets, earlier images.

    Cost: for each layer O(n² d + n³) with `d` numbers in a layer's features of an image, no
    evaluation of the model. `remember` holds `2 d` bytes for each image, layer and step: 2 MB for
    `emoji`, about 60 MB for FLUX.1 schnell.

    Args:
        strength: length of the step, as a share of the norm of the features; 0 changes nothing.
        layers: "all", or "middle": the mid block of a U-Net, the middle one of a transformer.
        features_of: "auto" for the text where a layer changes it and for places elsewhere, "text",
            "image".
        remember: how many earlier images of a prompt repel too; 0 for none.
        stop: as in all methods. The default is the first step of up to 5, the first 4 of 20.

    Raises:
        OptionError: for an option outside its allowed values, or a `limit`, for x0 is not
            corrected.

    Example:
        >>> import torch
        >>> from unalike.guidance.context import Context, Layer
        >>> from unalike.guidance.level import Level
        >>> level = Level(alpha=0.1, sigma=0.9, next_alpha=0.5, next_sigma=0.5)
        >>> x_t, groups = torch.zeros(2, 1), torch.zeros(2)
        >>> context = Context(step=0, steps=4, level=level, x_t=x_t, groups=groups)
        >>> hidden = torch.tensor([[[4.0, 3.0]], [[3.0, 4.0]]])
        >>> layer = Layer("blocks.0", 0, 1, "image", (1,))
        >>> ContextualRepulsion(strength=1.0).features(hidden, layer, context).flatten(1)
        tensor([[ 4.9497, -0.7071],
                [-0.7071,  4.9497]])
    """

    name: ClassVar[str] = "contextual"
    summary: ClassVar[str] = "repels the denoiser's features of a prompt's images, at first steps"
    citation: ClassVar[str] = """@article{dahary2026repulsion,
  title = {On-the-fly Repulsion in the Contextual Space for Rich Diversity in Diffusion
    Transformers},
  author = {Dahary, Omer and Koren, Benaya and Garibi, Daniel and Cohen-Or, Daniel},
  journal = {arXiv preprint arXiv:2603.28762},
  year = {2026}
}"""

    strength: float = option(
        0.2, "length of the step, as a share of the norm of the features", low=0, high=100
    )
    layers: str = option(
        "all", "which layers of the denoiser it acts on", choices=("all", "middle")
    )
    features_of: str = option(
        "auto",
        "features of the text's tokens, or of the image's places",
        choices=("auto", "text", "image"),
    )
    remember: int = option(
        0, "how many earlier images of a prompt repel too", low=0, high=1_000_000
    )
    stop: float = option(0.2, "fraction of the schedule at which it ends", low=0, high=1)

    def features(self, hidden: Tensor, layer: Layer, context: Context) -> Tensor | None:
        """The features (B, …), apart; None where no image of a prompt has another one."""
        if self.strength == 0 or not layer.is_among(self.layers) or not self._reads(layer, context):
            return None
        own = hidden.to(torch.promote_types(hidden.dtype, torch.float32)).flatten(1)
        size = own.norm(dim=1, keepdim=True)
        f = own / size.clamp_min(torch.finfo(own.dtype).tiny)
        groups, turned, changed = context.groups.to(own.device), f.clone(), False
        for group in groups.unique():
            rows = (groups == group).nonzero().flatten()
            earlier = self._earlier(layer, context, rows)
            every = f[rows] if earlier is None else torch.cat([f[rows], earlier.to(f)])
            if len(every) > 1:
                direction = _away(every)[: len(rows)]
                turned[rows] = f[rows] + self.strength * direction
                changed = True
            if self.remember:
                self._store(layer, context, rows, turned[rows], earlier)
        if not changed:
            return None
        turned = turned / turned.norm(dim=1, keepdim=True).clamp_min(torch.finfo(own.dtype).tiny)
        return torch.where(size > 0, size * turned, own).view_as(hidden)

    def _reads(self, layer: Layer, context: Context) -> bool:
        """Whether these are features that it is to turn."""
        if self.features_of != "auto":
            return layer.stream == self.features_of
        if layer.stream == "text":
            context.state["text"] = True
            return True
        return not layer.joint and "text" not in context.state  # a last block may drop the text

    def _earlier(self, layer: Layer, context: Context, rows: Tensor) -> Tensor | None:
        """The unit features (k, d) of earlier images of the prompt of `rows`; None for none."""
        if not self.remember:
            return None
        kept = PromptStream(context).get(int(rows[0])) or {}
        return kept.get(_place(layer, context))

    def _store(
        self, layer: Layer, context: Context, rows: Tensor, f: Tensor, earlier: Tensor | None
    ) -> None:
        stream, image = PromptStream(context), int(rows[0])
        new = f.to("cpu", torch.float16)
        kept = new if earlier is None else torch.cat([earlier, new])
        found = stream.get(image) or {}
        stream.put(image, {**found, _place(layer, context): kept[-self.remember :]})


def _place(layer: Layer, context: Context) -> Any:
    return layer.name, layer.stream, layer.block, context.step


def _away(f: Tensor) -> Tensor:
    """The direction of ascent (n, d) of the entropy at unit rows `f`, each of norm 1; 0 where it
    says nothing.
    """
    precise = f if f.device.type == "mps" else f.double()  # which has no float64
    values, vectors = torch.linalg.eigh(precise @ precise.T / len(f))
    logs = values.clamp_min(torch.finfo(values.dtype).eps).log()
    away = -(vectors * logs) @ (vectors.T @ precise)
    away = away - (away * precise).sum(dim=1, keepdim=True) * precise
    length = away.norm(dim=1, keepdim=True)
    return torch.where(length > _NEGLIGIBLE, away / length, 0).to(f)
