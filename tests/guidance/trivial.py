"""A guidance method in one file, as somebody would add it to the package."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unalike.guidance import Context, Method, option


@dataclass(frozen=True, kw_only=True)
class Brighten(Method):
    """Adds `strength` to every number of the predicted clean latents."""

    name: ClassVar[str] = "brighten"
    summary: ClassVar[str] = "adds a constant"
    citation: ClassVar[str] = "@misc{brighten, title = {A Constant}}"

    strength: float = option(0.5, "what is added", low=0)

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        """The constant; None for 0."""
        return torch.full_like(x0, self.strength) if self.strength else None
