"""SPARKE: move each image away from the others, most from those with a similar prompt, by the
gradient of an order-2 kernel entropy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.guidance.context import Context
from unalike.guidance.directed import Compared, Directed
from unalike.guidance.protocols import References
from unalike.guidance.stored import Block, Stored, parts, stored_rows
from unalike.kernels import unit_rows
from unalike.options import option

_BLOCK = 2**20  # numbers of a block of stored rows, 4 MiB: a processor's cache holds it


@dataclass(frozen=True, kw_only=True)
class SPARKE(Directed):
    """Moves each image of a batch down the gradient of a kernel score of all images.

    The score is `IRKE(Z) = ||K_Z / n||_F²` or, by default, `Cond-IRKE(Z|Y) = ||K_Z ∘ K_Y||_F² /
    ||K_Y||_F²`. With `f = x / ||x||` and stored unit vectors `f_i`, prompts `y` and `y_i` scaled to
    norm 1 too, the direction of descent is that of

        Gaussian: f - Σ_i softmax_i(2 log k_Z(f, f_i) + 2 log k_Y(y, y_i)) f_i
        cosine:     - Σ_i k_Y(y, y_i)² k_Z(f, f_i) f_i

    projected on the tangent space at `f`. Stored are the memory and, with `batch`, the predicted
    clean latents of the other images. The softmax is that of the published gradient, written so
    that far-apart samples still give a direction. The step along it, `strength · ||x||` long, is
    that of `Directed`, which has the equations of targets, regions, embeddings and the regulariser
    too.

    With `target="x0"` `x` is the prediction itself. With `target="x_t"`, the published step, it is
    the noisy latent; use that with `strength` 0.02 to 0.4 and, for instance, `every=10`.

    With a region `m`, `f = m∘x / ||m∘x||` and `f_i = m∘x_i / ||m∘x_i||`: images are unlike each
    other there, and nowhere else are they moved. With `embed`, the ambient variant of the
    publication, `f` and `f_i` are embeddings of whole images, and the direction is pulled back
    through encoder and decoder; earlier generations are decoded and embedded at the first step.

    A reference set adds `reference_weight` times its own direction, each of the two averaged over
    its own kernel sum: positive weights move away from it, negative ones towards it. The
    regulariser adds the gradient of `-½ ||x||² + (d - 1) log ||x||`, which holds the norm of `x`
    where normal noise has it; it acts only beside a repulsion, and mostly makes sense with
    `target="x_t"`.

    Source: Jalali, Lei, Gohari and Farnia 2025, Cond-IRKE and its gradient (arXiv:2506.10173);
    reference sets: Askari Hemmat et al. 2024 (arXiv:2406.04551); regulariser: Eyring et al. 2024
    (arXiv:2406.04312). Departures: whole batches with a prompt each, the x0 target (the default, at
    every step), reference sets averaged by their own sums so that their size does not matter. The
    published code takes regions and does not use them; what they mean here is ours.

    Cost: one pass per step over those `m` of the `n` stored latents whose prompts matter to an
    image, O(B (m + B) d) time for the batch; images with unlike prompts read different ones. The
    rest is left out: with `tolerance`, they are so many as weigh at most that share of the others
    together whatever their latents are, which moves the mean over the stored vectors by at most `2
    · tolerance`. Each step checks that and reads them too where it fails, as for an image that lies
    opposite to all with its prompt. Where fewer than half matter to the batch they are copied at
    the first step, so that beside the memory itself O(B (n + d) + m d) space is needed. No autograd
    but with `embed`: then up to 2 B images are decoded and embedded a step, B of them
    differentiated. A region that moves between steps costs a second pass over the rows.

    Args:
        strength: size of a step as a share of the norm of the latent; 0 changes nothing.
        objective: "cond-rke" weighs samples by how similar their prompts are, "rke" counts all
            alike.
        kernel: "gaussian" or "cosine", for latents and prompts.
        bandwidth: of the Gaussian kernel on latents, or embeddings of images, scaled to norm 1.
        prompt_bandwidth: of the Gaussian kernel on prompt embeddings scaled to norm 1.
        target: "x0" corrects the prediction itself, "x_t" is the published shift of the noisy
            latent.
        batch: whether the images of the batch are unlike each other.
        memory: whether they are unlike earlier generations.
        reference: latents (m, …) of a reference set, or None.
        reference_prompts: embeddings (m, p) of its prompts; None where it counts the same for every
            prompt.
        reference_weight: above 0 to move away from the reference set, below 0 to approach it.
        regularizer: weight of the norm's regulariser, on the scale of a direction between unit
            vectors.
        region: where images are compared and moved, as `unalike.guidance.region.checked` takes it;
            None for everywhere.
        embed: a differentiable function from images (n, 3, h, w) in [0, 1] to vectors (n, e) to
            compare in the place of latents, or None.
        tolerance: weight that stored samples with unlike prompts may have together, as a share of
            the others', to be left out; 0 for none.

    Raises:
        OptionError: for an option outside its allowed values; from `x0_delta` where "cond-rke"
            lacks prompt embeddings, stored latents or embeddings are of another size, or the host
            cannot locate `region` or no images for `embed`.

    Example:
        >>> import torch
        >>> from unalike.guidance.context import Context
        >>> from unalike.guidance.level import Level
        >>> x0 = torch.tensor([[3.0, 4.0], [4.0, 3.0]])
        >>> groups = torch.zeros(2, dtype=torch.int64)
        >>> level = Level(alpha=1, sigma=1, next_alpha=1, next_sigma=0)
        >>> context = Context(step=0, steps=1, level=level, x_t=x0, groups=groups)
        >>> SPARKE(strength=0.1).x0_delta(x0, context)  # 0.1 of the norm 5, apart along the circle
        tensor([[-0.4000,  0.3000],
                [ 0.3000, -0.4000]])
    """

    name: ClassVar[str] = "sparke"
    summary: ClassVar[str] = (
        "moves images apart by prompt-aware kernel entropy; linear in their number, also with a "
        "long memory"
    )
    citation: ClassVar[str] = """@article{jalali2025sparke,
  title = {SPARKE: Scalable Prompt-Aware Diversity and Novelty Guidance in Diffusion Models via
    RKE Score},
  author = {Jalali, Mohammad and Lei, Haoyu and Gohari, Amin and Farnia, Farzan},
  journal = {arXiv preprint arXiv:2506.10173},
  year = {2025}
}"""

    _prompted: ClassVar[str] = "objective='cond-rke'"
    _unprompted: ClassVar[str] = "objective='rke'"

    objective: str = option(
        "cond-rke",
        "whether samples count by how similar their prompts are",
        choices=("cond-rke", "rke"),
    )
    tolerance: float = option(
        1e-3, "share of the weight of stored samples that may be left out", low=0, high=0.1
    )

    @property
    def reads_prompts(self) -> bool:
        """Whether the objective is "cond-rke"."""
        return self.objective == "cond-rke"

    def away(self, compared: Compared, context: Context) -> tuple[Tensor, Tensor | float]:
        """The negative kernel-weighted means (B, e) of the stored unit vectors, and of the
        reference's; their rounding error.
        """
        f = compared.f
        stored, reference = self._stored(compared, context), self._reference_set(compared, context)
        towards = torch.zeros_like(f)
        if stored:
            towards = towards + self._mean(f, stored)
        if reference is not None:
            towards = towards + self.reference_weight * self._mean(f, [reference])
        return -towards, 4 * torch.finfo(f.dtype).eps

    def _mean(self, f: Tensor, sets: list[Stored]) -> Tensor:
        """The kernel-weighted mean (B, d) of all stored unit vectors, in one pass over the rows.

        A large memory is read from the machine's memory once: each block gives its weights and
        takes part in the sum while it is in the cache. The softmax is that of Milakov and
        Gimelshein 2018 (arXiv:1805.02867), which rescales the sum where a larger logit comes.
        """
        total, mass = torch.zeros_like(f), f.new_zeros(len(f), 1)
        top = torch.full_like(mass, torch.finfo(f.dtype).min)
        for s in sets:
            for images, index in s.parts:
                blocks = s.blocks(images, index, _BLOCK)
                total[images], mass[images], top[images] = self._added(
                    blocks, f[images], total[images], mass[images], top[images]
                )
        if self._too_much_left_out(sets, mass, top):
            return self._mean(f, [s.whole or s for s in sets])
        return total / mass.clamp_min(torch.finfo(f.dtype).tiny)

    def _too_much_left_out(self, sets: list[Stored], mass: Tensor, top: Tensor) -> bool:
        """Whether what is left out may weigh more than `tolerance` times what was read, its latents
        being as near as can be (`k_Z = 1`).
        """
        left_out = [s.left_out for s in sets if s.left_out is not None]
        if not left_out:
            return False
        most = torch.stack(left_out).logsumexp(dim=0) + 2 / self.bandwidth**2
        return bool(
            (
                most
                > math.log(self.tolerance or torch.finfo(torch.float64).tiny) + mass.log() + top
            ).any()
        )

    def _added(
        self, blocks: Iterator[Block], f: Tensor, total: Tensor, mass: Tensor, top: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted sum, sum of weights and largest logit of images `f` with those of more rows;
        `total` is changed in place.
        """
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

    def _stored(self, compared: Compared, context: Context) -> list[Stored]:
        sets, clean = [], compared.clean
        if compared.memory is not None:
            sets.append(self._kept("memory", compared.memory, compared, context))
        if self.batch and len(clean) > 1:
            terms = self._batch_terms(clean, context)
            own = torch.eye(len(clean), dtype=torch.bool, device=clean.device)
            terms = terms.masked_fill(own, -torch.inf if self.kernel == "gaussian" else 0)
            sets.append(Stored(clean, terms, inside=compared.inside))
        return sets

    def _reference_set(self, compared: Compared, context: Context) -> Stored | None:
        return (
            None
            if compared.reference is None
            else self._kept("reference", compared.reference, compared, context)
        )

    def _kept(self, what: str, source: References, compared: Compared, context: Context) -> Stored:
        """A fixed set, prepared at the first step of a run and kept in its state; so is what is
        inside of it, until the region moves.
        """
        kept, clean, inside = context.state.get(what), compared.clean, compared.inside
        if kept is None:
            rows = stored_rows(source.latents, clean, f"SPARKE: the {what}")
            unconditional = not self.reads_prompts or (
                source.prompts is None and (what == "reference" or _without_prompts(context))
            )
            if unconditional:
                terms = self._prompt_terms(None, None, (len(clean), len(rows)), clean)
            else:
                if context.prompts is None or source.prompts is None:
                    raise OptionError(
                        self._no_prompts(
                            "this generation" if context.prompts is None else f"the {what}"
                        )
                    )
                terms = self._prompt_terms(
                    context.prompts, source.prompts, (len(clean), len(rows)), clean
                )
            kept = self._without_negligible(Stored(rows, terms))
        if inside is not None and (kept.inside is None or not torch.equal(kept.inside, inside)):
            kept = kept.restricted(inside)
        context.state[what] = kept
        return kept

    def _without_negligible(self, whole: Stored) -> Stored:
        """The set without samples whose prompts do not matter; itself where leaving them out saves
        no time.
        """
        matters = self._matters(whole.prompt_terms)
        to_any = matters.any(dim=0)
        left_out = None
        # cosine's weights are those of the prompts, so that there is nothing to check later
        if self.kernel == "gaussian":
            left_out = whole.prompt_terms.masked_fill(matters, -torch.inf).logsumexp(
                dim=1, keepdim=True
            )
        if 2 * to_any.sum() < len(to_any):
            rows, terms = whole.rows[to_any], whole.prompt_terms[:, to_any]
            return Stored(rows, terms, parts(matters[:, to_any]), left_out, whole)
        own = parts(matters)
        return (
            whole
            if own[0][1] is None
            else replace(whole, parts=own, left_out=left_out, whole=whole)
        )

    def _matters(self, terms: Tensor) -> Tensor:
        """Select the stored samples that matter to each image (B, n), by their prompt terms (B, n).

        The others are left out.

        As `k_Z² <= 1`, samples with a share `s` of the prompts' weight have at most `s / (1 - s) ·
        exp(2 (1 - c) / bandwidth²)` times the weight of the others, whose cosines with the image
        average `c` or more. `c = -1/8` is taken, for few images of a model lie further apart;
        `_too_much_left_out` checks it at each step. Cosine kernels only shrink weights: `s / (1 -
        s)`.
        """
        if self.kernel == "gaussian":
            share, range_ = (
                torch.softmax(terms.double(), dim=1),
                math.exp(min(2.25 / self.bandwidth**2, 700)),
            )
        else:
            share, range_ = (
                terms.double()
                / terms.double()
                .sum(dim=1, keepdim=True)
                .clamp_min(torch.finfo(torch.float64).tiny),
                1.0,
            )
        ascending = share.sort(dim=1)
        small = ascending.values.cumsum(dim=1) <= self.tolerance / (range_ + self.tolerance)
        return ~torch.zeros_like(small).scatter(1, ascending.indices, small)

    def _batch_terms(self, clean: Tensor, context: Context) -> Tensor:
        terms = context.state.get("batch")
        if terms is None:
            prompts = context.prompts if self.reads_prompts else None
            if self.reads_prompts and prompts is None and len(context.groups.unique()) > 1:
                raise OptionError(self._no_prompts("this generation, of several prompts,"))
            terms = context.state["batch"] = self._prompt_terms(
                prompts, prompts, (len(clean), len(clean)), clean
            )
        return terms

    def _prompt_terms(
        self, y: Tensor | None, y_i: Tensor | None, shape: tuple[int, int], like: Tensor
    ) -> Tensor:
        """`log k_Y²` (Gaussian) or `k_Y²` (cosine) for each image and stored sample; that of `k_Y =
        1` without prompts.
        """
        if y is None or y_i is None:
            return like.new_full(shape, 0.0 if self.kernel == "gaussian" else 1.0)
        if y.shape[1] != y_i.shape[1]:
            raise OptionError(self._other_encoder(y_i.shape[1], y.shape[1]))
        cosine = unit_rows(y.to(like)) @ unit_rows(y_i.to(like)).T
        return (
            2 * (cosine - 1) / self.prompt_bandwidth**2
            if self.kernel == "gaussian"
            else cosine.square()
        )


def _without_prompts(context: Context) -> bool:
    """Whether the images have no prompts at all, so that those of all samples count as equal."""
    return context.prompts is None and bool((context.groups == context.groups[0]).all())
