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
        return _ratio(self.sigma, self.alpha)

    @property
    def fault(self) -> str | None:
        """The reason why these numbers are no noise levels, in words; None where they are.

        Example:
            >>> Level(alpha=-79.0, sigma=80.0, next_alpha=-49.0, next_sigma=50.0).fault
            'alpha is -79 and sigma is 80; allowed: alpha from 0 to 1, sigma at least 0'
        """
        for alpha, sigma in ((self.alpha, self.sigma), (self.next_alpha, self.next_sigma)):
            finite = math.isfinite(alpha) and math.isfinite(sigma)
            if not (finite and 0 <= alpha <= 1 + 1e-6 and sigma >= 0 and alpha + sigma > 0):
                return (
                    f"alpha is {alpha:g} and sigma is {sigma:g}; "
                    "allowed: alpha from 0 to 1, sigma at least 0"
                )
        return None

    @property
    def rise(self) -> str | None:
        """The rise of the noise from this level to the next, in words; None where there is none.

        Ancestral solvers of two evaluations may rise within a step, but none does at its first.

        Example:
            >>> Level(alpha=0.8, sigma=0.2, next_alpha=0.5, next_sigma=0.5).rise
            'the noise rises, from sigma / alpha = 0.25 to 1'
        """
        here, there = self.alpha * self.next_sigma, self.next_alpha * self.sigma
        if here <= there * (1 + 1e-6) + 1e-9:
            return None
        following = _ratio(self.next_sigma, self.next_alpha)
        return f"the noise rises, from sigma / alpha = {self.noise_to_signal:g} to {following:g}"


def _ratio(sigma: float, alpha: float) -> float:
    return math.inf if alpha == 0 else sigma / alpha
