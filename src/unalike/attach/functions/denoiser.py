"""Guidance of a denoiser `D(x, sigma) -> x0`, as samplers of k-diffusion, EDM and EDM2 call it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from unalike.attach.functions.conditioning import Conditioning
from unalike.attach.functions.run import GuidedFunction
from unalike.attach.functions.sigmas import Sigmas, one_sigma
from unalike.attach.run.encoders import PromptEncoder
from unalike.errors import OptionError, UnsupportedError
from unalike.guidance.level import Level
from unalike.guidance.method import Method
from unalike.memory import Memory
from unalike.shields import Shield


def guide_denoiser(
    denoiser: Callable[..., Tensor],
    *methods: Method,
    sigmas: Sequence[float] | Tensor,
    churn: float = 0.0,
    churn_range: tuple[float, float] = (0.0, math.inf),
    deterministic_first_order: bool = False,
    space: str | None = None,
    memory: Memory | None = None,
    shield: Shield | None = None,
    prompts: str | Sequence[str] | None = None,
    prompt_encoder: PromptEncoder | None = None,
    embeddings: Tensor | None = None,
    groups: Sequence[int] | Tensor | None = None,
    seeds: Sequence[int] | None = None,
) -> GuidedDenoiser:
    """The denoiser with guidance; give it to the sampler in place of the denoiser.

        x0 = D(x, sigma) + delta,    x = x0 + sigma · noise

    Samplers that ask several times a step (Heun, DPM-Solver, EDM's Algorithm 2) are guided at each
    call; see `Sigmas` for the step that a call belongs to, and
    `unalike.attach.diffusers.schedulers` for what an edit does in the solvers that remember earlier
    predictions. Where predictions are combined afterwards, as by `guidance` in EDM2's sampler,
    guide the combined function: a correction of the conditional prediction alone would be
    multiplied by the weight.

    Args:
        denoiser: `D(x, sigma, …) -> x0` for x (B, …) and a sigma for the batch, as a number or a
            tensor; what comes after is passed on.
        *methods: applied in order at each call; none is fine, as with a shield alone.
        sigmas: the noise levels of the sampler's steps, falling, as the sampler is given them or
            makes them (`karras_sigmas` for EDM2's).
        churn: the sampler's `S_churn` (`s_churn`); 0 for none. The sample it moves is the one that
            the denoiser is given.
        churn_range: the sampler's `S_min` and `S_max`.
        deterministic_first_order: whether the sampler is Euler's method without noise; then methods
            may renew noise (`Auto`).
        space: names the space of x, as "pixels" for images, so that samples of different models are
            never compared; needed with a memory or a shield.
            `unalike.attach.spaces.latent_model(pipe)` is the name that a diffusers pipeline's
            latents have.
        memory: earlier samples, which methods may stay away from; those of a run are added when it
            is finished.
        shield: protected samples, of the space "{space}/{shape}"; at the end each sample is checked
            against them, moved out and certified.
        prompts: a text for each image, or one for all; they make the groups, and are kept with the
            memory.
        prompt_encoder: embeds the prompts: a function from N of them to (N, p), or "clip".
        embeddings: (B, p) in the place of an encoder, such as one-hot class labels.
        groups: a number for each image, equal for images of the same prompt, where prompts or
            embeddings do not tell.
        seeds: a whole number for each image: for methods that draw random numbers, and kept with
            the memory.

    Raises:
        OptionError: for arguments of the wrong kind, that do not fit each other, or are needed; for
            a method still to be calibrated.
        UnsupportedError: for a method that acts on something else than predictions: prompts, the
            starting noise, layers, adapters.
        StoreError: for a memory or a shield of another space.

    Cost: that of the methods at each call. The noise level is read from the device at each call.

    Example:
        >>> import torch
        >>> from unalike import SPELL
        >>> def denoiser(x, sigma):  # a model that knows one sample, 0
        ...     return torch.zeros_like(x)
        >>> def euler(denoiser, x, sigmas):
        ...     for here, there in zip(sigmas, sigmas[1:]):
        ...         x = x + (x - denoiser(x, here)) / here * (there - here)
        ...     return x
        >>> sigmas = [4.0, 2.0, 1.0, 0.0]
        >>> guided = guide_denoiser(denoiser, SPELL(radius=1.0), sigmas=sigmas)
        >>> noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
        >>> x = guided.sample(euler, 4 * noise, sigmas)
        >>> bool((x[0] - x[1]).norm() > 0.5), guided.report.steps
        (True, 3)
    """
    if not callable(denoiser):
        raise OptionError(
            f"denoiser is a {type(denoiser).__name__}; allowed: a function D(x, sigma) that "
            "returns clean samples"
        )
    conditioning = Conditioning(prompts, prompt_encoder, embeddings, groups, seeds)
    levels = Sigmas(sigmas, churn=churn, churn_range=churn_range)
    return GuidedDenoiser(
        denoiser,
        methods,
        levels,
        conditioning=conditioning,
        space=space,
        memory=memory,
        shield=shield,
        deterministic_first_order=deterministic_first_order,
    )


class GuidedDenoiser(GuidedFunction):
    """A denoiser with guidance, made by `guide_denoiser`.

    `sample(sampler, …)` runs a sampler; `begin()` and `finish(x)` around a loop of one's own are
    the same. Every other attribute is the denoiser's own (`sigma_min`, `round_sigma`).

    Attributes:
        denoiser: the function itself.
        methods, memory, shield: as given to `guide_denoiser`.
        report: what the last finished run did, with an entry for each call in the lists of
            corrections; None before the first.
        latents: its final samples (B, …), on the CPU; None before the first.
    """

    def __init__(
        self,
        denoiser: Callable[..., Tensor],
        methods: Sequence[Method],
        sigmas: Sigmas,
        **options: Any,
    ) -> None:
        self.denoiser = denoiser
        self._sigmas = sigmas
        super().__init__(methods, **options)

    def __call__(self, x: Tensor, sigma: Tensor | float, *args: Any, **kwargs: Any) -> Tensor:
        """The prediction (B, …) for x (B, …) with all corrections; without any, the very object
        that the denoiser returns.

        Raises:
            AttachmentError: when no run was begun.
            UnsupportedError: for noise levels that differ between images, and a prediction that is
                not of the shape of x.
            NumericsError: when the prediction or a correction is not finite.
        """
        self._open()
        level = one_sigma(sigma)
        step, after = self._sigmas.place(level)
        x0 = self.denoiser(x, sigma, *args, **kwargs)
        return self._corrected(
            x0, x, Level(1.0, level, 1.0, after), step=step, steps=len(self._sigmas)
        )

    def sample(self, sampler: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """The samples of `sampler(denoiser, *args, **kwargs)` with guidance: k-diffusion's
        `sample_…` functions and EDM's are such.

        Raises:
            UnsupportedError: when the sampler returns something else than samples.
            RefusedError: as from `finish`; whatever the sampler raises comes through, and nothing
                is remembered then.
        """
        self.begin()
        x = sampler(self, *args, **kwargs)
        if not isinstance(x, Tensor):
            raise UnsupportedError(
                f"the sampler returned a {type(x).__name__}; only one that returns the samples "
                "alone can be run by sample(): call begin(), "
                "the sampler, and finish(x) with the samples"
            )
        return self.finish(x)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "denoiser" not in vars(self):
            raise AttributeError(name)
        return getattr(self.denoiser, name)

    def __repr__(self) -> str:
        methods = ", ".join(map(repr, self.methods)) or "no methods"
        return f"GuidedDenoiser({len(self._sigmas)} steps, {methods})"
