"""`Trace`: what one method did in a run."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from unalike.guidance.context import Context
from unalike.guidance.noise import denoiser_step, per_image_norm


@dataclass
class Renewal:
    """The noise that one method had renewed.

    Attributes:
        asked: the largest eta that it asked for at any step.
        used: the largest eta with which noise was renewed; 0 where the solver allows none.
        steps: at how many steps noise was renewed.
    """

    asked: float = 0.0
    used: float = 0.0
    steps: int = 0

    def add(self, eta: float, *, possible: bool) -> None:
        """Counts one step at which the method asked for `eta`."""
        self.asked = max(self.asked, eta)
        if possible and eta > 0:
            self.used, self.steps = max(self.used, eta), self.steps + 1


@dataclass
class Trace:
    """The record of one method: for each step a row (B,) of correction sizes, 0 for none, and a row
    that says which images it acted on.

    `of_x0` is `||delta|| / ||x0||`; `of_step` is `||delta||` as a share of the denoiser's own step
    (see `denoiser_step`). `renewal` is apart, since renewed noise corrects no prediction.
    """

    method: str
    of_x0: list[Tensor] = field(default_factory=list)
    of_step: list[Tensor] = field(default_factory=list)
    active: list[Tensor] = field(default_factory=list)
    renewal: Renewal = field(default_factory=Renewal)

    def add(self, current: Tensor, delta: Tensor | None, acted: bool, context: Context) -> None:
        """Records a correction `delta` of the prediction `current`; `acted`, whether the method did
        something else at this step.
        """
        if delta is None:
            self.of_x0.append(torch.zeros(len(current)))
            self.of_step.append(torch.zeros(len(current)))
            self.active.append(torch.full((len(current),), acted))
            return
        size, tiny = per_image_norm(delta), torch.finfo(torch.float32).tiny
        self.of_x0.append((size / per_image_norm(current).clamp_min(tiny)).cpu())
        self.of_step.append((size / denoiser_step(current, context).clamp_min(tiny)).cpu())
        self.active.append((size > 0).cpu() | acted)
