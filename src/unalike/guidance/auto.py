"""Auto: the best of the benchmarks, with nothing to tune."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Tensor

from unalike.guidance.context import Context
from unalike.guidance.method import Method
from unalike.guidance.sparke import SPARKE
from unalike.options import option

FEW_STEPS = 8
"""Calls of distilled models: of up to so many steps."""


@dataclass(frozen=True, kw_only=True)
class Auto(Method):
    """Repels images at high noise, by their prompts, and renews noise at every step.

    - While the step ends at a level with `next_sigma / next_alpha ≥ noise_to_signal`, where the
      content of an image is decided, the prediction moves as `SPARKE` moves it with `target="x0"`:
      away from the other images of the batch and from earlier ones, by how similar their prompts
      are,

          delta = strength · ||x0|| · direction(x0)

      and never by more than `limit` of the denoiser's own step. Below that level nothing is pushed,
      since the model does not bring back images that are pushed off its manifold there. With so
      few steps that already the first one ends below it, that one alone pushes, by `strength` times
      the share of `noise_to_signal` that is left; the last step never does.
    - Every step renews noise as in ancestral sampling (see `unalike.guidance.noise.renew_noise`).
      This brings back images that were pushed off the manifold, and separates images of almost
      equal predictions. Only deterministic first-order solvers can do so (DDIM, Euler,
      flow-matching Euler, registered ones that say so). With others it is left out, and the report
      says so.
    - Calls of up to 8 steps, as of distilled models, leave little room. There the first step alone
      pushes images apart, by twice the strength, and noise is renewed from the second step on. Then
      the finished predictions are noised to the level of the second step, which pushes them apart
      by the strength, and the steps from there on are taken again: `passes` in all, so that 4 steps
      become 7 evaluations. Where that cannot be, because there is one step alone or the solver
      remembers earlier predictions, each image is chosen out of `candidates` seeds by the first
      evaluation, as `guide(candidates=…)` does, or out of fewer, so that calls cost at most twice
      the evaluations. `passes=1` and `candidates=1` leave both out; the report says what was spent.

    A single image without a memory is drawn as in ancestral sampling.

    Source: SPARKE, Jalali et al. 2025 (arXiv:2506.10173); ancestral sampling as DDIM with η = 1,
    Song, Meng and Ermon 2021 (arXiv:2010.02502); that repulsion ends early and noise follows is
    ours, from `python -m benchmarks pareto`.

    Cost: that of SPARKE, at fewer steps.

    Args:
        strength: size of a step of repulsion, as a share of the norm of x0; 0 turns the whole
            method off, noise included.
        noise_to_signal: the noise level, in units of the data, down to which images are pushed
            apart; above 0.
        eta: how much of the noise is renewed at each step, from 0 to 1; 1 as in ancestral sampling.
        batch: whether the images of the batch are unlike each other.
        memory: whether they are unlike earlier generations.
        candidates: in calls of up to `FEW_STEPS` steps that cannot be taken again, how many seeds
            each image is chosen from, at most one more than there are steps.
        passes: in calls of up to `FEW_STEPS` steps, how often those after the first are taken.

    Raises:
        OptionError: for an option outside its allowed values, and as `SPARKE` does.

    Example:
        >>> import torch
        >>> from unalike.guidance.context import Context
        >>> from unalike.guidance.level import Level
        >>> x0 = torch.tensor([[3.0, 4.0], [4.0, 3.0]])
        >>> groups = torch.zeros(2, dtype=torch.int64)
        >>> level = Level(alpha=0.1, sigma=0.99, next_alpha=0.2, next_sigma=0.98)
        >>> context = Context(step=0, steps=9, x_t=x0, groups=groups, level=level)
        >>> Auto(strength=0.1).x0_delta(x0, context)
        tensor([[-0.4000,  0.3000],
                [ 0.3000, -0.4000]])
    """

    name: ClassVar[str] = "auto"
    summary: ClassVar[str] = (
        "the best of the benchmarks, nothing to tune: early prompt-aware repulsion, renewed noise"
    )
    citation: ClassVar[str] = SPARKE.citation

    strength: float = option(
        0.4, "size of a step of repulsion, as a share of the norm of x0", low=0, high=100
    )
    noise_to_signal: float = option(
        3.0,
        "noise level, in units of the data, down to which images are pushed apart",
        above=0,
        high=1_000_000_000,
    )
    eta: float = option(1.0, "how much of the noise is renewed at each step", low=0, high=1)
    batch: bool = option(True, "images of a batch are unlike each other")
    memory: bool = option(True, "images are unlike earlier generations")
    candidates: int = option(
        4, f"in calls of up to {FEW_STEPS} steps, taken once: seeds to choose each image from",
        low=1, high=1000,
    )  # fmt: skip
    passes: int = option(
        2, f"in calls of up to {FEW_STEPS} steps: how often those after the first are taken",
        low=1, high=100,
    )  # fmt: skip
    limit: float | None = option(
        0.3,
        "largest correction, as a share of the denoiser's own step",
        above=0,
        high=1000,
        choices=(None,),
    )

    @property
    def reads_prompts(self) -> bool:
        """Whether samples count by how similar their prompts are: always."""
        return True

    @property
    def _repels(self) -> bool:
        return self.strength > 0 and (self.batch or self.memory)

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        """The repulsion (B, …); None below its noise level, and for one image without a memory."""
        if context.steps <= FEW_STEPS:
            if context.level.next_sigma == 0 or context.step != min(context.again, 1):
                return None
            return self._repulsion(1.0 if context.again else 2.0, x0, context)
        left = context.level.next_sigma / (self.noise_to_signal * context.level.next_alpha)
        if left == 0 or (left < 1 and context.step > 0):
            return None
        return self._repulsion(min(1.0, left), x0, context)

    def _repulsion(self, factor: float, x0: Tensor, context: Context) -> Tensor | None:
        return SPARKE(
            strength=self.strength * factor, batch=self.batch, memory=self.memory
        ).x0_delta(x0, context)

    def candidates_for(self, steps: int, *, again: bool) -> int:
        """`candidates` in calls of few steps that cannot be taken again."""
        if steps > FEW_STEPS or not self._repels or (again and steps > 1 and self.passes > 1):
            return 1
        return min(self.candidates, steps + 1)

    def renewal(self, context: Context) -> float:
        """`eta`, but for the first of few steps where that pushes; 0 with the strength 0."""
        pushed = self._repels and context.step == 0 and context.steps <= FEW_STEPS
        return self.eta if self.strength > 0 and not pushed else 0.0

    def without_renewal(self) -> Self:
        """The same with `eta=0`."""
        return replace(self, eta=0.0)

    def passes_for(self, steps: int) -> int:
        """`passes` in calls of few steps."""
        return self.passes if self._repels and steps <= FEW_STEPS else 1

    def without_passes(self) -> Self:
        """The same with `passes=1`."""
        return replace(self, passes=1)
