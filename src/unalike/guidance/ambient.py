"""The ambient variant of guidance: predictions are decoded and compared by image features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.guidance.context import Context
from unalike.guidance.protocols import Images

Embed = Callable[[Tensor], Tensor]


class _Traced(NamedTuple):
    """Latents (b, …) with their features (b, e), which torch can differentiate."""

    leaf: Tensor
    e: Tensor


class Embedded:
    """The image features `e` of a batch of predictions, and the pull-back of directions to latents.

    Gradients are taken image by image, so that the graph of one decoder is held at a time; an image
    alone is decoded once.

    Args:
        x0: predictions (B, …), in float32 or better.
        context: of the step, with the host's `images`.
        embed: from images (n, 3, h, w) in [0, 1] to vectors (n, e).
        owner: the method, for messages.

    Raises:
        OptionError: where the host has no images, and for features that are not one vector an
            image.

    Cost: `B` images decoded and embedded, and where `B > 1` as many again with a backward pass
    each.
    """

    def __init__(self, x0: Tensor, context: Context, embed: Embed, owner: str) -> None:
        self._x0, self._images, self._embed, self._owner = x0, _images(context, owner), embed, owner
        self._alone = self._traced(0) if len(x0) == 1 else None
        if self._alone is not None:
            self.vectors = self._alone.e.detach().to(x0)
        else:
            self.vectors = embedded_rows(x0, context, embed, owner).to(x0)

    def pulled_back(self, v: Tensor) -> Tensor:
        """`Jᵀ v` (B, d) for each image's own `J = ∂e/∂x0` and `v` (B, e); 0 where `v` is.

        The decoder may be in half precision, so that vectors of norm 1 go through it.

        Raises:
            OptionError: for features without a gradient.
        """
        back = torch.zeros_like(self._x0.flatten(1))
        for i in v.any(dim=1).nonzero().flatten().tolist():
            leaf, e = self._alone or self._traced(i)
            length = v[i].norm()
            with torch.inference_mode(False), torch.enable_grad():
                gradient = None
                if e.requires_grad:
                    (gradient,) = torch.autograd.grad(
                        e, leaf, (v[i : i + 1] / length).clone().to(e), allow_unused=True
                    )
            if gradient is None:
                raise OptionError(
                    f"{self._owner}: embed gives vectors without a gradient; leave out no_grad and "
                    "detach, and anything outside torch"
                )
            back[i] = length * gradient.flatten().to(back)
        return back

    def _traced(self, image: int) -> _Traced:
        with torch.inference_mode(False), torch.enable_grad():
            leaf = self._x0[image : image + 1].detach().clone().requires_grad_()
            return _Traced(
                leaf, _one_vector_each(self._images.embedded(leaf, self._embed), 1, self._owner)
            )


@torch.no_grad()
def embedded_rows(x0: Tensor | None, context: Context, embed: Embed, owner: str) -> Tensor:
    """The features (n, e) of latents (n, …), or for None of the whole memory, without gradients.

    Raises:
        OptionError: where the host has no images, and for features that are not one vector an
            image.
    """
    images = _images(context, owner)
    if x0 is not None:
        return _one_vector_each(images.embedded(x0, embed), len(x0), owner).detach()
    return _one_vector_each(
        images.remembered(embed), 0 if context.memory is None else len(context.memory), owner
    ).detach()


def require_embed(embed: Any, owner: str) -> None:
    """Refuses what cannot be called.

    Raises:
        OptionError: with what to pass in its place.
    """
    if embed is not None and not callable(embed):
        hint = "extractor.embed" if hasattr(embed, "embed") else "function"
        raise OptionError(
            f"{owner}: embed is a {type(embed).__name__}; allowed: a function from images (n, 3, "
            "h, w) in [0, 1] to vectors (n, e) that "
            f"torch can differentiate, or None to compare latents, as in {owner}(embed={hint})"
        )


def _images(context: Context, owner: str) -> Images:
    if context.images is None:
        raise OptionError(
            f"{owner}: embed is given, and there is nothing here that decodes latents to images; "
            "sample with guide(pipe, …) and a pipeline "
            f"of images, pass images= to Run, or set {owner}(embed=None) to compare latents"
        )
    return context.images


def _one_vector_each(e: Any, count: int, owner: str) -> Tensor:
    if not isinstance(e, Tensor) or e.ndim != 2 or len(e) != count:
        got = tuple(e.shape) if isinstance(e, Tensor) else type(e).__name__
        raise OptionError(
            f"{owner}: embed made {got} of {count} images; allowed: one vector for each, (n, e)"
        )
    return e
