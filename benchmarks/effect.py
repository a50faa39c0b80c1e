"""Measure how methods that act on prompts change the prediction of x0."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from unalike.attach.diffusers import levels
from unalike.attach.diffusers.scoped import current
from unalike.guidance.context import Context
from unalike.guidance.method import Method
from unalike.guidance.noise import denoiser_step, per_image_norm


class Unchanged:
    """Context manager: predict what the denoiser of a Stable Diffusion pipeline would have without
    the methods of a guided call.

    It remembers the embeddings of the prompts and the input of the denoiser, and evaluates the
    denoiser again with both.

    Args:
        pipe: the pipeline, which is to be called with a guidance scale above 1.
        guidance_scale: that of the call.
    """

    def __init__(self, pipe: Any, guidance_scale: float) -> None:
        self._pipe = pipe
        self._guidance_scale = guidance_scale
        self._embeddings = torch.empty(0)
        self._input: tuple[Sequence[Any], Mapping[str, Any]] = ((), {})
        self._hook: Any = None

    def __enter__(self) -> Unchanged:
        self._hook = self._pipe.unet.register_forward_pre_hook(self._remember, with_kwargs=True)
        encode = self._pipe.encode_prompt

        @functools.wraps(encode)
        def encode_prompt(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
            positive, negative = encode(*args, **kwargs)
            self._embeddings = torch.cat([negative, positive])
            return positive, negative

        self._pipe.encode_prompt = encode_prompt
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()
        del self._pipe.encode_prompt

    def _remember(
        self, module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self._input = (args, {**kwargs, "encoder_hidden_states": self._embeddings})

    @torch.no_grad()
    def x0(self, x_t: Tensor) -> Tensor:
        """The prediction (B, …) for the noisy latents (B, …) of the current step."""
        args, kwargs = self._input
        output = self._pipe.unet.forward(*args, **kwargs)[0]  # forward itself calls no hooks
        without_prompt, with_prompt = output.chunk(2)
        output = without_prompt + self._guidance_scale * (with_prompt - without_prompt)
        level = levels.level(current(self._pipe).scheduler, args[1])
        return level.a * x_t + level.b * output


@dataclass(frozen=True, kw_only=True)
class Effect(Method):
    """Corrects nothing, and keeps how far the prediction is from the unchanged one, as a share of
    the denoiser's own step.

    To be given to `guide` after the methods whose effect it measures.

    Args:
        unchanged: open during the call.
        of_step: gets a row (B,) a step.
    """

    name: ClassVar[str] = "effect"
    summary: ClassVar[str] = "measures what the methods before it do to the prediction"
    citation: ClassVar[str] = ""

    unchanged: Unchanged
    of_step: list[Tensor] = field(default_factory=list)

    def x0_delta(self, x0: Tensor, context: Context) -> None:
        """None, always."""
        before = self.unchanged.x0(context.x_t)
        size = per_image_norm(x0 - before) / denoiser_step(before, context).clamp_min(
            torch.finfo(torch.float32).tiny
        )
        self.of_step.append(size)
