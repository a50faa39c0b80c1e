"""Measure the latent updates of a run, by which memorised images may be told without a set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unalike.guidance.run import UpcomingCall


@dataclass(frozen=True)
class Memorisation:
    """The latent updates of one image, and how far they are from those of ordinary images.

    The size of the update at step t, for latents of d values, is the root mean square of

        x_{t+1} - x_t,    u_t = ||x_{t+1} - x_t|| / √d

    where `x_t` is what the scheduler's step was given and `x_{t+1}` what it returned. Corrections
    of methods are part of it; what a shield, a callback or the pipeline changes between steps is
    not. See `stability_region` for the source and `memorisation` for what it is worth.

    Attributes:
        updates: `u_t` for each step of the schedule. None for a step that does not lead to this
            image: one that was not reached, and all before the latents that the last pass or a
            restart went on from. A solver that evaluates the model twice in a step counts as two.
        first_share: `u_0 / Σ_t u_t`, the share of the first update; None where one is None. Larger
            for images that their prompt decides at once, copied or not. It is ours, and needs no
            region; compare images of the same settings only.
        score: `max_t |u_t - mean_t| / deviation_t` for the means and standard deviations of a
            `StabilityRegion`; larger is further away. None without one.
        outside: the share of the steps that are outside of the region; None without one.
    """

    updates: list[float | None]
    first_share: float | None = None
    score: float | None = None
    outside: float | None = None


class Updates:
    """The updates of the latents since the run began, or went on from other latents.

    Sizes stay on the latents' device until `memorisations`, so that no step waits for them.

    Cost: O(R d) a step and two tensors of the latents' size for R rows of d values.
    """

    def __init__(self) -> None:
        self._steps = 0
        self._sizes: dict[int, Tensor] = {}

    def add(self, call: UpcomingCall, before: Tensor, after: Tensor) -> None:
        """Record the scheduler's step of a call from the latents `before` to `after` (R, …)."""
        precise = torch.promote_types(before.dtype, torch.float32)
        change = (after.detach().to(precise) - before.detach().to(precise)).flatten(1)
        self._steps = call.steps
        self._sizes[call.step] = change.square().mean(dim=1).sqrt()

    def clear(self) -> None:
        """Forget the updates, because the run begins or goes on from other latents."""
        self._sizes = {}

    def memorisations(self, images: int) -> list[Memorisation | None]:
        """Report the updates of the first `images` rows; None for hosts that show no steps."""
        if not self._sizes:
            return [None] * images
        rows = torch.stack([size[:images] for size in self._sizes.values()]).T.tolist()
        return [self._memorisation(dict(zip(self._sizes, row, strict=True))) for row in rows]

    def _memorisation(self, sizes: dict[int, float]) -> Memorisation:
        total = sum(sizes.values())
        whole = len(sizes) == self._steps and total > 0
        return Memorisation(
            [sizes.get(step) for step in range(self._steps)],
            sizes[0] / total if whole else None,
        )
