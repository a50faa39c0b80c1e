"""Contrastive noise: optimizes the starting noises until their first predictions differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, avg_pool2d

from unalike.errors import UnsupportedError
from unalike.guidance.context import Context
from unalike.guidance.method import Method
from unalike.options import option


@dataclass(frozen=True, kw_only=True)
class ContrastiveNoise(Method):
    """Moves the starting noises of a prompt's images by Adam, `iterations` times, down the loss

        L = -Σ_i log( e^(<f_i, r_i> / t) / (e^(<f_i, r_i> / t) + Σ_{j≠i} e^(<f_i, f_j> / t)) )

    of their features `f`: the first prediction x0 of each noise, averaged over `pool × pool`
    places, flattened and scaled to norm 1. `r_i` is `f_i` before the first iteration. So the
    predictions of a prompt move away from each other and stay near what they were. The noises are
    then no longer quite normal.

    The predictions are those of the pipeline itself: it is run to its first evaluation, guidance
    scale included, and differentiated. With `through_model=False` the model's output is held, and
    x0 moves with the noise alone (stop-gradient).

    Source: contrastive noise optimisation (CNO), arXiv:2510.03813 (2025): InfoNCE on pooled
    one-step predictions, Adam, 3 iterations. `rate`, `temperature` and `pool` are ours.

    Cost: before the first step, `iterations` runs of the pipeline to its first evaluation, its
    prompts encoded each time; with `through_model` the gradient of the model too, for the whole
    batch at once, about three evaluations of time and the memory of training. The report counts
    them among its calls.

    Args:
        iterations: steps of Adam; 0 changes nothing.
        rate: learning rate: about how far each number of the noise moves in an iteration.
        temperature: `t`.
        pool: places along a side that are averaged; packed tokens in runs of `pool²`. Less than
            that is averaged as a whole.
        through_model: whether the model is differentiated.

    Raises:
        OptionError: for an option outside its allowed values, and for start, stop, every or limit,
            for it acts once, before the first step.
        UnsupportedError: where no prediction can be had of the noise, as with `latents` that the
            caller gives, and where it has no gradient, as in some quantized models.

    Example:
        >>> import torch
        >>> from unalike.guidance.context import Context
        >>> from unalike.guidance.level import Level
        >>> noise = torch.tensor([[1.0, 0.5], [0.5, 1.0]]).view(2, 2, 1, 1)
        >>> pure = Level(alpha=0.0, sigma=1.0, next_alpha=0.0, next_sigma=1.0)
        >>> context = Context(
        ...     step=0, steps=1, level=pure, x_t=noise, groups=torch.zeros(2),
        ...     predict=lambda noise, through_model: 2 * noise,  # a model
        ... )
        >>> moved = ContrastiveNoise(iterations=1, rate=0.1).initial_noise(noise, context)
        >>> moved.flatten(1)
        tensor([[1.1000, 0.4000],
                [0.4000, 1.1000]])
    """

    name: ClassVar[str] = "contrastive"
    summary: ClassVar[str] = "optimizes the starting noises until their first predictions differ"
    citation: ClassVar[str] = """@article{cno2025,
  title = {Diverse Text-to-Image Generation via Contrastive Noise Optimization},
  journal = {arXiv preprint arXiv:2510.03813},
  year = {2025}
}"""
    reads_predictions: ClassVar[bool] = True

    iterations: int = option(3, "steps of Adam", low=0, high=1000)
    rate: float = option(0.05, "how far each number moves in an iteration", low=0, high=10)
    temperature: float = option(0.1, "of the softmax over images", above=0, high=1000)
    pool: int = option(2, "places along a side that are averaged", low=1, high=1000)
    through_model: bool = option(True, "whether the model is differentiated")

    def initial_noise(self, noise: Tensor, context: Context) -> Tensor | None:
        """The moved noises (B, …); None where no image of a prompt has another one."""
        groups = context.groups.cpu()
        counts = (groups[:, None] == groups[None]).sum(dim=1)
        if self.iterations == 0 or self.rate == 0 or counts.max() < 2:
            return None
        if context.predict is None:
            raise UnsupportedError(
                "ContrastiveNoise: this pipeline does not show what it predicts from a noise; "
                "leave latents out, so that it draws its own, or leave ContrastiveNoise out"
            )
        reference: Tensor | None = None
        with torch.enable_grad():
            own = noise.detach().to(torch.promote_types(noise.dtype, torch.float32))
            leaf = own.clone().requires_grad_()
            adam = torch.optim.Adam([leaf], lr=self.rate)
            for _ in range(self.iterations):
                f = self._features(context.predict(leaf, self.through_model))
                reference = f.detach() if reference is None else reference
                leaf.grad = self._gradient(self._loss(f, reference, groups), leaf)
                adam.step()
        moved = (counts > 1).to(own.device).view(-1, *[1] * (own.ndim - 1))
        return torch.where(moved, leaf.detach(), own)

    def _gradient(self, loss: Tensor, noise: Tensor) -> Tensor:
        found = loss.requires_grad and torch.autograd.grad(loss, noise, allow_unused=True)[0]
        if not isinstance(found, Tensor):
            raise UnsupportedError(
                "ContrastiveNoise: the first prediction of this pipeline has no gradient in its "
                "starting noise, as in some quantized models; leave ContrastiveNoise out"
            )
        return found

    def _features(self, x0: Tensor) -> Tensor:
        """Unit rows (B, d) of the pooled predictions (B, …)."""
        if x0.ndim >= 4:
            window = [min(self.pool, size) for size in x0.shape[-2:]]
            pooled = avg_pool2d(x0.flatten(1, -3), window)
        else:
            rows = x0.reshape(len(x0), -1) if x0.ndim < 3 else x0.transpose(1, 2)
            pooled = avg_pool1d(rows, min(self.pool**2, rows.shape[-1])) if x0.ndim == 3 else rows
        f = pooled.flatten(1)
        return f / f.norm(dim=1, keepdim=True).clamp_min(torch.finfo(f.dtype).tiny)

    def _loss(self, f: Tensor, reference: Tensor, groups: Tensor) -> Tensor:
        kept = (f * reference).sum(dim=1, keepdim=True) / self.temperature
        others = (groups[:, None] == groups[None]).to(f.device)
        others = others & ~torch.eye(len(f), dtype=torch.bool, device=f.device)
        apart = (f @ f.T / self.temperature).masked_fill(~others, -torch.inf)
        return (torch.cat([kept, apart], dim=1).logsumexp(dim=1) - kept[:, 0]).sum()
