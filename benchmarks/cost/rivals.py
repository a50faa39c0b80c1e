"""The ways to a guidance step that are compared, as functions without arguments that do one step.

All but SPELL, Vendi guidance and the copy follow the same loss, Cond-IRKE with Gaussian kernels on
latents and prompts scaled to norm 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.cost.problem import Bank, Problem
from unalike.guidance.method import Method
from unalike.guidance.sparke import SPARKE
from unalike.guidance.spell import SPELL
from unalike.guidance.vendi import VendiGuidance
from unalike.kernels import unit_rows

STRENGTH, BANDWIDTH, PROMPT_BANDWIDTH = 0.05, 0.8, 0.35
_COPIED = 2**26  # numbers copied at a time, 256 MiB: more than a cache holds

Step = Callable[[], Tensor | None]


@dataclass(frozen=True)
class Rival:
    """One way to a guidance step.

    Args:
        name: what the tables call it.
        computes: what it does, for the page.
        order: cost of a step for a batch of B, for the page.
        step: prepares it for a problem.
        power: of `n`, that its time grows by; what would take too long is foreseen with it.
        numbers: how many numbers are held at its peak beside the memory, from `n`, `d` and `B`,
            roughly; what the others keep meanwhile is among them.
        same_loss: whether it follows Cond-IRKE by automatic differentiation.
    """

    name: str
    computes: str
    order: str
    step: Callable[[Problem], Step]
    power: int
    numbers: Callable[[int, int, int], int]
    same_loss: bool = False


def sparke(problem: Problem, **options: Any) -> Step:
    """SPARKE's own step for the whole batch, which also counts the other images of the batch (the
    rivals do not).
    """
    return _of(
        SPARKE(
            strength=STRENGTH, bandwidth=BANDWIDTH, prompt_bandwidth=PROMPT_BANDWIDTH, **options
        ),
        problem,
    )


def sparke_all(problem: Problem) -> Step:
    """The same with nothing left out."""
    return sparke(problem, tolerance=0.0)


def spell(problem: Problem) -> Step:
    """SPELL with balls of half the distance between two images, so that none is touched: what each
    step of it costs at least.
    """
    return _of(SPELL(radius=0.5 * (2 * problem.x.shape[1]) ** 0.5, same_prompt=False), problem)


def vendi(problem: Problem) -> Step:
    """Conditional Vendi guidance for the whole batch, which also counts the other images of the
    batch.
    """
    return _of(
        VendiGuidance(
            strength=STRENGTH,
            conditional=True,
            bandwidth=BANDWIDTH,
            prompt_bandwidth=PROMPT_BANDWIDTH,
        ),
        problem,
    )


def _of(method: Method, problem: Problem) -> Step:
    context = problem.context()  # kept from step to step, as a run does
    return lambda: method.x0_delta(problem.x, context)


def published(problem: Problem) -> Step:
    """The steps of the public implementations, one image after another.

    The new sample is appended to a copy of the stored ones, its kernels are taken by differences of
    all rows, both Gram matrices grow by a row and a column and are scaled by n, the score of the
    new sample comes from differences again, and its gradient from automatic differentiation. Their
    prompt encoder, which runs at each step too, and their checks are left out, which is in their
    favour. The loss is the paper's: k² in place of k.
    """
    features, texts = unit_rows(problem.stored), unit_rows(problem.stored_y)
    gram, text_gram = (
        torch.exp((f @ f.T - 1) / b**2)
        for f, b in ((features, BANDWIDTH), (texts, PROMPT_BANDWIDTH))
    )

    def column(rows: Tensor, new: Tensor, bandwidth: float) -> Tensor:
        return torch.exp(-((rows - new) ** 2).sum(dim=1) / (2 * bandwidth**2))

    def grown(rows: Tensor, K: Tensor, new: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
        rows = torch.cat([rows, new])
        k = column(rows, new, bandwidth)
        K = torch.cat([torch.cat([K, k[None, :-1]]), k[:, None]], dim=1)
        return rows, K / len(rows)

    def one(x: Tensor, y: Tensor) -> Tensor:
        latent = x.clone().requires_grad_()
        rows, _ = grown(features, gram, latent / latent.norm(dim=1, keepdim=True), BANDWIDTH)
        text_rows, _ = grown(texts, text_gram, y / y.norm(dim=1, keepdim=True), PROMPT_BANDWIDTH)
        similarity = column(rows, rows[-1], BANDWIDTH) * column(
            text_rows, text_rows[-1], PROMPT_BANDWIDTH
        )
        score = 1 / similarity.square().mean()
        return _move(x, torch.autograd.grad(score, latent)[0])

    return lambda: torch.cat(
        [one(x[None], y[None]) for x, y in zip(problem.x, problem.y, strict=True)]
    )


def new_row(problem: Problem) -> Step:
    """The best that automatic differentiation can do: only the new rows of the Gram matrix, stored
    samples normalised beforehand.
    """
    features, texts = unit_rows(problem.stored), unit_rows(problem.stored_y)
    log_k_y = (unit_rows(problem.y) @ texts.T - 1) / PROMPT_BANDWIDTH**2

    def step() -> Tensor:
        latents = problem.x.clone().requires_grad_()
        f = latents / latents.norm(dim=1, keepdim=True)
        log_k = (f @ features.T - 1) / BANDWIDTH**2
        score = -torch.logsumexp(2 * (log_k + log_k_y), dim=1).sum()
        return _move(problem.x, torch.autograd.grad(score, latents)[0])

    return step


def whole_gram(problem: Problem) -> Step:
    """The loss as its formula stands: all (n + 1)² kernels of normalised samples at each step, one
    image after another.
    """

    def kernel(rows: Tensor, bandwidth: float) -> Tensor:
        rows = rows / rows.norm(dim=1, keepdim=True)
        return torch.exp((rows @ rows.T - 1) / bandwidth**2)

    def one(x: Tensor, y: Tensor) -> Tensor:
        latent = x.clone().requires_grad_()
        K_Z = kernel(torch.cat([problem.stored, latent]), BANDWIDTH)
        K_Y = kernel(torch.cat([problem.stored_y, y]), PROMPT_BANDWIDTH)
        loss = (K_Z * K_Y).square().sum() / K_Y.square().sum()
        return _move(x, -torch.autograd.grad(loss, latent)[0])

    return lambda: torch.cat(
        [one(x[None], y[None]) for x, y in zip(problem.x, problem.y, strict=True)]
    )


def _move(x: Tensor, gradient: Tensor) -> Tensor:
    return STRENGTH * x.norm(dim=1, keepdim=True) * gradient / gradient.norm(dim=1, keepdim=True)


def copy(problem: Problem) -> Step:
    """The memory copied once, a part at a time to the same place, which moves as many bytes as
    reading it twice.
    """
    flat = problem.stored.flatten()
    place = torch.empty_like(flat[:_COPIED])

    def step() -> None:
        for part in flat.split(_COPIED):
            place[: len(part)].copy_(part)

    return step


RIVALS: dict[str, Rival] = {
    rival.name: rival
    for rival in (
        Rival(
            "sparke",
            (
                "`SPARKE.x0_delta` for the batch: one pass, block by block, over the `m` stored "
                "samples whose prompts matter to an image"
            ),
            "O(B (m + B) d)",
            sparke,
            1,
            lambda n, d, batch: n * d // 2 + batch * (n + 4 * d),
        ),
        Rival(
            "sparke-all",
            "the same with nothing left out, `tolerance=0`",
            "O(B (n + B) d)",
            sparke_all,
            1,
            lambda n, d, b: b * (n + 4 * d),
        ),
        Rival(
            "spell",
            (
                "`SPELL.x0_delta` for the batch, no ball being touched: one pass over all that is "
                "stored"
            ),
            "O(B (n + B) d)",
            spell,
            1,
            lambda n, d, b: b * (n + 4 * d),
        ),
        Rival(
            "published",
            "the steps of the public implementations, one image after another: copies of the "
            "stored samples and Gram matrices with the new sample appended, kernels by "
            "differences of all rows, automatic differentiation",
            "O(B (n d + n²)), some thirty passes over the stored samples an image",
            published,
            1,
            lambda n, d, _: 8 * n * d + 6 * n**2,
            same_loss=True,
        ),
        Rival(
            "new-row",
            "the best that automatic differentiation can do: new rows of the Gram matrix only, "
            "the whole batch, stored samples normalised beforehand",
            "O(B n d)",
            new_row,
            1,
            lambda n, d, b: 2 * n * d + 4 * b * (n + d),
            same_loss=True,
        ),
        Rival(
            "whole-gram",
            (
                "the loss as its formula stands, all kernels of normalised samples at each step, "
                "one image after another"
            ),
            "O(B n² d)",
            whole_gram,
            2,
            lambda n, d, _: 7 * n * d + 8 * n**2,
            same_loss=True,
        ),
        Rival(
            "vendi",
            "`VendiGuidance.x0_delta`: one eigendecomposition for the whole batch",
            "O((n + B)³ + B n d)",
            vendi,
            3,
            lambda n, d, _: 2 * n * d + 14 * n**2,
        ),
        Rival(
            "copy",
            "the memory copied once: as many bytes moved as by reading it twice",
            "O(n d)",
            copy,
            1,
            lambda n, d, _: min(n * d, _COPIED),
        ),
    )
}
OURS = ("sparke", "sparke-all", "spell")


def agreement(n: int = 64, batch: int = 4, d: int = 1_024, p: int = 64) -> dict[str, float]:
    """For each rival of the same loss, the smallest cosine of the images between its step and
    SPARKE's on the memory alone.

    Raises:
        RuntimeError: where one is below 0.999: a ratio between different computations would mean
            nothing.
    """
    problem = Bank("cpu", p).themed(n, batch, d)
    ours = sparke(problem, batch=False)()
    cosines = {}
    for name in [name for name, rival in RIVALS.items() if rival.same_loss]:
        theirs = RIVALS[name].step(problem)()
        if ours is None or theirs is None:
            raise RuntimeError(f"{name} or SPARKE returned no correction, with {n} stored samples")
        cosines[name] = torch.cosine_similarity(ours, theirs).min().item()
        if not cosines[name] > 0.999:
            raise RuntimeError(
                f"{name} and SPARKE differ in direction: their cosine is {cosines[name]:.4f}, 1 "
                "where they agree"
            )
    return cosines
