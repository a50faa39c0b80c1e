"""Particle guidance: a joint potential through which the images of a batch repel each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.guidance.context import Context
from unalike.guidance.method import Method
from unalike.kernels import squared_distances
from unalike.options import option


@dataclass(frozen=True, kw_only=True)
class ParticleGuidance(Method):
    """Adds the gradient of `-Σ_{i≠j} k(u_i, u_j)` to the score of the `m` images of each prompt.

    The kernel is `k = exp(-||u_i - u_j||² / h)`. In latent space `u = x_t` and `h = median² / log
    m` with the median of the distances within the prompt, taken as constant. By Tweedie's formula a
    change of the score by `g` is one of x0 by `σ² / α · g`:

        delta_i = strength · σ² / α · Σ_j 2 k(u_i, u_j) (u_i - u_j) / h

    In feature space `u = features(x0)`, and the gradient is taken through `features` alone: x0 is
    held to move with x_t as `1 / α`, since the denoiser is never differentiated. Images of
    different prompts do not see each other, and an image alone is left as it is, as is everything
    at pure noise of a straight path (`α = 0`), where there is no score to add to.

    Source: Corso, Xu, De Bortoli, Barzilay and Jaakkola 2024, fixed potential (arXiv:2310.13102),
    bandwidth rule of Liu and Wang 2016. Departures: one median for each prompt in place of one for
    each image, which makes the potential symmetric, and `log m` in place of `log (m - 1)`, which is
    0 for two images. The authors' code for Stable Diffusion 1.5 (gcorso/particle-guidance) draws
    four images a prompt in 30 steps and acts while `σ / α ≥ 1` alone, which `stop` can do here; its
    weight is 0 unless one is given, so that the default of `strength` is ours.

    Cost: O(B² d) per step in latent space; in feature space one forward and backward pass of
    `features` more.

    Args:
        strength: weight of the potential's gradient beside the score; about 10 to 100 for latents
            of some thousand numbers, for the sum over latents falls as their size grows.
        features: a differentiable function from predicted clean latents (m, …) to features (m, …),
            or None for latent space.

    Raises:
        OptionError: for an option outside its allowed values, or features that are not one row an
            image.

    Example:
        >>> import torch
        >>> from unalike.guidance.context import Context
        >>> from unalike.guidance.level import Level
        >>> x = torch.tensor([[3.0, 4.0], [4.0, 3.0]])
        >>> level = Level(alpha=1.0, sigma=1.0, next_alpha=1.0, next_sigma=0.0)
        >>> groups = torch.zeros(2, dtype=torch.int64)
        >>> context = Context(step=0, steps=1, level=level, x_t=x, groups=groups)
        >>> ParticleGuidance(strength=1.0).x0_delta(x, context)  # log 2 · (1 / 2) of the difference
        tensor([[-0.3466,  0.3466],
                [ 0.3466, -0.3466]])
    """

    name: ClassVar[str] = "particle"
    summary: ClassVar[str] = (
        "repels the images of a prompt by a joint potential of the noisy latents; batch only"
    )
    citation: ClassVar[str] = """@inproceedings{corso2024particle,
  title = {Particle Guidance: non-I.I.D. Diverse Sampling with Diffusion Models},
  author = {Corso, Gabriele and Xu, Yilun and De Bortoli, Valentin and Barzilay, Regina and
    Jaakkola, Tommi},
  booktitle = {International Conference on Learning Representations},
  year = {2024},
  eprint = {2310.13102},
  archivePrefix = {arXiv}
}"""

    repaired: ClassVar[bool] = True

    strength: float = option(
        30.0, "weight of the potential's gradient beside the score", low=0, high=1_000_000
    )
    features: Callable[[Tensor], Tensor] | None = field(  # pyright: ignore[reportIncompatibleMethodOverride]
        default=None, repr=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.features is not None and not callable(self.features):
            raise OptionError(
                f"ParticleGuidance: features is a {type(self.features).__name__}; allowed: a "
                "function from latents (m, …) to features "
                "(m, …), or None for latent space"
            )

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        """The correction (B, …); None without two images of a prompt, strength, or signal."""
        if self.strength == 0 or context.level.alpha == 0:
            return None
        clean = x0.to(torch.promote_types(x0.dtype, torch.float32))
        groups = context.groups.to(x0.device)
        delta = None
        for group in groups.unique():
            own = (groups == group).nonzero().flatten()
            if len(own) < 2:
                continue
            delta = torch.zeros_like(clean) if delta is None else delta
            delta[own] = self._away(clean[own], context.x_t[own].to(clean), context.level.alpha)
        return (
            None
            if delta is None
            else (self.strength * context.level.sigma**2 / context.level.alpha) * delta
        )

    def _away(self, clean: Tensor, noisy: Tensor, alpha: float) -> Tensor:
        """`-∇ Σ_{i≠j} k(u_i, u_j)` (m, …) by the noisy latents of one prompt."""
        if self.features is None:
            return _repulsion(noisy.flatten(1)).view_as(noisy)
        with torch.enable_grad():
            x = clean.detach().requires_grad_()
            u = self.features(x)
            if not isinstance(u, Tensor) or u.ndim < 2 or len(u) != len(x) or not u.requires_grad:
                got: Any = tuple(u.shape) if isinstance(u, Tensor) else type(u).__name__
                raise OptionError(
                    f"ParticleGuidance: features returned {got} for {len(x)} latents; it must "
                    "return one row of features for each, by "
                    "operations that torch can differentiate"
                )
            u = u.flatten(1)
            return torch.autograd.grad(u, x, _repulsion(u.detach()).to(u))[0] / alpha


def _repulsion(u: Tensor) -> Tensor:
    """`Σ_j 2 k(u_i, u_j) (u_i - u_j) / h` (m, d): the descent of the potential in each row, whose
    other rows are held.
    """
    squared = squared_distances(u, u)
    others = ~torch.eye(len(u), dtype=torch.bool, device=u.device)
    bandwidth = squared[others].quantile(0.5) / math.log(len(u))
    if bandwidth == 0:
        return torch.zeros_like(u)  # most pairs are equal: no direction leads apart
    weights = torch.where(others, (-squared / bandwidth).exp(), 0) * (2 / bandwidth)
    return weights.sum(dim=1, keepdim=True) * u - weights @ u
