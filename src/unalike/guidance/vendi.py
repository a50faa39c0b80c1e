"""Vendi guidance: ascend the Vendi or RKE score of the batch and the memory, the baseline that
SPARKE is compared with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.guidance.context import Context
from unalike.guidance.directed import Compared, Directed
from unalike.guidance.protocols import References
from unalike.guidance.region import restricted
from unalike.guidance.stored import stored_rows
from unalike.kernels import unit_rows
from unalike.options import option


def entropy_gradient(gram: Tensor, rows: slice = slice(None)) -> Tensor:
    """Rows of `∂H_1/∂K = -(log(K / n) + I) / n` for a normalised kernel matrix `K`; `H_1 = -Σ λ log
    λ` over the eigenvalues of `K / n`.

    The logarithm is taken on the support of `K`: eigenvalues below the rounding error of its
    entries, relative to the largest, are held there. Directions that small (samples all but equal)
    carry no gradient through a smooth kernel; holding keeps the result continuous.

    Args:
        gram: `K` (n, n), symmetric with a unit diagonal, in the precision that its entries were
            computed in.
        rows: which rows of the gradient are wanted.

    Returns:
        (rows, n) in float64; the entry `i, j` is the derivative by that entry alone, so a sample
        moves both `i, j` and `j, i`.

    Cost: O(n³) for the eigendecomposition, in float64.

    Example:
        >>> import torch
        >>> entropy_gradient(torch.eye(2))  # log(1/2) + 1, over 2
        tensor([[-0.1534, -0.0000],
                [-0.0000, -0.1534]], dtype=torch.float64)
    """
    n = gram.shape[0]
    values, vectors = torch.linalg.eigh(_float64(gram) / n)
    held = values.clamp_min(torch.finfo(gram.dtype).eps * values[-1].item())
    picked = vectors[rows]
    own = torch.eye(n, dtype=vectors.dtype, device=vectors.device)[rows]
    return ((picked * held.log()) @ vectors.T + own) / -n


@dataclass(frozen=True)
class _Others:
    """Samples that a new one is compared with: unit rows, prompts, and at order 1 a Gram matrix.

    `source` and `inside` are what the rows were made from.
    """

    features: Tensor
    prompts: Tensor | None
    gram: Tensor | None
    source: References | None = None
    inside: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class VendiGuidance(Directed):
    """Moves each image of a batch up the gradient of the Vendi score of all images.

    The score is `exp(H_q(K_Z))`, or `exp(H_q(K_Z ∘ K_Y))` with prompts. With the unit vectors `f`
    that are compared, the gradient by the new sample `b` over the stored samples `i` is

        Gaussian: g_b = Σ_i w_bi (f_i - f_b),    w = ∂H_q/∂K ∘ K
        cosine:   g_b = Σ_i w_bi f_i,            w = ∂H_q/∂K ∘ K_Y
        K = K_Z or K_Z ∘ K_Y,    ∂H_1/∂K = -(log(K / n) + I) / n,    ∂H_2/∂K = -2 K / ||K||_F²

    up to a factor above 0. Stored are the memory and, with `batch`, the predictions of the other
    images, each with its own prompt. The step along it, on the sphere, is that of `Directed`, which
    has the equations of targets, regions, embeddings and the regulariser too; what enters there is

        Gaussian: Σ_i w_bi f_i / Σ_i K_bi²,    cosine: Σ_i w_bi f_i / Σ_i (K_Y)_bi²
        ∂H_q/∂K times n at order 1,    ∂H_2/∂K = -K

    which at order 2 is the mean of unit vectors that SPARKE has, and at order 1 comes to it where
    samples are little alike.

    A reference set adds `reference_weight` times the same of a score of its own, that of the
    reference set and the new sample alone: positive weights raise that score, away from the
    reference; negative ones lower it, towards the reference. Other images of the batch have no part
    in it.

    Source: Askari Hemmat et al. 2024, "Improving Geo-diversity of Generated Images with
    Contextualized Vendi Score Guidance" (arXiv:2406.04551), with the score of Friedman and Dieng
    2023 (arXiv:2210.02410), at order 2 that of Jalali, Li and Farnia 2023 (RKE). Departures:
    latents in place of image features behind a decoder unless `embed` is given, a normalised step,
    the gradient in closed form in place of automatic differentiation, and means in place of sums,
    so that the weight of a reference set does not depend on its size.

    Cost: per step O((n + B) B d) for `B` images, `n` stored samples and vectors of size `d`; at
    order 1 besides one eigendecomposition, O((n + B)³), for the whole batch, which sees one Gram
    matrix. With `batch=False`, with `target="x_t"`, and with a region that differs between images
    each image has a Gram matrix of its own: O(B (n + B)³); so it has with `m` references, O(B (m +
    1)³). The memory's own Gram matrix, O(n² d), is computed once a run, or when its region moves.
    Use order 2 or SPARKE for more than about a thousand samples.

    Args:
        strength: size of a step as a share of the norm of the latent; 0 changes nothing.
        order: `q`, 1 for the Vendi score or 2 for the RKE score, which weighs frequent kinds of
            images more and needs no eigenvalues.
        conditional: whether prompts count: samples then repel only as far as their prompts are
            alike.
        kernel: "gaussian" or "cosine", for what is compared and for prompts.
        bandwidth: of the Gaussian kernel on latents, or embeddings of images, scaled to norm 1.
        prompt_bandwidth: of the Gaussian kernel on prompt embeddings scaled to norm 1.
        target: "x0" corrects the prediction itself, "x_t" is the published shift of the noisy
            latent.
        batch: whether the images of the batch see each other.
        memory: whether earlier generations are seen.
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

    Raises:
        OptionError: for an option outside its allowed values; from `x0_delta` where prompts are
            needed and missing, stored vectors are of another size, or the host knows no places for
            `region` or no images for `embed`.

    Example:
        >>> import torch
        >>> from unalike.guidance.context import Context
        >>> from unalike.guidance.level import Level
        >>> x0 = torch.tensor([[3.0, 4.0], [4.0, 3.0]])
        >>> level = Level(alpha=1.0, sigma=1.0, next_alpha=1.0, next_sigma=0.0)
        >>> groups = torch.zeros(2, dtype=torch.int64)
        >>> context = Context(step=0, steps=1, level=level, x_t=x0, groups=groups)
        >>> VendiGuidance(strength=0.1).x0_delta(x0, context)  # 0.1 of the norm 5, along the circle
        tensor([[-0.4000,  0.3000],
                [ 0.3000, -0.4000]])
    """

    name: ClassVar[str] = "vendi"
    summary: ClassVar[str] = (
        "ascends the Vendi or RKE score of batch and memory; Vendi is cubic in their number, a "
        "baseline for SPARKE"
    )
    citation: ClassVar[str] = """@inproceedings{askarihemmat2024improving,
  title = {Improving Geo-diversity of Generated Images with Contextualized Vendi Score Guidance},
  author = {Askari Hemmat, Reyhane and Hall, Melissa and Sun, Alicia and Ross, Candace and
    Drozdzal, Michal and Romero-Soriano, Adriana},
  booktitle = {European Conference on Computer Vision},
  year = {2024},
  eprint = {2406.04551},
  archivePrefix = {arXiv}
}"""

    _prompted: ClassVar[str] = "conditional=True"
    _unprompted: ClassVar[str] = "conditional=False"

    order: int = option(
        1, "of the score: 1 is Vendi, 2 is RKE, whose cost is not cubic", low=1, high=2
    )
    conditional: bool = option(False, "count samples only as far as their prompts are alike")

    @property
    def reads_prompts(self) -> bool:
        """Whether the score is that of `K_Z ∘ K_Y`."""
        return self.conditional

    def away(self, compared: Compared, context: Context) -> tuple[Tensor, Tensor | float]:
        """The mean (B, e) of unit vectors along which the score rises, and `reference_weight` times
        the reference's; its rounding error.
        """
        f, inside = compared.f, compared.inside
        y = self._prompts(context.prompts, f, "this generation")
        everywhere = inside is None or len(inside) == 1  # the same for all images
        means, roundings = [], []
        for images in (
            [slice(0, len(f))] if everywhere else [slice(i, i + 1) for i in range(len(f))]
        ):
            mask = inside if inside is None or everywhere else inside[images]
            own_y, zeros = None if y is None else y[images], f.new_zeros(len(f[images]), 1)
            mean, size = zeros * f[images], zeros
            if compared.memory is not None or (self.batch and len(f) > 1):
                others, slots = self._others(images, y, mask, compared, context)
                mean, size = self._mean(f[images], own_y, others, slots, in_gram=compared.own)
            if compared.reference is not None:
                reference = self._prepared(
                    "reference", compared.reference, y, mask, compared, context
                )
                more, more_size = self._mean(f[images], own_y, reference, None)
                mean, size = (
                    mean + self.reference_weight * more,
                    size + abs(self.reference_weight) * more_size,
                )
            means.append(mean)
            roundings.append(16 * torch.finfo(f.dtype).eps * size)
        return torch.cat(means), torch.cat(roundings)

    def _mean(
        self,
        f: Tensor,
        y: Tensor | None,
        others: _Others,
        slots: slice | None,
        *,
        in_gram: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The sum over the others (b, e), and that of absolute weights (b, 1), both divided by the
        kernel's.

        The slots are where the images themselves are among the others, if they are.
        """
        rows, k_y = (
            self._kernel(f, y, others.features, others.prompts),
            self._prompt_kernel(y, others.prompts),
        )
        if slots is not None:
            rows[:, slots].fill_diagonal_(1)
        weights = self._entropy_rows(rows, others.gram, slots, in_gram)
        slope = (
            rows
            if self.kernel == "gaussian"
            else torch.ones_like(rows)
            if k_y is None
            else k_y.clone()
        )
        if slots is not None:
            slope[:, slots].fill_diagonal_(
                0
            )  # a sample has no distance to itself; its weight would only add rounding error
        weights, mass = (
            weights * slope,
            slope.square().sum(dim=1, keepdim=True).clamp_min(torch.finfo(f.dtype).tiny),
        )
        return weights @ others.features / mass, weights.abs().sum(dim=1, keepdim=True) / mass

    def _entropy_rows(
        self, rows: Tensor, gram: Tensor | None, slots: slice | None, in_gram: bool
    ) -> Tensor:
        """Rows (b, n) of `n ∂H_1/∂K`, or `-K`, for samples with these rows of `K`, which `in_gram`
        are in it already.
        """
        if gram is None:
            return -rows
        n, found = len(gram), []
        if slots is not None and in_gram:
            return n * entropy_gradient(gram, slots).to(rows)
        for i, row in enumerate(rows):
            slot = n if slots is None else slots.start + i
            whole = _with_sample(gram, row, slot)
            found.append(
                len(whole) * entropy_gradient(whole, slice(slot, slot + 1))[:, :n].to(rows)
            )
        return torch.cat(found)

    def _others(
        self,
        images: slice,
        y: Tensor | None,
        inside: Tensor | None,
        compared: Compared,
        context: Context,
    ) -> tuple[_Others, slice | None]:
        """The memory and, with `batch`, all predictions of the batch; and where in them these
        images are.
        """
        stored = self._prepared("memory", compared.memory, y, inside, compared, context)
        if not (self.batch and len(compared.clean) > 1):
            return stored, None
        own = unit_rows(restricted(compared.clean, inside))
        prompts, gram = (
            None if y is None or stored.prompts is None else torch.cat([stored.prompts, y]),
            None,
        )
        if stored.gram is not None:
            across = self._kernel(own, y, stored.features, stored.prompts)
            gram = torch.cat(
                [
                    torch.cat([stored.gram, across.T], dim=1),
                    torch.cat([across, self._kernel(own, y, own, y)], dim=1),
                ]
            )
        n = len(stored.features)
        return _Others(torch.cat([stored.features, own]), prompts, gram), slice(
            n + images.start, n + images.stop
        )

    def _kernel(self, f: Tensor, y: Tensor | None, f_i: Tensor, y_i: Tensor | None) -> Tensor:
        """Rows of `K_Z` or `K_Z ∘ K_Y` between two sets of unit vectors and their prompts; exactly
        1 between a set and itself.
        """
        if self.kernel == "gaussian":
            log_k = (f @ f_i.T - 1) / self.bandwidth**2
            if y is not None and y_i is not None:
                log_k = log_k + (y @ y_i.T - 1) / self.prompt_bandwidth**2
            k = log_k.clamp_max(0).exp()
        else:
            k_y = self._prompt_kernel(y, y_i)
            k = f @ f_i.T if k_y is None else (f @ f_i.T) * k_y
        return k.fill_diagonal_(1) if f is f_i else k

    def _prompt_kernel(self, y: Tensor | None, y_i: Tensor | None) -> Tensor | None:
        """Cosines of prompts, the factor `K_Y` of the cosine kernel; None where prompts do not
        count.
        """
        return None if y is None or y_i is None or self.kernel == "gaussian" else y @ y_i.T

    def _prompts(self, prompts: Tensor | None, like: Tensor, whose: str) -> Tensor | None:
        if not self.conditional:
            return None
        if prompts is None:
            raise OptionError(self._no_prompts(whose))
        return unit_rows(prompts.to(like))

    def _prepared(
        self,
        what: str,
        source: References | None,
        y: Tensor | None,
        inside: Tensor | None,
        compared: Compared,
        context: Context,
    ) -> _Others:
        """A fixed set restricted, normalised and with its Gram matrix, computed at the first step
        and where the region has moved.
        """
        x, kept = compared.clean, context.state.get(what)
        if (
            kept is not None
            and kept.source is source
            and _same(kept.inside, inside)
            and kept.features.dtype == x.dtype
        ):
            return kept
        if source is None:
            features, prompts = x[:0], None if y is None else y[:0]
        else:
            features = unit_rows(
                restricted(stored_rows(source.latents, x, f"VendiGuidance: the {what}"), inside)
            )
            unprompted = what == "reference" and source.prompts is None
            prompts = None if unprompted else self._prompts(source.prompts, x, f"the {what}")
            if y is not None and prompts is not None and prompts.shape[1] != y.shape[1]:
                raise OptionError(self._other_encoder(prompts.shape[1], y.shape[1]))
        gram = self._kernel(features, prompts, features, prompts) if self.order == 1 else None
        context.state[what] = kept = _Others(features, prompts, gram, source, inside)
        return kept


def _with_sample(gram: Tensor, row: Tensor, slot: int) -> Tensor:
    """A Gram matrix (n, n) where the sample in the slot has this row (n,) of kernel values; one
    more sample where the slot is n.
    """
    if slot == len(gram):
        gram = torch.nn.functional.pad(gram, (0, 1, 0, 1), value=1.0)
        gram[slot, :-1] = gram[:-1, slot] = row
        return gram
    gram = gram.clone()
    gram[slot] = gram[:, slot] = row
    return gram


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))


def _float64(gram: Tensor) -> Tensor:
    return (
        gram.cpu().double() if gram.device.type == "mps" else gram.double()
    )  # that backend has neither float64 nor eigh
