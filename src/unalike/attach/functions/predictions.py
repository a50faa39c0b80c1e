"""Guidance of predictions: the `denoised_fn` of guided-diffusion, GLIDE, DiT and MDT."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from unalike.attach.functions.conditioning import Conditioning
from unalike.attach.functions.run import GuidedFunction
from unalike.attach.run.encoders import PromptEncoder
from unalike.errors import AttachmentError, OptionError, UnsupportedError
from unalike.guidance.level import Level
from unalike.guidance.method import Method
from unalike.memory import Memory
from unalike.shields import Shield


def denoised_fn(
    diffusion: Any,
    *methods: Method,
    doubled: bool = False,
    deterministic_first_order: bool = False,
    space: str | None = None,
    memory: Memory | None = None,
    shield: Shield | None = None,
    prompts: str | Sequence[str] | None = None,
    prompt_encoder: PromptEncoder | None = None,
    embeddings: Tensor | None = None,
    groups: Sequence[int] | Tensor | None = None,
    seeds: Sequence[int] | None = None,
) -> GuidedPrediction:
    """A guided `denoised_fn` for sampling loops of guided-diffusion's kind.

    Such a loop hands over the prediction of the clean samples and nothing else, so the model is
    wrapped too, to see the noisy samples and the timestep: `wrap_model(model)`, which `sample(loop,
    model, …)` does by itself. The loop clips after this function where it is told to
    (`clip_denoised=True`, its default in guided-diffusion): that can undo part of a correction, and
    must be off for latents.

    Args:
        diffusion: what has the loop: its `alphas_cumprod` are those of the steps that are taken,
            from the last to the first; a `SpacedDiffusion`'s `timestep_map`, `rescale_timesteps`
            and `original_num_steps` say which timesteps the model is given.
        *methods: applied in order at each step; none is fine, as with a shield alone.
        doubled: whether the batch comes twice, as MDT's, DiT's and GLIDE's classifier-free guidance
            has it; the first half are the images, and the second gets the same corrections.
        deterministic_first_order: whether the loop is DDIM's with eta 0; then methods may renew
            noise (`Auto`).
        space, memory, shield, prompts, prompt_encoder, embeddings, groups, seeds: as for
            `guide_denoiser`, for the images, each once.

    Raises:
        OptionError: for arguments of the wrong kind, that do not fit each other, or are needed; for
            a method still to be calibrated.
        UnsupportedError: for a method that acts on something else than predictions: prompts, the
            starting noise, layers, adapters.
        StoreError: for a memory or a shield of another space.

    Cost: that of the methods at each step. The timestep is read from the device at each step.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> from unalike import SPELL
        >>> diffusion = SimpleNamespace(alphas_cumprod=[0.9, 0.5, 0.1])
        >>> def loop(model, x, denoised_fn):  # DDIM's, for a model that predicts clean samples
        ...     for i in (2, 1, 0):
        ...         x0 = denoised_fn(model(x, torch.full((len(x),), i)))
        ...         here, there = diffusion.alphas_cumprod[i], [1.0, 0.9, 0.5][i]
        ...         x = there**0.5 * x0 + ((1 - there) / (1 - here)) ** 0.5 * (x - here**0.5 * x0)
        ...     return x
        >>> def model(x, t):  # that knows one sample, 0
        ...     return torch.zeros_like(x)
        >>> guided = denoised_fn(diffusion, SPELL(radius=1.0))
        >>> noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
        >>> x = guided.sample(loop, model, noise)
        >>> bool((x[0] - x[1]).norm() > 0.5), guided.report.steps
        (True, 3)
    """
    conditioning = Conditioning(prompts, prompt_encoder, embeddings, groups, seeds, doubled)
    return GuidedPrediction(
        methods,
        Chain(diffusion),
        conditioning=conditioning,
        space=space,
        memory=memory,
        shield=shield,
        deterministic_first_order=deterministic_first_order,
    )


class Chain:
    """The noise levels of a diffusion of guided-diffusion's kind, and its model's timesteps.

    Args:
        diffusion: as for `denoised_fn`.

    Raises:
        OptionError: where it has no `alphas_cumprod`, or other ones than falling numbers up to 1.

    Example:
        >>> from types import SimpleNamespace
        >>> spaced = SimpleNamespace(alphas_cumprod=[0.9, 0.1], timestep_map=[0, 999])
        >>> Chain(spaced).index(999.0), len(Chain(spaced))
        (1, 2)
    """

    def __init__(self, diffusion: Any) -> None:
        given = getattr(diffusion, "alphas_cumprod", None)
        if given is None or isinstance(diffusion, Method):
            raise OptionError(
                f"diffusion is a {type(diffusion).__name__} without alphas_cumprod; allowed: a "
                "diffusion of guided-diffusion's kind, as in "
                "denoised_fn(diffusion, SPELL(radius=20.0))"
            )
        alphas = [float(a) for a in given]
        if (
            not alphas
            or not all(0 <= a <= 1 for a in alphas)
            or any(b >= a for a, b in pairwise(alphas))
        ):
            raise OptionError(
                "diffusion.alphas_cumprod does not fall from at most 1; it must be that of the "
                "steps, the noisiest last"
            )
        self._alphas = alphas
        times = getattr(diffusion, "timestep_map", None)
        times = range(len(alphas)) if times is None else times
        original = getattr(diffusion, "original_num_steps", len(alphas))
        scale = 1000.0 / original if getattr(diffusion, "rescale_timesteps", False) else 1.0
        self._times = [float(t) * scale for t in times]
        if len(self._times) != len(alphas):
            raise OptionError(
                f"diffusion has {len(alphas)} alphas_cumprod and a timestep_map of "
                f"{len(self._times)}; there must be one each"
            )

    def __len__(self) -> int:
        return len(self._alphas)

    def index(self, timestep: float) -> int:
        """The index in the chain, 0 for the last step, of what the model is given as its timestep.

        Raises:
            UnsupportedError: where it is none of the chain's.
        """
        off, index = min((abs(t - timestep), i) for i, t in enumerate(self._times))
        if off > 1e-3 * max(1.0, timestep):
            raise UnsupportedError(
                f"the model was asked at timestep {timestep:g}, which is none of the diffusion's "
                f"{len(self)}; give the diffusion whose "
                "loop is run, with its own alphas_cumprod and timestep_map"
            )
        return index

    def level(self, index: int) -> Level:
        """The noise levels of the step from this index of the chain."""
        here, there = self._alphas[index], self._alphas[index - 1] if index else 1.0
        return Level(math.sqrt(here), math.sqrt(1 - here), math.sqrt(there), math.sqrt(1 - there))


class GuidedPrediction(GuidedFunction):
    """A `denoised_fn` with guidance, made by the function of that name.

    `sample(loop, model, …)` runs a loop; or call `begin()`, give the loop `wrap_model(model)` as
    its model and this object as its `denoised_fn`, and call `finish(samples)`.

    Attributes:
        methods, memory, shield: as given to `denoised_fn`.
        report: what the last finished run did; None before the first.
        latents: its final samples (B, …), on the CPU; None before the first.
    """

    def __init__(self, methods: Sequence[Method], chain: Chain, **options: Any) -> None:
        self._chain = chain
        self._asked: tuple[Tensor, float] | None = None
        super().__init__(methods, **options)

    def begin(self) -> GuidedPrediction:
        """Begins a run, and forgets one that was begun and not finished."""
        self._asked = None
        return super().begin()

    def wrap_model(self, model: Callable[..., Any]) -> Watched:
        """The model `model(x, timesteps, …)` for the loop; it does the same, and its input is
        recorded.
        """
        return Watched(model, self._see)

    def sample(
        self, loop: Callable[..., Any], model: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """The samples of `loop(model, *args, denoised_fn=…, **kwargs)` with guidance, as of
        `diffusion.p_sample_loop`.

        Raises:
            UnsupportedError: when the loop returns something else than samples.
            RefusedError: as from `finish`; whatever the loop raises comes through, and nothing is
                remembered then.
        """
        self.begin()
        x = loop(self.wrap_model(model), *args, denoised_fn=self, **kwargs)
        if not isinstance(x, Tensor):
            raise UnsupportedError(
                f"the loop returned a {type(x).__name__}; only one that returns the samples alone "
                "can be run by sample(): call begin(), "
                "the loop, and finish(samples)"
            )
        return self.finish(x)

    def __call__(self, x0: Tensor, t: Tensor | int | None = None) -> Tensor:
        """The prediction x0 (R, …) with all corrections; without any, the very same object.

        Args:
            x0: as the loop has it from the model's last answer.
            t: the index in the chain, which some loops hand over too; it must be that of the
                model's last call.

        Raises:
            AttachmentError: when no run was begun, or the model was not asked through `wrap_model`.
            UnsupportedError: for timesteps that differ between images, or are not of the chain, or
                not of the model's last call.
            NumericsError: when the prediction or a correction is not finite.
        """
        self._open()
        if self._asked is None:
            raise AttachmentError(
                "denoised_fn was called and the model was not asked before it; give the loop "
                "wrap_model(model) as its model, or use "
                "sample(loop, model, …)"
            )
        (x_t, timestep), self._asked = self._asked, None
        index = self._chain.index(timestep)
        if t is not None and _one(t) != index:
            raise UnsupportedError(
                f"denoised_fn was called for step {_one(t):g} and the model was asked for step "
                f"{index} of the chain"
            )
        steps = len(self._chain)
        return self._corrected(
            x0, x_t, self._chain.level(index), step=steps - 1 - index, steps=steps
        )

    def _see(self, x: Tensor, timesteps: Tensor | float) -> None:
        self._asked = x.detach(), _one(timesteps)

    def __repr__(self) -> str:
        methods = ", ".join(map(repr, self.methods)) or "no methods"
        return f"GuidedPrediction({len(self._chain)} steps, {methods})"


class Watched:
    """A model whose input is recorded; every attribute is the model's own.

    Args:
        model: `model(x, timesteps, …)`.
        see: told x and the timesteps at each call.
    """

    def __init__(self, model: Callable[..., Any], see: Callable[[Tensor, Any], None]) -> None:
        self._model, self._see = model, see

    def __call__(self, x: Tensor, timesteps: Any, *args: Any, **kwargs: Any) -> Any:
        """The model's own output."""
        self._see(x, timesteps)
        return self._model(x, timesteps, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._model, name)


def _one(timesteps: Tensor | float) -> float:
    """The timestep of a whole batch."""
    if not isinstance(timesteps, Tensor):
        return float(timesteps)
    if bool((timesteps != timesteps.reshape(-1)[0]).any()):
        raise UnsupportedError(
            "the model was asked at different timesteps in one batch; only one timestep for the "
            "whole batch can be guided"
        )
    return float(timesteps.reshape(-1)[0])
