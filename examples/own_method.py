"""Write a guidance method: push the predicted images of a batch away from their mean."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

import unalike
from unalike.guidance import Context, Method, option


@dataclass(frozen=True, kw_only=True)
class AwayFromMean(Method):
    """Adds `strength · (x0 - mean(x0))` to each predicted clean latent."""

    name: ClassVar[str] = "away-from-mean"
    summary: ClassVar[str] = "pushes the images of a batch away from their mean"
    citation: ClassVar[str] = ""

    strength: float = option(0.1, "share of the distance to the mean that is added", low=0)

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        """The correction (B, …); None where it would change nothing."""
        if self.strength == 0 or len(x0) == 1:
            return None
        return self.strength * (x0 - x0.mean(dim=0, keepdim=True))


guided = unalike.guide(unalike.load("emoji"), AwayFromMean(strength=0.2, stop=0.6))
guided(prompt="clock", num_images_per_prompt=4, num_inference_steps=10)
for image in guided.report.images:
    print([f"{share:.2f}" for share in image.corrections["away-from-mean"]])
