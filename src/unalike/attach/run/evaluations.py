"""One evaluation of a model, as whoever guides it sees it, whatever the host."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Level:
    """One call of a sampler: `sample = alpha · x0 + sigma · noise`, `x0 = a · sample + b ·
    model_output`, and the level it goes to.
    """

    alpha: float
    sigma: float
    a: float
    b: float
    next_alpha: float
    next_sigma: float


@dataclass(frozen=True)
class Call:
    """One evaluation of the model, as the scheduler gets it.

    Attributes:
        x0: predicted clean latents (R, …), at least float32; R counts the scheduler's rows,
            duplicates included.
        x_t: the noisy latents (R, …) they were predicted from.
        level: noise levels and the x0 map.
        step: index of this call, from 0.
        steps: how many calls there will be, as far as the schedule tells.
        one_step: whether the scheduler goes from this x0 and `x_t` straight to the next noise
            level, without noise of its own.
    """

    x0: Tensor
    x_t: Tensor
    level: Level
    step: int
    steps: int
    one_step: bool = False


@dataclass(frozen=True)
class Coming:
    """The step that an evaluation of the model is for, before it has happened; attributes as in
    `Call`.
    """

    level: Level
    step: int
    steps: int
