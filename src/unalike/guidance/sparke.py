"""SPARKE: move each image away from the others, most from those with a similar prompt, by the gradient of an order-2 kernel entropy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.guidance.base import Context, Method, References, option, stored_rows
from unalike.guidance.stored import Block, Stored, parts
from unalike.kernels import unit_rows

_NEGLIGIBLE = 1e-8
_BLOCK = 2**20  # numbers of a block of stored rows, 4 MiB: a processor's cache holds it


@dataclass(frozen=True, kw_only=True)
class SPARKE(Method):
    """Descends `IRKE(Z) = ||K_Z / n||_F²` or, by default, `Cond-IRKE(Z|Y) = ||K_Z ∘ K_Y||_F² / ||K_Y||_F²` in each image of a batch.

    With `f = x / ||x||` and stored unit vectors `f_i`, prompts `y` and `y_i` scaled to norm 1 too, the direction of descent is that of

        Gaussian: f - Σ_i softmax_i(2 log k_Z(f, f_i) + 2 log k_Y(y, y_i)) f_i
        cosine:     - Σ_i k_Y(y, y_i)² k_Z(f, f_i) f_i

    projected on the tangent space at `f` and scaled to norm 1 for each image. Stored are the memory and, with `batch`, the predicted
    clean latents of the other images. The softmax is that of the published gradient, written so that far-apart samples still give a
    direction. An image is left alone where the direction is below 1e-8, as published, or below the rounding error of its sum.

    With `target="x0"` the correction is `strength · ||x0|| · direction`. With `target="x_t"`, the published step, `f` is the noisy latent
    and the correction is the edit of x0 that moves the next latent as far as `x_t + strength · ||x_t|| · direction`, with the model's
    output kept, would have (see `x0_edit`); use it with `strength` 0.02 to 0.4 and, for instance, `every=10`.

    A reference set adds `reference_weight` times its own direction, each of the two averaged over its own kernel sum: positive weights
    move away from it, negative ones towards it. The regulariser adds the gradient of `-½ ||x||² + (d - 1) log ||x||`, which holds the
    norm of `x` where normal noise has it; it acts only beside a repulsion, and mostly makes sense with `target="x_t"`.

    Source: Jalali, Lei, Gohari and Farnia 2025, Cond-IRKE and its gradient (arXiv:2506.10173); reference sets: Askari Hemmat et al. 2024
    (arXiv:2406.04551); regulariser: Eyring et al. 2024 (arXiv:2406.04312). Departures: whole batches with a prompt each, the x0 target
    (the default, at every step), reference sets averaged by their own sums so that their size does not matter.

    Cost: one pass per step over those `m` of the `n` stored latents whose prompts matter to an image, O(B (m + B) d) time for the batch;
    images with unlike prompts read different ones. The rest is left out: with `tolerance`, they are so many as weigh at most that share
    of the others together whatever their latents are, which moves the mean over the stored vectors by at most `2 · tolerance`. Each step
    checks that and reads them too where it fails, as for an image that lies opposite to all with its prompt. Where fewer than half matter
    to the batch they are copied at the first step, so that beside the memory itself O(B (n + d) + m d) space is needed. No autograd.

    Args:
        strength: size of a step as a share of the norm of the latent; 0 changes nothing.
        objective: "cond-rke" weighs samples by how similar their prompts are, "rke" counts all alike.
        kernel: "gaussian" or "cosine", for latents and prompts.
        bandwidth: of the Gaussian kernel on latents scaled to norm 1.
        prompt_bandwidth: of the Gaussian kernel on prompt embeddings scaled to norm 1.
        target: "x0" corrects the prediction itself, "x_t" is the published shift of the noisy latent.
        batch: whether the images of the batch are unlike each other.
        memory: whether they are unlike earlier generations.
        reference: latents (m, …) of a reference set, or None.
        reference_prompts: embeddings (m, p) of its prompts; None where it counts the same for every prompt.
        reference_weight: above 0 to move away from the reference set, below 0 to approach it.
        regularizer: weight of the norm's regulariser, on the scale of a direction between unit vectors.
        tolerance: weight that stored samples with unlike prompts may have together, as a share of the others', to be left out; 0 for none.

    Raises:
        OptionError: for an option outside its allowed values; from `x0_delta` where "cond-rke" lacks prompt embeddings, or stored
            latents or embeddings are of another size.

    Example:
        >>> import torch
        >>> from unalike.guidance.base import Context
        >>> x0 = torch.tensor([[3.0, 4.0], [4.0, 3.0]])
        >>> groups = torch.zeros(2, dtype=torch.int64)
        >>> context = Context(step=0, steps=1, alpha=1, sigma=1, next_alpha=1, next_sigma=0, x_t=x0, groups=groups)
        >>> SPARKE(strength=0.1).x0_delta(x0, context)  # 0.1 of the norm 5, apart along the circle
        tensor([[-0.4000,  0.3000],
                [ 0.3000, -0.4000]])
    """

    name: ClassVar[str] = "sparke"
    summary: ClassVar[str] = "moves images apart by prompt-aware kernel entropy; linear in their number, also with a long memory"
    citation: ClassVar[str] = """@article{jalali2025sparke,
  title = {SPARKE: Scalable Prompt-Aware Diversity and Novelty Guidance in Diffusion Models via RKE Score},
  author = {Jalali, Mohammad and Lei, Haoyu and Gohari, Amin and Farnia, Farzan},
  journal = {arXiv preprint arXiv:2506.10173},
  year = {2025}
}"""

    strength: float = option(0.05, "size of a step, as a share of the norm of the latent", low=0)
    objective: str = option("cond-rke", "whether samples count by how similar their prompts are", choices=("cond-rke", "rke"))
    kernel: str = option("gaussian", "kernel on latents and prompts", choices=("gaussian", "cosine"))
    bandwidth: float = option(0.8, "of the Gaussian kernel on latents scaled to norm 1", above=0)
    prompt_bandwidth: float = option(0.35, "of the Gaussian kernel on prompt embeddings scaled to norm 1", above=0)
    target: str = option("x0", "what is moved: the predicted clean latent, or the noisy one as published", choices=("x0", "x_t"))
    batch: bool = option(True, "images of a batch are unlike each other")
    memory: bool = option(True, "images are unlike earlier generations")
    reference: Tensor | None = field(default=None, repr=False)
    reference_prompts: Tensor | None = field(default=None, repr=False)
    reference_weight: float = option(0.0, "above 0: away from the reference set; below 0: towards it")
    regularizer: float = option(0.0, "weight of the term that holds the norm of the latent", low=0)
    tolerance: float = option(1e-3, "share of the weight of stored samples that may be left out", low=0, high=0.1)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_reference(self.reference, self.reference_prompts, self.reference_weight, self.objective)

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        """The correction (B, …); None where the strength is 0, there is nothing to be unlike, or the sampler does not move."""
        if self.strength == 0:
            return None
        clean = x0.flatten(1).to(torch.promote_types(x0.dtype, torch.float32))
        stored, reference = self._stored(clean, context), self._reference(clean, context)
        if not stored and reference is None:
            return None
        x = clean if self.target == "x0" else context.x_t.flatten(1).to(clean)
        f, size = unit_rows(x), x.norm(dim=1, keepdim=True)
        towards = torch.zeros_like(f)
        if stored:
            towards = towards + self._mean(f, stored)
        if reference is not None:
            towards = towards + self.reference_weight * self._mean(f, [reference])
        direction = (towards * f).sum(dim=1, keepdim=True) * f - towards  # the descent on the sphere: f itself drops out
        if self.regularizer > 0:
            direction = direction + self.regularizer * (x.shape[1] - 1 - size.square()) * f
        length = direction.norm(dim=1, keepdim=True)
        floor = max(_NEGLIGIBLE, 4 * torch.finfo(length.dtype).eps)
        direction = torch.where(length > floor, direction / length.clamp_min(floor), 0)
        shift = (self.strength * size * direction).view_as(x0)
        return shift if self.target == "x0" else x0_edit(shift, context)

    def _mean(self, f: Tensor, sets: list[Stored]) -> Tensor:
        """The kernel-weighted mean (B, d) of all stored unit vectors, in one pass over the rows.

        A large memory is read from the machine's memory once: each block gives its weights and takes part in the sum while it is in the
        cache. The softmax is that of Milakov and Gimelshein 2018 (arXiv:1805.02867), which rescales the sum where a larger logit comes.
        """
        total, mass = torch.zeros_like(f), f.new_zeros(len(f), 1)
        top = torch.full_like(mass, torch.finfo(f.dtype).min)
        for s in sets:
            for images, index in s.parts:
                blocks = s.blocks(images, index, _BLOCK)
                total[images], mass[images], top[images] = self._added(blocks, f[images], total[images], mass[images], top[images])
        if self._too_much_left_out(sets, mass, top):
            return self._mean(f, [s.whole or s for s in sets])
        return total / mass.clamp_min(torch.finfo(f.dtype).tiny)

    def _too_much_left_out(self, sets: list[Stored], mass: Tensor, top: Tensor) -> bool:
        """Whether what is left out may weigh more than `tolerance` times what was read, its latents being as near as can be (`k_Z = 1`)."""
        left_out = [s.left_out for s in sets if s.left_out is not None]
        if not left_out:
            return False
        most = torch.stack(left_out).logsumexp(dim=0) + 2 / self.bandwidth**2
        return bool((most > math.log(self.tolerance or torch.finfo(torch.float64).tiny) + mass.log() + top).any())

    def _added(self, blocks: Iterator[Block], f: Tensor, total: Tensor, mass: Tensor, top: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted sum, sum of weights and largest logit of images `f` with those of more rows; `total` is changed in place."""
        for rows, inverse, prompt in blocks:
            gram = (f @ rows.T) * inverse
            if self.kernel == "gaussian":
                logits = gram * (2 / self.bandwidth**2) + prompt
                higher = torch.maximum(top, logits.amax(dim=1, keepdim=True))
                weights, shrink, top = (logits - higher).exp(), (top - higher).exp(), higher
                mass = mass * shrink + weights.sum(dim=1, keepdim=True)
                total *= shrink
            else:
                weights = prompt * gram
                mass = mass + prompt.sum(dim=1, keepdim=True)
            total.addmm_(weights * inverse, rows)
        return total, mass, top

    def _stored(self, clean: Tensor, context: Context) -> list[Stored]:
        sets = []
        if self.memory and context.memory is not None and len(context.memory):
            sets.append(self._kept("memory", context.memory, clean, context))
        if self.batch and len(clean) > 1:
            terms = self._batch_terms(clean, context)
            own = torch.eye(len(clean), dtype=torch.bool, device=clean.device)
            sets.append(Stored(clean, terms.masked_fill(own, -torch.inf if self.kernel == "gaussian" else 0)))
        return sets

    def _reference(self, clean: Tensor, context: Context) -> Stored | None:
        if self.reference is None:
            return None
        return self._kept("reference", References(self.reference.flatten(1), self.reference_prompts), clean, context)

    def _kept(self, what: str, source: References, clean: Tensor, context: Context) -> Stored:
        """A fixed set, prepared at the first step of a run and kept in its state."""
        kept = context.state.get(what)
        if kept is None:
            rows = stored_rows(source.latents, clean, f"SPARKE: the {what}")
            unconditional = self.objective == "rke" or (what == "reference" and source.prompts is None)
            if unconditional:
                terms = self._prompt_terms(None, None, (len(clean), len(rows)), clean)
            else:
                if context.prompts is None or source.prompts is None:
                    raise OptionError(_no_prompts("this generation" if context.prompts is None else f"the {what}"))
                terms = self._prompt_terms(context.prompts, source.prompts, (len(clean), len(rows)), clean)
            kept = context.state[what] = self._without_negligible(Stored(rows, terms))
        return kept

    def _without_negligible(self, whole: Stored) -> Stored:
        """The set without samples whose prompts do not matter; itself where leaving them out saves no time."""
        matters = self._matters(whole.prompt_terms)
        to_any = matters.any(dim=0)
        left_out = None
        if self.kernel == "gaussian":  # cosine's weights are those of the prompts, so that there is nothing to be checked later
            left_out = whole.prompt_terms.masked_fill(matters, -torch.inf).logsumexp(dim=1, keepdim=True)
        if 2 * to_any.sum() < len(to_any):
            rows, terms = whole.rows[to_any], whole.prompt_terms[:, to_any]
            return Stored(rows, terms, parts(matters[:, to_any]), left_out, whole)
        own = parts(matters)
        return whole if own[0][1] is None else replace(whole, parts=own, left_out=left_out, whole=whole)

    def _matters(self, terms: Tensor) -> Tensor:
        """Which stored samples matter to each image (B, n), by their prompt terms (B, n); the others are left out.

        As `k_Z² <= 1`, samples with a share `s` of the prompts' weight have at most `s / (1 - s) · exp(2 (1 - c) / bandwidth²)` times the
        weight of the others, whose cosines with the image average `c` or more. `c = -1/8` is taken, for few images of a model lie further
        apart; `_too_much_left_out` checks it at each step. Cosine kernels only shrink weights: `s / (1 - s)`.
        """
        if self.kernel == "gaussian":
            share, range_ = torch.softmax(terms.double(), dim=1), math.exp(min(2.25 / self.bandwidth**2, 700))
        else:
            share, range_ = terms.double() / terms.double().sum(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny), 1.0
        ascending = share.sort(dim=1)
        small = ascending.values.cumsum(dim=1) <= self.tolerance / (range_ + self.tolerance)
        return ~torch.zeros_like(small).scatter(1, ascending.indices, small)

    def _batch_terms(self, clean: Tensor, context: Context) -> Tensor:
        terms = context.state.get("batch")
        if terms is None:
            prompts = None if self.objective == "rke" else context.prompts
            if self.objective == "cond-rke" and prompts is None and len(context.groups.unique()) > 1:
                raise OptionError(_no_prompts("this generation, of several prompts,"))
            terms = context.state["batch"] = self._prompt_terms(prompts, prompts, (len(clean), len(clean)), clean)
        return terms

    def _prompt_terms(self, y: Tensor | None, y_i: Tensor | None, shape: tuple[int, int], like: Tensor) -> Tensor:
        """`log k_Y²` (Gaussian) or `k_Y²` (cosine) for each image and stored sample; that of `k_Y = 1` without prompts."""
        if y is None or y_i is None:
            return like.new_full(shape, 0.0 if self.kernel == "gaussian" else 1.0)
        if y.shape[1] != y_i.shape[1]:
            raise OptionError(
                f"SPARKE: stored prompt embeddings have size {y_i.shape[1]} and those of this generation {y.shape[1]}; they must come from "
                "the same encoder: pass that one as prompt_encoder to guide, or set SPARKE(objective='rke')"
            )
        cosine = unit_rows(y.to(like)) @ unit_rows(y_i.to(like)).T
        return 2 * (cosine - 1) / self.prompt_bandwidth**2 if self.kernel == "gaussian" else cosine.square()


def x0_edit(shift: Tensor, context: Context) -> Tensor | None:
    """The edit of x0 that moves the next latent as far as adding `shift` to `x_t` before the step would, the model's output kept.

    One deterministic step of the sampler takes `x0` and the noise `e` to `next_alpha · x0 + next_sigma · e`.
    - `x_t + shift` with the predicted noise kept is `x0 + shift / alpha`, so the next latent moves by `shift · next_alpha / alpha`.
    - `x0 + delta` at the same `x_t` lowers the noise by `alpha / sigma · delta`, so it moves by
      `delta · (next_alpha - alpha · next_sigma / sigma)`.

    Both agree for `delta = (next_alpha / alpha) · shift / (next_alpha - alpha · next_sigma / sigma)`. On straight paths
    (`alpha + sigma = 1`, flow matching) the output kept is the velocity, and the shift arrives unchanged: 1 stands for
    `next_alpha / alpha`. So it does at `alpha = 0`, pure noise, where no model can be predicting the noise. At `sigma = 0` there is no
    noise to lower, and the second denominator is `next_alpha`.

    Args:
        shift: (B, …), in the units of `x_t`.
        context: the noise levels of this step.

    Returns:
        (B, …); None where the noise level does not fall, so that no edit of x0 would move the sample.

    Source: the published step is that of Jalali et al. 2025 (arXiv:2506.10173); the algebra is that of DDIM, Song et al. 2021, Eq. 12
    (arXiv:2010.02502).

    Example:
        >>> import torch
        >>> context = Context(
        ...     step=0, steps=2, alpha=0.6, sigma=0.8, next_alpha=0.8, next_sigma=0.6, x_t=torch.zeros(1, 1), groups=torch.zeros(1)
        ... )
        >>> x0_edit(torch.ones(1, 1), context)  # (0.8 / 0.6) / (0.8 - 0.6 · 0.6 / 0.8)
        tensor([[3.8095]])
    """
    alpha, sigma, next_alpha, next_sigma = context.alpha, context.sigma, context.next_alpha, context.next_sigma
    straight = alpha < 1 and abs(alpha + sigma - 1) < 1e-6  # of variance preserving schedules only alpha = 0 and 1 lie on that line
    carried = 1.0 if straight or alpha == 0 else next_alpha / alpha
    moved = next_alpha - (alpha * next_sigma / sigma if sigma > 0 else 0.0)
    if moved <= 1e-6 * next_alpha:
        return None
    return shift * (carried / moved)


def _no_prompts(whose: str) -> str:
    return (
        f"SPARKE: objective is 'cond-rke', which needs prompt embeddings, and {whose} has none; pass prompt_encoder= to guide "
        "(a function from a list of prompts to embeddings), or set SPARKE(objective='rke')"
    )


def _check_reference(reference: Any, prompts: Any, weight: float, objective: str) -> None:
    """Refuses a reference set that is malformed, or given in part so that something would be ignored."""
    if reference is None:
        if prompts is not None or weight != 0:
            given = "reference_prompts" if prompts is not None else f"reference_weight {weight:g}"
            raise OptionError(
                f"SPARKE: {given} is given without reference; pass the latents too, as in SPARKE(reference=latents, reference_weight=0.5)"
            )
        return
    if not isinstance(reference, Tensor) or reference.ndim < 2 or len(reference) == 0 or not torch.isfinite(reference).all():
        got = f"of shape {tuple(reference.shape)}" if isinstance(reference, Tensor) else f"a {type(reference).__name__}"
        raise OptionError(f"SPARKE: reference is {got}; allowed: a tensor of finite latents (m, …) with at least one row")
    if weight == 0:
        raise OptionError(
            "SPARKE: reference is given and reference_weight is 0, so it would do nothing; set a weight above 0 to move away from it, "
            "below 0 to approach it, as in SPARKE(reference=latents, reference_weight=0.5)"
        )
    if prompts is None:
        return
    if objective == "rke":
        raise OptionError(
            "SPARKE: reference_prompts is given and objective is 'rke', which reads no prompts; leave it out or set objective='cond-rke'"
        )
    if not isinstance(prompts, Tensor) or prompts.ndim != 2 or len(prompts) != len(reference):
        got = f"of shape {tuple(prompts.shape)}" if isinstance(prompts, Tensor) else f"a {type(prompts).__name__}"
        raise OptionError(
            f"SPARKE: reference_prompts is {got}; allowed: a tensor (m, p) with one row for each of the {len(reference)} references"
        )
