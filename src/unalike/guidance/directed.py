"""The step of SPARKE and Vendi guidance: of a given length, along a direction on the sphere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.guidance.ambient import Embedded, embedded_rows, require_embed
from unalike.guidance.context import Context
from unalike.guidance.method import Method
from unalike.guidance.noise import x0_edit
from unalike.guidance.protocols import References
from unalike.guidance.region import Region, checked, inside, restricted
from unalike.guidance.stored import stored_rows
from unalike.kernels import unit_rows
from unalike.options import option

_NEGLIGIBLE = 1e-8


@dataclass(frozen=True)
class Compared:
    """The vectors among which a direction is found: flattened latents, or features of images.

    Attributes:
        f: unit vectors (B, e) of the images that are moved, 0 outside of the region.
        clean: the predictions of the batch (B, e), whole and not scaled.
        own: whether `f` are the unit vectors of `clean`, and not of noisy latents.
        memory: earlier generations, or None.
        reference: the reference set, or None.
        inside: the numbers of each vector that count, (1, e) or (B, e) bool; None for all.
    """

    f: Tensor
    clean: Tensor
    own: bool
    memory: References | None
    reference: References | None
    inside: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Directed(Method, ABC):
    """Base of methods that move each image by `strength · ||x||` along a direction on the sphere.

    With the region `m` (1 everywhere without one), the latent `x` that is moved and `f = m∘x /
    ||m∘x||`, a subclass gives `away(f)`, a weighted mean of unit vectors. Its score depends on `f`
    alone, so that the part of `away` along `f` is left out:

        v = m∘away - <m∘away, f> f + regularizer · (d - 1 - ||m∘x||²) f,    d the numbers inside,
        delta = strength · ||m∘x|| · v / ||v||

    and nothing where `||v||` is below 1e-8, as published, or below the rounding error of the mean.

    `target="x0"` moves the prediction. `target="x_t"` moves the noisy latent as published: `f` is
    that of `x_t`, and the correction is the edit of x0 that moves the next latent as far as `x_t +
    delta`, with the model's output kept, would have (see `x0_edit`).

    With `embed` the direction is found among `f = e / ||e||`, the embeddings `e = embed(image)` of
    the images that predictions decode to, and pulled back through encoder and decoder, for either
    target at the prediction x0, since noisy latents are no images:

        v = m∘(||m∘x0|| · Jᵀ (away - <away, f> f) / ||e||) + regularizer · (…),    J = ∂e/∂x0

    Images are then compared as a whole, wherever the region is, and moved inside of it.

    Source: the step is that of Jalali, Lei, Gohari and Farnia 2025 (arXiv:2506.10173), with latents
    or, in its ambient variant, decoded images; the regulariser that of Eyring et al. 2024
    (arXiv:2406.04312).
    """

    repaired: ClassVar[bool] = True

    _prompted: ClassVar[str]  # how to have prompts count, and how not, for messages
    _unprompted: ClassVar[str]

    strength: float = option(
        0.05, "size of a step, as a share of the norm of the latent", low=0, high=100
    )
    kernel: str = option(
        "gaussian", "kernel on latents and prompts", choices=("gaussian", "cosine")
    )
    bandwidth: float = option(
        0.8, "of the Gaussian kernel on latents scaled to norm 1", above=0, high=1000
    )
    prompt_bandwidth: float = option(
        0.35, "of the Gaussian kernel on prompt embeddings scaled to norm 1", above=0, high=1000
    )
    target: str = option(
        "x0",
        "what is moved: the predicted clean latent, or the noisy one as published",
        choices=("x0", "x_t"),
    )
    batch: bool = option(True, "images of a batch are unlike each other")
    memory: bool = option(True, "images are unlike earlier generations")
    reference: Tensor | None = field(default=None, repr=False)
    reference_prompts: Tensor | None = field(default=None, repr=False)
    reference_weight: float = option(
        0.0, "above 0: away from the reference set; below 0: towards it", low=-1000, high=1000
    )
    regularizer: float = option(
        0.0, "weight of the term that holds the norm of the latent", low=0, high=1000
    )
    region: Region | None = None
    embed: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "region", checked(self.region, self._owner))
        require_embed(self.embed, self._owner)
        self._require_whole_reference()

    @property
    @abstractmethod
    def reads_prompts(self) -> bool:
        """Whether samples count by how similar their prompts are."""

    @abstractmethod
    def away(self, compared: Compared, context: Context) -> tuple[Tensor, Tensor | float]:
        """The direction away from the references of `compared`: (B, e).

        For each set that there is, a mean of unit vectors; the reference set's times
        `reference_weight`.

        Its parts along `f` and outside of the region may be anything. With it the length, (B, 1) or
        one for all, below which the rest is but rounding error. Called only when references exist.
        """

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        """The correction (B, …); None where the strength is 0, there is nothing to be unlike, or
        the sampler does not move.
        """
        if self.strength == 0 or not self._has_others(len(x0), context):
            return None
        clean = x0.to(torch.promote_types(x0.dtype, torch.float32))
        mask = inside(self.region, clean, context, self._owner)
        if mask is not None and not mask.any():
            return None
        x = restricted((clean if self.target == "x0" else context.x_t.to(clean)).flatten(1), mask)
        f, size = unit_rows(x), x.norm(dim=1, keepdim=True)
        if self.embed is None:
            rows = clean.flatten(1)
            compared = Compared(
                f,
                rows,
                self.target == "x0",
                self._memory(clean, context),
                self._reference(clean, context),
                mask,
            )
            direction, floor = self._along(compared, context)
            direction = restricted(direction, mask)
        else:
            direction, floor = (
                self._pulled_back(self.embed, clean, mask, context),
                x.new_full((1, 1), torch.finfo(x.dtype).tiny),
            )
        if self.regularizer > 0:
            numbers = x.shape[1] if mask is None else mask.sum(dim=1, keepdim=True)
            direction = direction + self.regularizer * (numbers - 1 - size.square()) * f
        length = direction.norm(dim=1, keepdim=True)
        direction = torch.where(
            length <= floor, 0, direction / torch.maximum(length, floor)
        )  # so that NaN stays, and is reported
        shift = (self.strength * size * direction).view_as(x0)
        return shift if self.target == "x0" else x0_edit(shift, context)

    def _along(self, compared: Compared, context: Context) -> tuple[Tensor, Tensor]:
        """The part of `away` (B, e) that is tangent to the sphere, and the length (1 or B, 1) below
        which it says nothing.
        """
        away, rounding = self.away(compared, context)
        along = (away * compared.f).sum(dim=1, keepdim=True)
        return away - along * compared.f, torch.as_tensor(rounding).to(away).reshape(
            -1, 1
        ).clamp_min(_NEGLIGIBLE)

    def _pulled_back(
        self,
        embed: Callable[[Tensor], Tensor],
        clean: Tensor,
        mask: Tensor | None,
        context: Context,
    ) -> Tensor:
        """The direction among embeddings as one among latents (B, d), in shares of the latents'
        norm; 0 where it says nothing.
        """
        images = Embedded(clean, context, embed, self._owner)
        e = images.vectors
        compared = Compared(
            unit_rows(e),
            e,
            True,
            self._memory(clean, context),
            self._reference(clean, context),
            None,
        )
        v, floor = self._along(compared, context)
        v = torch.where(v.norm(dim=1, keepdim=True) <= floor, 0, v)
        size = e.norm(dim=1, keepdim=True).clamp_min(torch.finfo(e.dtype).tiny)
        return restricted(
            restricted(clean.flatten(1), mask).norm(dim=1, keepdim=True)
            / size
            * images.pulled_back(v),
            mask,
        )

    def _has_others(self, batch: int, context: Context) -> bool:
        remembered = self.memory and context.memory is not None and len(context.memory) > 0
        return remembered or (self.batch and batch > 1) or self.reference is not None

    def _memory(self, x0: Tensor, context: Context) -> References | None:
        """Earlier generations in the space that is compared; None where there are none, or they do
        not count.
        """
        memory = context.memory
        if not self.memory or memory is None or len(memory) == 0:
            return None
        if self.embed is None:
            return memory
        kept = context.state.get("embedded memory")
        if kept is None:
            stored_rows(
                memory.latents, x0.flatten(1), f"{self._owner}: the memory"
            )  # refuses another model's, which would be decoded too
            rows = embedded_rows(None, context, self.embed, self._owner).to(x0)
            kept = context.state["embedded memory"] = References(rows, memory.prompts)
        return kept

    def _reference(self, x0: Tensor, context: Context) -> References | None:
        """The reference set in the space that is compared."""
        if self.reference is None:
            return None
        kept = context.state.get("reference set")
        if kept is None:
            rows = self.reference.flatten(1)
            if self.embed is not None:
                rows = stored_rows(rows, x0.flatten(1), f"{self._owner}: the reference").view(
                    -1, *x0.shape[1:]
                )
                rows = torch.cat(
                    [
                        embedded_rows(part, context, self.embed, self._owner)
                        for part in rows.split(len(x0))
                    ]
                ).to(x0)
            kept = context.state["reference set"] = References(rows, self.reference_prompts)
        return kept

    @property
    def _owner(self) -> str:
        return type(self).__name__

    def _no_prompts(self, whose: str) -> str:
        return (
            f"{self._owner}({self._prompted}) needs prompt embeddings, and {whose} has none; pass "
            "prompt_encoder= to guide "
            "(a function from a list of prompts to embeddings), or set "
            f"{self._owner}({self._unprompted})"
        )

    def _other_encoder(self, stored: int, own: int) -> str:
        return (
            f"{self._owner}: stored prompt embeddings have size {stored} and those of this "
            f"generation {own}; they must come from "
            "the same encoder: pass that one as prompt_encoder to guide, or set "
            f"{self._owner}({self._unprompted})"
        )

    def _require_whole_reference(self) -> None:
        """Refuses a reference set that is malformed, or given in part so that something would be
        ignored.
        """
        owner, reference, prompts, weight = (
            self._owner,
            self.reference,
            self.reference_prompts,
            self.reference_weight,
        )
        example = f"as in {owner}(reference=latents, reference_weight=0.5)"
        if reference is None:
            if prompts is not None or weight != 0:
                given = (
                    "reference_prompts" if prompts is not None else f"reference_weight {weight:g}"
                )
                raise OptionError(
                    f"{owner}: {given} is given without reference; pass the latents too, {example}"
                )
            return
        if (
            not isinstance(reference, Tensor)
            or reference.ndim < 2
            or len(reference) == 0
            or not torch.isfinite(reference).all()
        ):
            raise OptionError(
                f"{owner}: reference is {_kind(reference)}; allowed: a tensor of finite latents "
                "(m, …) with at least one row"
            )
        if weight == 0:
            raise OptionError(
                f"{owner}: reference is given and reference_weight is 0, so it would do nothing; "
                "set a weight above 0 to move away from "
                f"it, below 0 to approach it, {example}"
            )
        if prompts is None:
            return
        if not self.reads_prompts:
            raise OptionError(
                f"{owner}: reference_prompts is given, and {owner}({self._unprompted}) reads no "
                "prompts; leave it out, or set "
                f"{self._prompted}"
            )
        if not isinstance(prompts, Tensor) or prompts.ndim != 2 or len(prompts) != len(reference):
            raise OptionError(
                f"{owner}: reference_prompts is {_kind(prompts)}; allowed: a tensor (m, p) with "
                "one row for each of the "
                f"{len(reference)} references"
            )


def _kind(value: Any) -> str:
    return (
        f"of shape {tuple(value.shape)}"
        if isinstance(value, Tensor)
        else f"a {type(value).__name__}"
    )
