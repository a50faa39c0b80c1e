"""SPELL: sparse repellency, which moves a predicted image out of balls around protected or earlier
ones and otherwise does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.guidance.balls import Balls
from unalike.guidance.context import Context
from unalike.guidance.method import Method
from unalike.guidance.protocols import Protected, ProtectedFeatures
from unalike.guidance.region import Region, checked, inside, restricted
from unalike.guidance.stored import stored_rows
from unalike.kernels import unit_rows
from unalike.options import option

LAST = 0.7
"""The share of the schedule after which SPELL leaves images to the model, where they are judged as
they are finished: a push at the end keeps a distance and leaves a copy.
"""
_SAME_PROMPT = 0.999  # cosine of two embeddings of one prompt, with room for half precision


@dataclass(frozen=True, kw_only=True)
class SPELL(Method):
    """Moves each predicted clean latent out of the balls around references that it lies in.

    With radius `r` and references `z_k`,

        delta(x0) = overcompensation · Σ_k max(0, r / ||x0 - z_k|| - 1) · (x0 - z_k)

    One ball and overcompensation 1 lead exactly to its surface. Where balls overlap the sum has no
    guarantee. Where none is touched nothing is returned, and the trajectory is exactly the unguided
    one. References are any mix of the protected set (its own radius counts), the memory, and the
    predictions of the other images of the batch, each moved by the full distance as published.

    A protected set of image features, `e = f(decoded x0)`, repels along a gradient instead: with
    `s` the sum above for `e`, and `g` its pull-back through encoder and decoder (the gradient of
    `Σ_k (r ||e - z_k|| - ||e - z_k||² / 2)`), the move is `(||s||² / ||g||²) · g`. To first order
    it takes `e` as far along `s` as `s` is long; in the latent space itself it is `s`.

    At a centre itself no direction leads out by the formula; there the move is `r` along the noise
    of this step, `x_t - alpha · z_k`, which differs between images, or along the diagonal (1, …, 1)
    when there is no noise.

    With a region, balls stay balls of all numbers, and the move goes along those inside of it. With
    `x0 - z_k = a + b`, `a` inside and `b` outside, the term of a ball that x0 lies in is

        (sqrt(r² - ||b||²) / ||a|| - 1) · a

    which leads to its surface too, and where `a` is 0 it is `sqrt(r² - ||b||²)` along the part of
    the noise that is inside. The move of a protected set of features is cut off at the region.
    What is done after the last step is not: an image that ends up inside of a shield is moved out
    of it as a whole, region or not.

    Source: Kirchhof et al. 2025, Eq. 5 (references), Eq. 8 (batch) and the radius rule of the
    appendix (arXiv:2410.06025). Departure: with `same_prompt` only images of the same prompt repel
    each other, where the publication has one prompt to a batch.

    Cost: one matrix product per step, O(B (n + m + B) d), to find the balls that may be touched;
    those alone are then measured exactly.

    Args:
        radius: of the balls around the memory and the batch, a Euclidean distance in the model's
            own latent space, or "auto": the median distance between unguided images of one prompt,
            measured by `calibrated`.
        factor: what share of that median "auto" takes; published settings lie between 0 and 2.
        overcompensation: multiplies the move; 1 as derived, 1.6 as published for several models; 0
            changes nothing.
        batch: whether images of the batch repel each other.
        memory: whether earlier generations repel.
        shield: whether the protected set repels.
        same_prompt: whether batch and memory repel only images of the same prompt; earlier
            generations count as such where the cosine of the prompt embeddings is above 0.999, and
            all of them do where embeddings are missing. The protected set always repels.
        region: where images are moved, as `unalike.guidance.region.checked` takes it; None for
            everywhere.

    Raises:
        OptionError: for an option outside its allowed values; from `x0_delta` for a radius still to
            be measured, for references of another size, and for a region where the host knows no
            places; from `calibrated` for fewer than two images or identical ones.

    Example:
        >>> import torch
        >>> from unalike.guidance.balls import Balls
        >>> from unalike.guidance.context import Context
        >>> from unalike.guidance.level import Level
        >>> x0 = torch.tensor([[0.6, 0.0], [0.0, 2.0]])
        >>> context = Context(
        ...     step=0, steps=1, level=Level(alpha=1, sigma=1, next_alpha=1, next_sigma=0), x_t=x0,
        ...     groups=torch.zeros(2, dtype=torch.int64),
        ...     shield=Balls(torch.zeros(1, 2), radius=1.0),
        ... )
        >>> SPELL(radius=0.5).x0_delta(x0, context)  # only the first lies in the ball around 0
        tensor([[0.4000, 0.0000],
                [0.0000, 0.0000]])
    """

    name: ClassVar[str] = "spell"
    summary: ClassVar[str] = (
        "moves images out of balls around protected images, earlier ones and each other; changes "
        "nothing else"
    )
    citation: ClassVar[str] = """@inproceedings{kirchhof2025shielded,
  title = {Shielded Diffusion: Generating Novel and Diverse Images using Sparse Repellency},
  author = {Kirchhof, Michael and Thornton, James and B{\\'e}thune, Louis and Ablin, Pierre and
    Ndiaye, Eugene and Cuturi, Marco},
  booktitle = {Proceedings of the 42nd International Conference on Machine Learning},
  series = {PMLR},
  volume = {267},
  pages = {30911--30942},
  year = {2025},
  eprint = {2410.06025},
  archivePrefix = {arXiv}
}"""

    radius: float | str = option(
        "auto",
        "of the balls around memory and batch, in the units of the latents",
        above=0,
        high=1_000_000_000,
        choices=("auto",),
    )
    factor: float = option(
        1.0, "share of the median distance that radius 'auto' takes", above=0, high=1000
    )
    overcompensation: float = option(1.0, "multiplies the move out of a ball", low=0, high=100)
    batch: bool = option(True, "images of a batch repel each other")
    memory: bool = option(True, "earlier generations repel")
    shield: bool = option(True, "the protected set repels")
    same_prompt: bool = option(
        True, "only images of the same prompt repel each other, the protected set aside"
    )
    region: Region | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "region", checked(self.region, "SPELL"))

    @property
    def needs_calibration(self) -> bool:
        """Whether the radius is still to be measured: it is "auto", and the batch or the memory
        repels.
        """
        return self.radius == "auto" and (self.batch or self.memory)

    def calibrated(self, latents: Tensor, groups: Tensor) -> Self:
        """The same method with radius `factor` times the median distance between unguided images of
        one prompt; itself for a number.

        Args:
            latents: final, unguided latents (B, …).
            groups: (B,), equal for images of the same prompt. Where each image has a prompt of its
                own, all pairs are measured.

        Raises:
            OptionError: for fewer than two images, or a median of 0.

        Example:
            >>> latents, groups = torch.tensor([[0.0], [4.0], [9.0]]), torch.tensor([0, 0, 1])
            >>> SPELL(factor=0.5).calibrated(latents, groups).radius
            2.0
        """
        if self.radius != "auto":
            return self
        if len(latents) < 2:
            raise OptionError(
                "SPELL: radius 'auto' measures distances between images and there is "
                f"{len(latents)}; make at least two images of a prompt "
                "in that call, or set a number, as in SPELL(radius=20.0)"
            )
        first, second = torch.triu_indices(
            len(latents), len(latents), offset=1, device=latents.device
        )
        distances = torch.nn.functional.pdist(latents.flatten(1).float())
        together = groups.to(latents.device)[first] == groups.to(latents.device)[second]
        radius = (
            self.factor
            * distances[together if together.any() else slice(None)].quantile(0.5).item()
        )
        if not radius > 0:
            raise OptionError(
                f"SPELL: radius 'auto' measured {radius:g}: the unguided images are identical; set "
                "a number, as in SPELL(radius=20.0)"
            )
        return replace(self, radius=radius)

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        """The correction (B, …); None where no ball is touched."""
        if self.overcompensation == 0:
            return None
        x = x0.flatten(1).to(torch.promote_types(x0.dtype, torch.float32))
        mask = inside(self.region, x0, context, "SPELL")
        if mask is not None:
            mask = mask.expand_as(x)
        x_t = context.x_t.flatten(1).to(x)
        total = self._pushed(x0, context)
        if total is not None:
            total = restricted(total, mask)
        for balls in self._balls(x, context):
            for image, rows in balls.touched(x):
                own = None if mask is None else mask[image]
                out = _way_out(x[image], rows, balls.radius, x_t[image], context.level.alpha, own)
                if out is not None:
                    total = torch.zeros_like(x) if total is None else total
                    total[image] += out
        return None if total is None else (self.overcompensation * total).view_as(x0)

    def _pushed(self, x0: Tensor, context: Context) -> Tensor | None:
        """The way out (B, d) of a protected set in another space than the latents'."""
        if not (self.shield and isinstance(context.shield, ProtectedFeatures)):
            return None
        out = context.shield.way_out(x0.to(torch.promote_types(x0.dtype, torch.float32)), context)
        return None if out is None else out.flatten(1)

    def _balls(self, x: Tensor, context: Context) -> Iterator[Protected]:
        if (
            self.shield
            and context.shield is not None
            and not isinstance(context.shield, ProtectedFeatures)
            and len(context.shield)
        ):
            yield context.shield
        if self.memory and context.memory is not None and len(context.memory):
            if "memory" not in context.state:
                rows = stored_rows(context.memory.latents, x, "SPELL: the memory")
                counts = _same_prompt(x, context) if self.same_prompt else None
                context.state["memory"] = Balls(rows, self._radius(), counts)
            yield context.state["memory"]
        if self.batch and len(x) > 1:
            others = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
            if self.same_prompt:
                groups = context.groups.to(x.device)
                others &= groups[:, None] == groups
            yield Balls(x, self._radius(), others)

    def _radius(self) -> float:
        if isinstance(self.radius, str):
            raise OptionError(
                "SPELL: radius is 'auto' and was not measured; use method.calibrated(latents, "
                "groups) with final, unguided latents, "
                "or set a number, as in SPELL(radius=20.0)"
            )
        return self.radius


def _same_prompt(x: Tensor, context: Context) -> Tensor | None:
    """Mark the earlier generations (B, n) that have each image's prompt.

    None, which stands for all, where that is not known.
    """
    stored = None if context.memory is None else context.memory.prompts
    if stored is None or context.prompts is None:
        return None
    if stored.shape[1] != context.prompts.shape[1]:
        raise OptionError(
            f"SPELL: prompt embeddings in the memory have size {stored.shape[1]} and those of this "
            f"generation {context.prompts.shape[1]}; "
            "they must come from the same encoder: pass that one as prompt_encoder to guide, or "
            "set SPELL(same_prompt=False)"
        )
    return unit_rows(context.prompts.to(x)) @ unit_rows(stored.to(x)).T > _SAME_PROMPT


def _way_out(
    x: Tensor, rows: Tensor, radius: float, x_t: Tensor, alpha: float, mask: Tensor | None
) -> Tensor | None:
    """The sum (d,) of the ways out of balls around centres `z_k` (k, d), by exact distances; None
    where x is inside of none.

    Without a mask (d,) `Σ_k max(0, r / ||x - z_k|| - 1) · (x - z_k)`, with one `Σ_k (sqrt(r² -
    ||b||²) / ||a|| - 1) · a`.
    """
    away = x - rows
    distance = away.norm(dim=1)
    touched = distance < radius
    if not touched.any() or (mask is not None and not mask.any()):
        return None
    reach: Tensor | float = radius
    if mask is not None:
        rest, away = away.masked_fill(mask, 0).norm(dim=1), restricted(away, mask)
        distance, reach = away.norm(dim=1), ((radius - rest) * (radius + rest)).clamp_min(0).sqrt()
    out = (
        torch.where(
            touched & (distance > 0), reach / distance.clamp_min(torch.finfo(x.dtype).tiny) - 1, 0
        ).clamp_min(0)
        @ away
    )
    for k in (distance == 0).nonzero().flatten().tolist():
        noise = restricted(x_t - alpha * rows[k], mask)
        direction = unit_rows(noise if noise.any() else restricted(torch.ones_like(noise), mask))
        out = out + (reach[k] if isinstance(reach, Tensor) else reach) * direction
    return out
