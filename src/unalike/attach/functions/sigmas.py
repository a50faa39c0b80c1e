"""The step of a sampler's schedule that a noise level belongs to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from unalike.errors import OptionError, UnsupportedError

_MOST_RAISED = 1.01 * math.sqrt(2)  # churn raises a level by the square root of 2 at most
_SAME = 1e-4  # relative difference of noise levels that are one, up to rounding in the sampler


class Sigmas:
    """The noise levels of a sampler's steps.

    Step `i` of `n` goes from `sigmas[i]` to `sigmas[i + 1]`. A call belongs to the step whose
    levels its sigma lies between, the upper one included: so the second call of Heun's method, at
    the level that a step ends with, counts for the step that begins there, just as the next call at
    that level does, and a method sees one guidance at one noise level, however often it is asked
    there. Calls in between (DPM-Solver's) belong to the step they are in; those within a quarter of
    a step (on a logarithmic scale) above a level, to the step that begins there, so that no step is
    nearly of length 0. A level raised by churn, `σ̂ = σ · (1 + γ)` with `γ = min(churn / n, √2 -
    1)` inside `churn_range`, is that of its own step.

    Args:
        sigmas: falling noise levels; a 0 at the end may be left out.
        churn: the sampler's `S_churn` (`s_churn` in k-diffusion).
        churn_range: its `S_min` and `S_max`.

    Raises:
        OptionError: for levels that do not fall, negative ones or none, and for a negative churn.

    Example:
        >>> sigmas = Sigmas([8.0, 4.0, 2.0, 0.0])
        >>> len(sigmas), sigmas.place(8.0), sigmas.place(5.6), sigmas.place(2.0)
        (3, (0, 4.0), (0, 4.0), (2, 0.0))
    """

    def __init__(
        self,
        sigmas: Sequence[float] | Tensor,
        *,
        churn: float = 0.0,
        churn_range: tuple[float, float] = (0.0, math.inf),
    ) -> None:
        given = [
            float(s)
            for s in (
                sigmas.detach().reshape(-1).tolist() if isinstance(sigmas, Tensor) else sigmas
            )
        ]
        levels = given[:-1] if given and given[-1] == 0 else given
        if (
            not levels
            or any(not (math.isfinite(s) and s > 0) for s in levels)
            or any(b >= a for a, b in pairwise(levels))
        ):
            raise OptionError(
                f"sigmas is {given!r}; allowed: falling noise levels above 0, with or without a 0 "
                "at the end, as the sampler is given "
                "them, such as karras_sigmas(50)"
            )
        if (
            isinstance(churn, bool)
            or not isinstance(churn, int | float)
            or not (math.isfinite(churn) and churn >= 0)
        ):
            raise OptionError(
                f"churn is {churn!r}; allowed: a number of at least 0, the sampler's S_churn, as "
                "in churn=40"
            )
        low, high = churn_range
        self._levels = levels
        gamma = min(churn / len(levels), math.sqrt(2) - 1)
        self._begins = [s * (1 + gamma) if low <= s <= high else s for s in levels]

    def __len__(self) -> int:
        return len(self._levels)

    def place(self, sigma: float) -> tuple[int, float]:
        """The index of the step that a call at `sigma` belongs to, and the level that it ends at.

        Raises:
            UnsupportedError: for a level so far above the first one that no churn raises it there.
        """
        highest = self._levels[0]
        if sigma > _MOST_RAISED * highest:
            raise UnsupportedError(
                f"the denoiser was asked at sigma {sigma:g}, above the first of sigmas, "
                f"{highest:g}; give sigmas= as the sampler takes them, and churn= where it has some"
            )
        step = self._step(sigma)
        return step, self._levels[step + 1] if step + 1 < len(self._levels) else 0.0

    def _step(self, sigma: float) -> int:
        off, step = min(
            (abs(math.log(sigma / level)), i)
            for levels in (self._begins, self._levels)
            for i, level in enumerate(levels)
        )
        if off < _SAME:
            return step
        step = max((i for i, level in enumerate(self._levels) if level > sigma), default=0)
        if step + 1 < len(self._levels):
            upper, lower = self._levels[step], self._levels[step + 1]
            if math.log(sigma / lower) < 0.25 * math.log(upper / lower):
                return step + 1
        return step


def one_sigma(sigma: Tensor | float) -> float:
    """The noise level of a whole batch, from a number or a tensor with one for each image.

    Raises:
        UnsupportedError: where images have different noise levels, or one has none.
    """
    value = float(sigma.detach().reshape(-1)[0]) if isinstance(sigma, Tensor) else float(sigma)
    if not (math.isfinite(value) and value > 0):
        raise UnsupportedError(
            f"the denoiser was asked at sigma {value:g}; allowed: a finite noise level above 0"
        )
    if isinstance(sigma, Tensor) and bool((sigma != sigma.reshape(-1)[0]).any()):
        raise UnsupportedError(
            f"the denoiser was asked at noise levels from {float(sigma.min()):g} to "
            f"{float(sigma.max()):g} in one batch; only one level "
            "for the whole batch can be guided: sample images of different levels in batches of "
            "their own"
        )
    return value


def karras_sigmas(
    steps: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Tensor:
    """The noise levels of EDM and EDM2, falling, with 0 at the end: (steps + 1,) float64.

        σ_i = (σ_max^(1/ρ) + i / (steps - 1) · (σ_min^(1/ρ) - σ_max^(1/ρ)))^ρ

    Source: Karras et al. 2022, Eq. 5 and Table 1 (arXiv:2206.00364).

    Args:
        steps: how many steps there are; at least 1.
        sigma_min: the last level above 0.
        sigma_max: the first.
        rho: how much shorter steps are at low noise.

    Raises:
        OptionError: for values outside of these.

    Example:
        >>> [round(s, 4) for s in karras_sigmas(3).tolist()]
        [80.0, 2.5152, 0.002, 0.0]
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise OptionError(
            f"steps is {steps!r}; allowed: a whole number of at least 1, as in karras_sigmas(50)"
        )
    if not (0 < sigma_min < sigma_max < math.inf and 0 < rho < math.inf):
        raise OptionError(
            f"sigma_min is {sigma_min!r}, sigma_max is {sigma_max!r} and rho is {rho!r}; allowed: "
            "0 < sigma_min < sigma_max, and rho above "
            "0, as in karras_sigmas(50, sigma_min=0.002, sigma_max=80)"
        )
    share = torch.arange(steps, dtype=torch.float64) / max(1, steps - 1)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    levels = (high + share * (low - high)) ** rho
    return torch.cat([levels, levels.new_zeros(1)])
