"""One guided generation, whatever the host: runs the methods at a step and keeps what they did.

The host (a diffusers pipeline, a k-diffusion sampler, a loop of one's own) gives the predicted clean latents and the noise levels of each
model evaluation and applies the correction that comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unalike.errors import NumericsError
from unalike.guidance.base import Balls, Context, Method, References, denoiser_step, limited, per_image_norm


@dataclass
class Trace:
    """What one method did: per step a row (B,) of correction sizes, 0 where it did nothing.

    `of_x0` is `||delta|| / ||x0||`; `of_step` is `||delta||` as a share of the denoiser's own step (see `denoiser_step`).
    """

    method: str
    of_x0: list[Tensor] = field(default_factory=list)
    of_step: list[Tensor] = field(default_factory=list)


class Run:
    """The state of one generation of `B` images: methods, their states, references and traces.

    Args:
        methods: applied in order; each sees the prediction as the ones before it left it.
        steps: number of model evaluations to come.
        groups: (B,) int64, equal for images of the same prompt.
        prompts: (B, p) float32 embeddings, or None.
        memory: earlier generations, or None.
        shield: protected regions, or None.
        generator: for methods that draw random numbers.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        *,
        steps: int,
        groups: Tensor,
        prompts: Tensor | None = None,
        memory: References | None = None,
        shield: Balls | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self.methods = tuple(methods)
        self.steps = steps
        self.groups = groups
        self.prompts = prompts
        self.memory = memory
        self.shield = shield
        self.generator = generator
        self.traces = [Trace(m.name) for m in self.methods]
        self._states: list[dict[str, Any]] = [{} for _ in self.methods]

    def correct(
        self, x0: Tensor, *, step: int, x_t: Tensor, alpha: float, sigma: float, next_alpha: float, next_sigma: float
    ) -> Tensor | None:
        """The sum of all corrections (B, …) in float32 for predictions `x0` (B, …); None where no method changes anything.

        Raises:
            NumericsError: when the prediction or a correction is not finite.
        """
        if not torch.isfinite(x0).all():
            raise NumericsError(
                f"the model's prediction at step {step} of {self.steps} has NaN or infinite values; "
                "try float32, or bfloat16 in place of float16"
            )
        current, total = x0.float(), None
        for method, trace, state in zip(self.methods, self.traces, self._states, strict=True):
            delta = None
            context = Context(
                step=step,
                steps=self.steps,
                alpha=alpha,
                sigma=sigma,
                next_alpha=next_alpha,
                next_sigma=next_sigma,
                x_t=x_t,
                groups=self.groups,
                prompts=self.prompts,
                memory=self.memory,
                shield=self.shield,
                generator=self.generator,
                state=state,
            )
            if method.acts(step, self.steps):
                delta = method.x0_delta(current, context)
            if delta is None:
                trace.of_x0.append(torch.zeros(len(x0)))
                trace.of_step.append(torch.zeros(len(x0)))
                continue
            delta = limited(delta.float(), current, context, method.limit)
            if not torch.isfinite(delta).all():
                raise NumericsError(
                    f"the correction of {method.name} at step {step} of {self.steps} has NaN or infinite values; lower its strength"
                )
            size, tiny = per_image_norm(delta), torch.finfo(torch.float32).tiny
            trace.of_x0.append((size / per_image_norm(current).clamp_min(tiny)).cpu())
            trace.of_step.append((size / denoiser_step(current, context).clamp_min(tiny)).cpu())
            current = current + delta
            total = delta if total is None else total + delta
        return total
