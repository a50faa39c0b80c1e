"""Two-dimensional mixtures of normal distributions: a text-to-image model in small, whose denoiser
is exact.

A prompt stands for a mixture of modes, a mode for a right image; some modes are right for two
prompts. The model is given embeddings of prompts as a large one is, and what it makes of a blurred
embedding is a blend of prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from unalike.guidance.level import Level
from unalike.guidance.method import Method
from unalike.guidance.protocols import References
from unalike.guidance.run import Call, Run, UpcomingCall
from unalike.kernels import unit_rows

PROMPTS, MODES, STEPS = 4, 8, 24
_EMBEDDING = 16  # numbers of a prompt's embedding
_SHARPNESS = 20.0  # of the blend: other prompts weigh at most exp(-20) of the given one
_NOISIEST = (
    0.99  # time at which sampling begins; at 1 there is no signal, and most methods divide by it
)


@dataclass(frozen=True)
class Mixtures:
    """The mixtures of several prompts over common modes, in float64.

    Args:
        means: (M, 2) of the modes.
        deviations: (M,), each mode's standard deviation in any direction.
        weights: (P, M), a row a prompt, each with the sum 1; 0 where a mode is not the prompt's.
        embeddings: (P, p) of the prompts, orthogonal, of standard deviation about 1.
    """

    means: Tensor
    deviations: Tensor
    weights: Tensor
    embeddings: Tensor

    @classmethod
    def random(cls, seed: int) -> Mixtures:
        """Four prompts of eight modes around the origin, of weights falling by 0.6, in an order of
        their own.

        Directions from the origin tell the modes of a prompt apart, as methods need that look at
        directions alone. Each prompt has two of its modes in common with other prompts.

        Example:
            >>> world = Mixtures.random(0)
            >>> (world.weights > 0).sum(dim=1).tolist(), (world.weights > 0).sum(dim=0).max().item()
            ([8, 8, 8, 8], 2)
        """
        generator = torch.Generator().manual_seed(seed)
        angles = torch.arange(PROMPTS * MODES) + 0.3 * torch.rand(
            PROMPTS * MODES, generator=generator, dtype=torch.float64
        )
        angles = angles * (2 * math.pi / (PROMPTS * MODES))
        radii = 0.8 + 1.2 * torch.rand(PROMPTS * MODES, generator=generator, dtype=torch.float64)
        means = radii[:, None] * torch.stack([angles.cos(), angles.sin()], dim=1)
        weights = torch.zeros(PROMPTS, PROMPTS * MODES, dtype=torch.float64)
        for prompt in range(PROMPTS):
            own = prompt + PROMPTS * torch.arange(MODES)
            before = 2 * prompt % MODES
            own[before] = (own[before] - 1) % len(
                angles
            )  # the neighbour's, which stands at nearly the same angle
            falling = 0.6 ** torch.arange(MODES, dtype=torch.float64)
            weights[prompt, own[torch.randperm(MODES, generator=generator)]] = (
                falling / falling.sum()
            )
        used = weights.sum(dim=0) > 0
        deviations = 0.03 + 0.02 * torch.rand(len(means), generator=generator, dtype=torch.float64)
        basis = torch.linalg.qr(
            torch.randn(_EMBEDDING, _EMBEDDING, generator=generator, dtype=torch.float64)
        ).Q
        return cls(
            means[used], deviations[used], weights[:, used], math.sqrt(_EMBEDDING) * basis[:PROMPTS]
        )

    def blended(self, embeddings: Tensor) -> Tensor:
        """What embeddings (B, p) mean: (B, M) weights, those of the prompts blended by a softmax of
        20 times the cosine.
        """
        return (
            torch.softmax(
                _SHARPNESS * unit_rows(embeddings.double()) @ unit_rows(self.embeddings).T, dim=1
            )
            @ self.weights
        )

    def denoised(self, x_t: Tensor, alpha: float, sigma: float, weights: Tensor) -> Tensor:
        """The exact denoiser `E[x0 | x_t]` (B, 2) of mixtures with the weights (B, M), for `x_t =
        alpha · x0 + sigma · noise`.

        By Bayes' rule mode `k` has the posterior weight `w_k N(x_t; alpha μ_k, v_k I)`, `v_k =
        alpha² s_k² + sigma²`, and, given the mode, `E[x0 | x_t, k] = μ_k + alpha s_k² / v_k · (x_t
        - alpha μ_k)`.
        """
        variance = (alpha * self.deviations) ** 2 + sigma**2
        away = x_t.double()[:, None] - alpha * self.means
        logits = weights.log() - variance.log() - away.square().sum(dim=2) / (2 * variance)
        posterior = torch.softmax(logits, dim=1)
        shrunk = posterior * (alpha * self.deviations**2 / variance)
        return posterior @ self.means + (shrunk[:, :, None] * away).sum(dim=1)

    def log_density(self, x: Tensor, prompt: int) -> Tensor:
        """`log p(x | prompt)` (n,) of points (n, 2)."""
        away = (x.double()[:, None] - self.means).square().sum(dim=2)
        each = -away / (2 * self.deviations**2) - torch.log(2 * math.pi * self.deviations**2)
        return torch.logsumexp(self.weights[prompt].log() + each, dim=1)

    def hits(self, x: Tensor, prompt: int) -> Tensor:
        """Whether each point (n, 2) lies within three standard deviations of each of the prompt's
        modes: (n, modes) bool.
        """
        own = self.weights[prompt] > 0
        return (x.double()[:, None] - self.means[own]).norm(dim=2) <= 3 * self.deviations[own]


def levels(steps: int) -> list[tuple[float, float]]:
    """`alpha` and `sigma` before each step and after the last: variance preserving, from nearly all
    noise to none.

    Source: the cosine schedule of Nichol and Dhariwal 2021 (arXiv:2102.09672), without its offset.
    """
    times = [_NOISIEST * (1 - i / steps) * math.pi / 2 for i in range(steps)]
    return [*((math.cos(t), math.sin(t)) for t in times), (1.0, 0.0)]


@dataclass(frozen=True)
class Drawn:
    """Samples (B, 2) of one batch, and the run with the traces of the methods."""

    x: Tensor
    run: Run


def draw(
    world: Mixtures,
    prompts: Tensor,
    methods: Sequence[Method],
    *,
    guidance_scale: float,
    seed: int,
    memory: References | None = None,
    steps: int = STEPS,
) -> Drawn:
    """Draw a sample for each of the prompts (B,), by DDIM with classifier-free guidance and the
    methods.

    Sample `i` has a generator of its own with the seed `seed + i`, for its first noise and for
    methods that draw more. Guidance is `D_u + scale · (D_c - D_u)` where `D_u` is that of the even
    mixture of all prompts.

    Source: Song et al. 2021, Eq. 12 (arXiv:2010.02502); Ho and Salimans 2022 (arXiv:2207.12598).
    """
    y = world.embeddings[prompts].float()
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    x = torch.stack([torch.randn(2, generator=g, dtype=torch.float64) for g in generators])
    run = Run(methods, groups=prompts, prompts=y, memory=memory, generators=generators)
    asked, everything = world.blended(y), world.weights.mean(dim=0).expand(len(x), -1)
    path = levels(steps)
    for step, ((alpha, sigma), (next_alpha, next_sigma)) in enumerate(pairwise(path)):
        level = Level(alpha, sigma, next_alpha, next_sigma)
        prepared = run.prepare(UpcomingCall(level=level, step=step, steps=steps), x, [y])
        changed = prepared.embeddings[0]
        x0 = world.denoised(x, alpha, sigma, asked if changed is None else world.blended(changed))
        if prepared.cfg and guidance_scale != 1:
            unprompted = world.denoised(x, alpha, sigma, everything)
            x0 = unprompted + guidance_scale * (x0 - unprompted)
        call = Call(
            x0=x0, x_t=x, level=level, step=step, steps=steps, deterministic_first_order=True
        )
        delta = run.correct(call)
        if delta is not None:
            x0 = x0 + delta
        x = next_alpha * x0 + next_sigma * (x - alpha * x0) / sigma
    return Drawn(x, run)


@dataclass(frozen=True)
class Quality:
    """How samples of one prompt fare; all means of several prompts where made of several.

    Args:
        coverage: share of the modes that are hit, of the smaller of samples and modes, from 0 to 1.
        precision: share of samples that hit a mode of the prompt.
        log_likelihood: mean `log p(x | prompt)` of the samples.
    """

    coverage: float
    precision: float
    log_likelihood: float


def quality(world: Mixtures, x: Tensor, prompts: Tensor) -> Quality:
    """Coverage, precision and likelihood of samples (n, 2) for their prompts (n,), each a mean over
    prompts.
    """
    rows = []
    for prompt in prompts.unique().tolist():
        own = x[prompts == prompt]
        hits = world.hits(own, prompt)
        covered = hits.any(dim=0).sum().item() / min(hits.shape)
        rows.append(
            (
                covered,
                hits.any(dim=1).double().mean().item(),
                world.log_density(own, prompt).mean().item(),
            )
        )
    return Quality(*(sum(column) / len(rows) for column in zip(*rows, strict=True)))
