"""Noise algebra of one step: the denoiser's own step, the limit on corrections, renewed noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unalike.guidance.context import Context


def per_image_norm(x: Tensor) -> Tensor:
    """Euclidean norm (B,) of each image of a batch (B, …), in float32."""
    return x.flatten(1).float().norm(dim=1)


def limited(delta: Tensor, x0: Tensor, context: Context, limit: float | None) -> Tensor:
    """`delta` with each image's part scaled down to at most `limit · ||x0 - x_t / alpha||`."""
    if limit is None:
        return delta
    room = limit * denoiser_step(x0, context)
    scale = (room / per_image_norm(delta).clamp_min(torch.finfo(torch.float32).tiny)).clamp_max(1)
    return delta * scale.view(-1, *[1] * (delta.ndim - 1))


def denoiser_step(x0: Tensor, context: Context) -> Tensor:
    """`||x0 - x_t / alpha||` (B,): how far the denoiser itself moves each image.

    Where alpha is 0 (pure noise) the norm of `x0` stands for it.
    """
    if context.level.alpha == 0:
        return per_image_norm(x0)
    return per_image_norm(x0.float() - context.x_t.float() / context.level.alpha)


def renew_noise(x0: Tensor, eta: float, context: Context) -> Tensor | None:
    """The edit (B, …) of x0 by which a deterministic first-order step renews part of its noise.

    The step goes from `x_t = alpha · x0 + sigma · e` to `next_alpha · x0 + next_sigma · e`. With
    fresh noise `z` the edit makes it go to

        next_alpha · x0 + √(next_sigma² - s²) · e + s · z
        s = eta · next_sigma · √(1 - (alpha · next_sigma / (next_alpha · sigma))²)

    `eta = 1` draws from the posterior of the noisier chain, as ancestral sampling does; 0 leaves
    the step deterministic. An edit of x0 by `delta` moves the result by
    `(next_alpha - alpha · next_sigma / sigma) · delta`.

    Source: Song, Meng and Ermon 2021, Eq. 12 and 16 (arXiv:2010.02502), written for any alpha and
    sigma.

    Args:
        x0: the prediction, corrected.
        eta: how much of the noise is renewed, from 0 to 1.
        context: the noise levels, the noisy latents and the generators.

    Returns:
        None where `eta` is 0 or the step cannot renew noise (see `renews_noise`).

    Example:
        >>> import torch
        >>> from unalike.guidance.level import Level
        >>> last = Level(alpha=0.6, sigma=0.8, next_alpha=1, next_sigma=0)
        >>> context = Context(
        ...     step=0, steps=1, level=last, x_t=torch.zeros(1, 1), groups=torch.zeros(1),
        ...     deterministic_first_order=True,
        ... )
        >>> renew_noise(torch.ones(1, 1), 1.0, context) is None  # no noise is left to renew
        True
    """
    if eta == 0 or not renews_noise(context):
        return None
    level = context.level
    carried = level.alpha * level.next_sigma / (level.next_alpha * level.sigma)
    s = eta * level.next_sigma * math.sqrt(1 - carried**2)
    e = (context.x_t.to(x0) - level.alpha * x0) / level.sigma
    change = (math.sqrt(level.next_sigma**2 - s**2) - level.next_sigma) * e + s * context.noise(x0)
    return change / (level.next_alpha * (1 - carried))


def renews_noise(context: Context) -> bool:
    """Whether this step can renew noise: it is deterministic and of first order, and some noise is
    left after it, less than before.
    """
    level = context.level
    falls = level.alpha * level.next_sigma < (1 - 1e-6) * level.next_alpha * level.sigma
    return context.deterministic_first_order and level.next_sigma > 0 and falls


def x0_edit(shift: Tensor, context: Context) -> Tensor | None:
    """The edit of x0 that moves the next latent as far as `x_t + shift` would with the same output.

    One deterministic first-order step takes `x0` and the noise `e` to `next_alpha · x0 +
    next_sigma · e`.
    - `x_t + shift` with the predicted noise kept is `x0 + shift / alpha`, so the next latent moves
      by `shift · next_alpha / alpha`.
    - `x0 + delta` at the same `x_t` lowers the noise by `alpha / sigma · delta`, so it moves by
      `delta · (next_alpha - alpha · next_sigma / sigma)`.

    Both agree for `delta = (next_alpha / alpha) · shift / (next_alpha - alpha · next_sigma /
    sigma)`. On straight paths (`alpha + sigma = 1`, flow matching) the output kept is the velocity,
    and the shift arrives unchanged: 1 stands for `next_alpha / alpha`. So it does at `alpha = 0`,
    pure noise, where no model can be predicting the noise. At `sigma = 0` there is no noise to
    lower, and the second denominator is `next_alpha`.

    Args:
        shift: (B, …), in the units of `x_t`.
        context: the noise levels of this step.

    Returns:
        (B, …); None where the noise level does not fall, so that no edit of x0 would move the
        sample.

    Source: the published step is that of Jalali et al. 2025 (arXiv:2506.10173); the algebra is that
    of DDIM, Song et al. 2021, Eq. 12 (arXiv:2010.02502).

    Example:
        >>> import torch
        >>> from unalike.guidance.level import Level
        >>> level = Level(alpha=0.6, sigma=0.8, next_alpha=0.8, next_sigma=0.6)
        >>> context = Context(
        ...     step=0, steps=2, level=level, x_t=torch.zeros(1, 1), groups=torch.zeros(1)
        ... )
        >>> x0_edit(torch.ones(1, 1), context)  # (0.8 / 0.6) / (0.8 - 0.6 · 0.6 / 0.8)
        tensor([[3.8095]])
    """
    level = context.level
    # of variance preserving schedules only alpha = 0 and 1 lie on the straight line
    straight = level.alpha < 1 and abs(level.alpha + level.sigma - 1) < 1e-6
    carried = 1.0 if straight or level.alpha == 0 else level.next_alpha / level.alpha
    kept = level.alpha * level.next_sigma / level.sigma if level.sigma > 0 else 0.0
    moved = level.next_alpha - kept
    if moved <= 1e-6 * level.next_alpha:
        return None
    return shift * (carried / moved)
