"""Predict what a pipeline makes of a starting noise at its first evaluation, with gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from unalike.attach.diffusers.evaluation import evaluate
from unalike.attach.diffusers.host import Host
from unalike.attach.diffusers.scoped import own_model
from unalike.attach.diffusers.starting_noise import StartingNoise
from unalike.attach.run.randomness import copied
from unalike.guidance.method import Method


class FirstPrediction:
    """A function from starting noises (B, …) to the predictions x0 (B, …) of the first evaluation,
    float32 on the CPU, as `Context.predict`.

    It runs the pipeline on a stand-in, from its prompts to the scheduler's first step: scaling,
    packing, guidance and an image to start from are the pipeline's own.

    Args:
        pipe: the pipeline itself.
        arguments: of the call, by name, with generators as they are before it.
        methods: those that ask, for messages.

    Raises:
        UnsupportedError: when called, for a pipeline whose noise cannot be given.
    """

    def __init__(self, pipe: Any, arguments: dict[str, Any], methods: Sequence[Method]) -> None:
        self._pipe = pipe
        self._arguments = {**arguments, "generator": copied(arguments.get("generator"))}
        if arguments.get("generator") is None:
            del self._arguments["generator"]
        self._methods = methods

    def __call__(self, noise: Tensor, through_model: bool) -> Tensor:
        """The predictions, differentiable in `noise`; through the model, or with its output held.

        Cost: one evaluation, and its prompts encoded.
        """
        own = {**self._arguments}
        if "generator" in own:
            own["generator"] = copied(own["generator"])

        @contextmanager
        def started(pipe: Any) -> Iterator[None]:
            starts = StartingNoise(pipe, self._methods, _Given(noise), gradients=True)
            with starts, torch.enable_grad():
                if Host(pipe).part("encode_prompt") is not None:
                    pipe.encode_prompt = torch.no_grad()(pipe.encode_prompt)
                for name in () if through_model else Host(pipe).denoisers:
                    model = own_model(pipe, name)
                    vars(model)["forward"] = _held(model.forward)
                yield

        return evaluate(self._pipe, own, 1, changed=started).x0


class _Given:
    """Gives the pipeline this noise in place of its own."""

    def __init__(self, noise: Tensor) -> None:
        self._noise = noise

    def start(self, noise: Tensor) -> Tensor:
        return self._noise.to(noise)


def _held(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A model's forward whose output is a constant."""

    def held(*args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return forward(*args, **kwargs)

    return held
