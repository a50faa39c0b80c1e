"""Begin, correct and finish a guided run of a function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from unalike.attach.functions.conditioning import Conditioning
from unalike.attach.run.guard import PlainGuard
from unalike.attach.run.models import Models, require_same_models
from unalike.attach.run.outputs import blanked
from unalike.attach.run.policy import MOVE, Policy, refusal
from unalike.attach.run.randomness import Randomness
from unalike.attach.run.redraws import Redraws
from unalike.attach.run.report import Report
from unalike.attach.run.session import Session
from unalike.attach.spaces import Space
from unalike.errors import AttachmentError, OptionError, StoreError, UnsupportedError
from unalike.guidance.level import Level
from unalike.guidance.method import Method
from unalike.guidance.run import Call
from unalike.memory import Memory
from unalike.shields import Shield

_HIDDEN = {
    "condition": "the prompts that a model is given",
    "cfg_enabled": "the prompts that a model is given",
    "initial_noise": "the noise that a sampler starts from",
    "features": "the layers inside a model",
    "adapters_enabled": "the adapters of a model",
}
"""Hooks that a function of samples has no place for, and what they act on."""


class GuidedFunction:
    """Base of `GuidedDenoiser` and `GuidedPrediction`: `begin`, the sampler's calls, `finish`.

    One run after another can be made with one object; a run that is not finished, because the
    sampler failed, leaves nothing behind.

    Args:
        methods: in order.
        conditioning: prompts, groups and seeds of the images.
        space: names the space of the samples; needed with a memory or a shield.
        memory: earlier samples; those of a run are added when it is finished.
        shield: the protected set, in the space of the samples.
        deterministic_first_order: whether the sampler goes from the prediction straight to the next
            noise level, without noise of its own.

    Attributes:
        report: what the last finished run did; None before the first.
        latents: its final samples (B, …), on the CPU, 0 for refused ones; None before the first.

    Raises:
        OptionError: for arguments of the wrong kind, and for a method that is still to be
            calibrated.
        UnsupportedError: for a method that acts on something else than predictions: prompts, the
            starting noise, layers, adapters.
        StoreError: for a memory or a shield of another space.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        *,
        conditioning: Conditioning,
        space: str | None,
        memory: Memory | None,
        shield: Shield | None,
        deterministic_first_order: bool,
    ) -> None:
        _require_methods(methods)
        for name, value, kind in (("memory", memory, Memory), ("shield", shield, Shield)):
            if value is not None and not isinstance(value, kind):
                raise OptionError(
                    f"{name} is a {type(value).__name__}; allowed: a {kind.__name__} or None, as "
                    f"in {name}={kind.__name__}(…)"
                )
            if value is not None and not space:
                raise OptionError(
                    f"{name} is given and space is not; name the space of the samples, so that "
                    'those of different models are never compared, as in space="pixels" for images '
                    "or the name of an autoencoder for latents"
                )
        self.methods = tuple(methods)
        self.memory, self.shield = memory, shield
        self.report: Report | None = None
        self.latents: Tensor | None = None
        self._conditioning = conditioning
        self._models = Models(space or "samples", conditioning.model)
        self._deterministic_first_order = deterministic_first_order
        self._session: Session | None = None
        self._shape: torch.Size | None = None
        self._evaluations, self._first_step = 0, 0
        if memory is not None:
            require_same_models(memory, self._models)
        if shield is not None and Space.parse(shield.space).model != space:
            raise StoreError(
                f"the shield protects points of {shield.space!r} and these samples are of "
                f"{space!r}; a shield of samples of shape (3, 64, 64) in this space is made with "
                f'Shield(samples, space="{space}/3x64x64", radius=…)'
            )

    def begin(self) -> Self:
        """Begins a run, and forgets one that was begun and not finished.

        A memory takes in what other processes added to its file.
        """
        if self.memory is not None:
            self.memory.refresh()
        self._session = Session(
            self.methods,
            models=self._models,
            prompts=self._conditioning,
            memory=self.memory,
            guards=self._guards,
            randomness=None
            if self._conditioning.seeds is None
            else Randomness.of_seeds(self._conditioning.seeds),
        )
        self._shape, self._evaluations, self._first_step = None, 0, 0
        return self

    def finish(self, x: Tensor) -> Tensor:
        """Checks, remembers and reports the final samples (R, …); moves them out of balls.

        Where nothing is moved they are returned as they are.

        Raises:
            AttachmentError: when no run was begun, or nothing was evaluated in it.
            RefusedError: when samples are inside the protected set and cannot be moved out; it has
                the others, which are remembered, too.
            OptionError: for samples of another shape than those that were guided.
            NumericsError: when they are not finite.
        """
        session = self._open()
        if not self._evaluations:
            raise AttachmentError(
                f"nothing was guided: the sampler never asked this {type(self).__name__}; give it "
                "to the sampler"
            )
        if x.shape != self._shape:
            raise OptionError(
                f"the final samples have shape {tuple(x.shape)} and those that were guided "
                f"{tuple(self._shape or ())}"
            )
        moved = session.finish(x)
        result = x if moved is None else moved
        draws = Redraws(session, result)
        report = replace(
            draws.report(self.methods, self._guards, as_latents=True), steps=self._evaluations
        )
        final = session.latents if session.latents is not None else result
        draws.commit()
        self.report, self.latents = report, blanked(final, draws.inside, draws.images).cpu()
        self._session = None
        if draws.inside:
            raise refusal(
                _without(result, draws.inside, draws.images),
                report,
                draws.inside,
                draws.failures,
                Policy(MOVE),
                choices=(),
            )
        return result

    @property
    def _guards(self) -> list[PlainGuard]:
        return [] if self.shield is None else [PlainGuard(self.shield)]

    def _open(self) -> Session:
        if self._session is None:
            raise AttachmentError(
                f"this {type(self).__name__} has no run; call begin() before the sampler and "
                "finish(x) after it, or sample(sampler, …)"
            )
        return self._session

    def _corrected(self, x0: Tensor, x_t: Tensor, level: Level, *, step: int, steps: int) -> Tensor:
        """The prediction with all corrections, in its own precision; the very same object where
        there are none.
        """
        session = self._open()
        if not isinstance(x0, Tensor) or x0.shape != x_t.shape:
            got = (
                f"of shape {tuple(x0.shape)}"
                if isinstance(x0, Tensor)
                else f"a {type(x0).__name__}"
            )
            raise UnsupportedError(
                f"the prediction is {got} for samples of shape {tuple(x_t.shape)}; it must be the "
                "clean samples alone"
            )
        if self._shape is not None and x_t.shape != self._shape:
            raise UnsupportedError(
                f"the samples have shape {tuple(x_t.shape)} and had {tuple(self._shape)} before, "
                "in one run; call begin() before each batch"
            )
        self._shape = x_t.shape
        self._require_falling_noise(level, step)
        precise = torch.promote_types(x0.dtype, torch.float32)
        clean, noisy = x0.detach().to(precise), x_t.detach().to(precise)
        call = Call(
            x0=clean,
            x_t=noisy,
            level=level,
            step=step,
            steps=steps,
            deterministic_first_order=self._deterministic_first_order,
        )
        delta = session.correct(call)
        self._evaluations += 1
        return x0 if delta is None else (x0.to(precise) + delta).to(x0.dtype)

    def _require_falling_noise(self, level: Level, step: int) -> None:
        if level.fault is not None:
            raise UnsupportedError(f"the sampler is at a noise level that is none: {level.fault}")
        if not self._evaluations:
            self._first_step = step
        if step < self._first_step:
            raise UnsupportedError(
                f"the sampler went from step {self._first_step} of its noise levels back to "
                f"{step}, "
                "so that its noise rises; only sampling from noise to data can be guided: leave "
                "out "
                "guidance where samples are turned into noise"
            )


def _require_methods(methods: Sequence[Method]) -> None:
    for method in methods:
        if not isinstance(method, Method):
            raise OptionError(
                f"{method!r} is not a guidance method; pass an object, as in SPARKE(strength=0.05)"
            )
        hidden = [what for hook, what in _HIDDEN.items() if method.defines(hook)]
        if hidden:
            raise UnsupportedError(
                f"{type(method).__name__} acts on {hidden[0]}, which a function of samples does "
                "not show; leave it out, or guide a diffusers pipeline"
            )
        if method.needs_calibration:
            raise OptionError(
                f"{method!r} is still to be measured; sample once without guidance and use "
                "method.calibrated(samples, groups), or set a "
                "number, as in SPELL(radius=20.0)"
            )


def _without(result: Tensor, gone: Sequence[int], images: int) -> Any:
    """The samples (R, …) with 0 in the place of these images, wherever they stand in a doubled
    batch.
    """
    kept = result.clone()
    for i in gone:
        kept[i::images] = 0
    return kept
