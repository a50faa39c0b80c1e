"""Vendi guidance: ascend the Vendi or RKE score of the batch and the memory, the baseline that SPARKE is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.guidance.base import Context, Method, References, option, stored_rows
from unalike.kernels import unit_rows


def entropy_gradient(gram: Tensor, rows: slice = slice(None)) -> Tensor:
    """Rows of `∂H_1/∂K = -(log(K / n) + I) / n` for a normalised kernel matrix `K`; `H_1 = -Σ λ log λ` over the eigenvalues of `K / n`.

    The logarithm is taken on the support of `K`: eigenvalues below the rounding error of its entries, relative to the largest, are held
    there. Directions that small (samples all but equal) carry no gradient through a smooth kernel; holding keeps the result continuous.

    Args:
        gram: `K` (n, n), symmetric with a unit diagonal, in the precision that its entries were computed in.
        rows: which rows of the gradient are wanted.

    Returns:
        (rows, n) in float64; the entry `i, j` is the derivative by that entry alone, so a sample moves both `i, j` and `j, i`.

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
class _Stored:
    """What does not change between the steps of a run: the memory as unit rows, its prompts as unit rows; at order 1 their Gram matrix."""

    source: References | None
    features: Tensor
    prompts: Tensor | None
    gram: Tensor | None


@dataclass(frozen=True, kw_only=True)
class VendiGuidance(Method):
    """Moves each image up the gradient of the Vendi score of all images, `exp(H_q(K_Z))`, or of `exp(H_q(K_Z ∘ K_Y))` with prompts.

    With `f = x0 / ||x0||` and Gaussian kernels on unit vectors, the gradient by the new sample `b` is

        g_b = Σ_i w_bi (f_i - f_b),    w = ∂H_q/∂K ∘ K,    K = K_Z or K_Z ∘ K_Y,
        ∂H_1/∂K = -(log(K / n) + I) / n,    ∂H_2/∂K = -2 K / ||K||_F²,

    up to a positive factor, over the stored samples and, with `batch`, the other images of the batch, each with its own prompt. It is
    projected on the tangent space of the sphere, scaled to norm 1 per image, and `delta = strength · ||x0|| · g / ||g||`.

    Source: Askari Hemmat et al. 2024, "Improving Geo-diversity of Generated Images with Contextualized Vendi Score Guidance"
    (arXiv:2406.04551), with the score of Friedman and Dieng 2023 (arXiv:2210.02410), at order 2 that of Jalali, Li and Farnia 2023 (RKE).
    Departures: latents in place of image features behind a decoder, a normalised step, and the gradient in closed form in place of
    automatic differentiation.

    Cost: per step O((n + B) B d) for `B` images, `n` stored samples and latents of size `d`; at order 1 besides one eigendecomposition,
    O((n + B)³), for the whole batch, which sees one Gram matrix. With `batch=False` each image has a Gram matrix of its own:
    O(B (n + 1)³). The memory's own Gram matrix, O(n² d), is computed once a run. Use order 2 or SPARKE for more than about a thousand
    samples.

    Args:
        strength: size of a correction as a share of `||x0||`; 0 changes nothing.
        order: `q`, 1 for the Vendi score or 2 for the RKE score, which weighs frequent kinds of images more and needs no eigenvalues.
        conditional: whether prompts count: samples then repel only as far as their prompts are alike.
        bandwidth: of the Gaussian kernel on latents scaled to norm 1.
        prompt_bandwidth: of the Gaussian kernel on prompt embeddings scaled to norm 1.
        batch: whether the images of the batch see each other.
        memory: whether earlier generations are seen.

    Raises:
        OptionError: for an option outside its allowed values; from `x0_delta` where prompts are needed and missing.

    Example:
        >>> import torch
        >>> from unalike.guidance.base import Context
        >>> x0 = torch.tensor([[3.0, 4.0], [4.0, 3.0]])
        >>> levels = {"alpha": 1.0, "sigma": 1.0, "next_alpha": 1.0, "next_sigma": 0.0}
        >>> context = Context(step=0, steps=1, x_t=x0, groups=torch.zeros(2, dtype=torch.int64), **levels)
        >>> VendiGuidance(strength=0.1).x0_delta(x0, context)  # 0.1 of the norm 5, apart along the circle
        tensor([[-0.4000,  0.3000],
                [ 0.3000, -0.4000]])
    """

    name: ClassVar[str] = "vendi"
    summary: ClassVar[str] = "ascends the Vendi or RKE score of batch and memory; Vendi is cubic in their number, a baseline for SPARKE"
    citation: ClassVar[str] = """@inproceedings{askarihemmat2024improving,
  title = {Improving Geo-diversity of Generated Images with Contextualized Vendi Score Guidance},
  author = {Askari Hemmat, Reyhane and Hall, Melissa and Sun, Alicia and Ross, Candace and Drozdzal, Michal and Romero-Soriano, Adriana},
  booktitle = {European Conference on Computer Vision},
  year = {2024},
  eprint = {2406.04551},
  archivePrefix = {arXiv}
}"""

    strength: float = option(0.05, "size of a correction, as a share of the norm of x0", low=0)
    order: int = option(1, "of the score: 1 is Vendi, 2 is RKE, whose cost is not cubic", low=1, high=2)
    conditional: bool = option(False, "count samples only as far as their prompts are alike")
    bandwidth: float = option(0.8, "of the Gaussian kernel on latents scaled to norm 1", above=0)
    prompt_bandwidth: float = option(0.35, "of the Gaussian kernel on prompt embeddings scaled to norm 1", above=0)
    batch: bool = option(True, "images of a batch see each other")
    memory: bool = option(True, "earlier generations are seen")

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        """The correction (B, …); None where the strength is 0 or there is no other sample to differ from."""
        if self.strength == 0:
            return None
        x = x0.flatten(1).to(torch.promote_types(x0.dtype, torch.float32))
        f, y = unit_rows(x), self._prompts(context.prompts, x, "this generation")
        stored = self._stored(x, y, context)
        n = len(stored.features)
        if n + self.batch * (len(x) - 1) == 0:
            return None
        rows = self._kernel(f, y, stored.features, stored.prompts)
        if self.batch:
            weights = _weights(torch.cat([rows, self._kernel(f, y, f, y)], dim=1), stored.gram)
            g = weights[:, :n] @ stored.features + weights[:, n:] @ f
        else:
            weights = torch.cat([_weights(torch.cat([row, row.new_ones(1)])[None], stored.gram) for row in rows])
            g = weights[:, :n] @ stored.features
        g = g - (g * f).sum(dim=1, keepdim=True) * f
        size, rounding = g.norm(dim=1, keepdim=True), 16 * torch.finfo(g.dtype).eps * weights.abs().sum(dim=1, keepdim=True)
        direction = torch.where(size > rounding, g / size.clamp_min(torch.finfo(g.dtype).tiny), 0)
        return (self.strength * x.norm(dim=1, keepdim=True) * direction).view_as(x0)

    def _kernel(self, f: Tensor, y: Tensor | None, f_i: Tensor, y_i: Tensor | None) -> Tensor:
        """Rows of `K_Z` or `K_Z ∘ K_Y` between two sets of unit vectors and their prompts; exactly 1 between a set and itself."""
        log_k = (f @ f_i.T - 1) / self.bandwidth**2
        if y is not None and y_i is not None:
            log_k = log_k + (y @ y_i.T - 1) / self.prompt_bandwidth**2
        k = log_k.clamp_max(0).exp()
        return k.fill_diagonal_(1) if f is f_i else k

    def _prompts(self, prompts: Tensor | None, like: Tensor, whose: str) -> Tensor | None:
        if not self.conditional:
            return None
        if prompts is None:
            raise OptionError(
                f"VendiGuidance: conditional is True, which needs prompt embeddings, and {whose} has none; pass prompt_encoder to guide, "
                "or set VendiGuidance(conditional=False)"
            )
        return unit_rows(prompts.to(like))

    def _stored(self, x: Tensor, y: Tensor | None, context: Context) -> _Stored:
        """The memory prepared for this run: normalised, and its Gram matrix computed, at the first step only."""
        source = context.memory if self.memory else None
        stored = context.state.get("stored")
        if stored is not None and stored.source is source and stored.features.device == x.device and stored.features.dtype == x.dtype:
            return stored
        if source is None:
            features, prompts = x[:0], None if y is None else y[:0]
        else:
            features = unit_rows(stored_rows(source.latents, x, "VendiGuidance: the memory"))
            prompts = self._prompts(source.prompts, x, "the memory")
            if y is not None and prompts is not None and prompts.shape[1] != y.shape[1]:
                raise OptionError(
                    f"VendiGuidance: the memory holds prompt embeddings of size {prompts.shape[1]} and this generation has size "
                    f"{y.shape[1]}; both must come from the same encoder: pass that one as prompt_encoder to guide, or set "
                    "VendiGuidance(conditional=False)"
                )
        gram = self._kernel(features, prompts, features, prompts) if self.order == 1 else None
        context.state["stored"] = stored = _Stored(source, features, prompts, gram)
        return stored


def _weights(rows: Tensor, stored: Tensor | None) -> Tensor:
    """`∂H_q/∂K ∘ K` for the last `m` samples, up to a factor above 0: `rows` (m, n + m) of `K` are theirs.

    `stored` is the Gram matrix (n, n) of the others, for order 1; None for order 2, which needs the rows alone.
    """
    n = rows.shape[1] - len(rows)
    if stored is None:
        weights = -rows.square()
    else:
        gram = torch.cat([torch.cat([stored, rows[:, :n].T], dim=1), rows])
        weights = entropy_gradient(gram, slice(n, None)).to(rows) * rows
    weights[:, n:].fill_diagonal_(0)  # a sample has no distance to itself; its weight would only add rounding error
    return weights


def _float64(gram: Tensor) -> Tensor:
    return gram.cpu().double() if gram.device.type == "mps" else gram.double()  # that backend has neither float64 nor eigh
