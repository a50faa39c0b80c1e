"""Noise levels of a sampling path."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Level:
    """The noise level of one model evaluation, `x_t = alpha · x0 + sigma · noise`, and the level
    that the solver goes to from there.

    Attributes:
        alpha, sigma: the level at which the model is evaluated.
        next_alpha, next_sigma: the level that the step ends at; 1 and 0 at the end of the schedule.
    """

    alpha: float
    sigma: float
    next_alpha: float
    next_sigma: float

    @property
    def noise_to_signal(self) -> float:
        """`sigma / alpha`: the noise level in units of the data; infinite at pure noise.

        Example:
            >>> Level(alpha=0.6, sigma=0.9, next_alpha=1.0, next_sigma=0.0).noise_to_signal
            1.5
        """
        return math.inf if self.alpha == 0 else self.sigma / self.alpha
