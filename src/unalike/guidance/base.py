"""What a guidance method is, what it sees at a step, and how its options are declared.

A method is a frozen dataclass of options. At each step of the sampler it may return a correction of
the model's prediction of the clean latent, `x0`; or, before the model is asked, other embeddings of
the prompts, or that there be no classifier-free guidance. Everything else (schedulers, prompts,
memory files) is the business of whoever calls it. Anything that a method has to remember between
steps lives in `Context.state`, which the run owns, so that one method object serves any number of
runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.options import option, require_allowed


@dataclass(frozen=True)
class References:
    """Stored clean latents (n, d) in float32, flattened, and the embeddings (n, p) of their prompts
    where those are known.
    """

    latents: Tensor
    prompts: Tensor | None = None

    def __len__(self) -> int:
        return self.latents.shape[0]


class Protected(Protocol):
    """Balls of one radius around protected points, however many they are and wherever they are
    kept.
    """

    @property
    def radius(self) -> float:
        """Of every ball, in the units of the latents."""
        ...

    def __len__(self) -> int:
        """How many balls there are."""
        ...

    def touched(self, x0: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Images of x0 (B, d), each with centres (k, d) on its device, in one or several parts; all
        that it lies in are among them.
        """
        ...


@runtime_checkable
class Pushing(Protocol):
    """Balls around protected points of another space than the latents', such as an embedding's,
    where the way out is no straight line.
    """

    def __len__(self) -> int:
        """How many balls there are."""
        ...

    def way_out(self, x0: Tensor, context: Context) -> Tensor | None:
        """How to move the predictions x0 (B, …): exactly 0 for images that lie in no ball, None
        where none lies in one.
        """
        ...


class Images(Protocol):
    """Predictions and earlier generations as images, for methods that compare embeddings of
    those.
    """

    def embedded(self, x0: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor:
        """What `embed` makes of the images (B, 3, h, w) in [0, 1] that predictions x0 (B, …) decode
        to: (B, e), with gradients.
        """
        ...

    def remembered(self, embed: Callable[[Tensor], Tensor]) -> Tensor:
        """The same of all samples of the memory, in its order: (n, e), without gradients."""
        ...


@dataclass
class Context:
    """What a method may read at one step. `x_t = alpha · x0 + sigma · noise`; `B` images, prompt
    embeddings of size `p`.

    Attributes:
        step: index of this model evaluation, from 0.
        steps: how many there will be.
        alpha, sigma: the noise level at which the model was evaluated.
        next_alpha, next_sigma: the noise level that the sampler goes to; 1 and 0 at the end.
        x_t: the noisy latents (B, …).
        prompts: embeddings of the prompts (B, p), float32; None where the host has none.
        groups: (B,) int64, equal for images of the same prompt.
        memory: earlier generations, or None.
        shield: the protected set, or None.
        images: what turns predictions into embeddings of images; None where the host cannot.
        masks: from a region, as methods are given one, to where it is: (B or 1, …) bool that
            broadcasts to x0; None where the host knows no places.
        generators: where a method has to take its randomness from, one for each image; see `noise`.
        one_step: whether the sampler goes straight from this `x_t` and x0 to the next noise level,
            without earlier predictions and without noise of its own; only then noise can be drawn
            anew.
        state: this method's own, empty at the start of a run.
    """

    step: int
    steps: int
    alpha: float
    sigma: float
    next_alpha: float
    next_sigma: float
    x_t: Tensor
    groups: Tensor
    prompts: Tensor | None = None
    memory: References | None = None
    shield: Protected | Pushing | None = None
    images: Images | None = None
    masks: Callable[[Any], Tensor] | None = None
    generators: Sequence[torch.Generator] = ()
    one_step: bool = False
    state: dict[str, Any] = field(default_factory=dict)

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal noise of the shape, dtype and device of `like` (B, …), each image's from
        its own generator.

        So an image's noise does not depend on the others of its batch.

        Raises:
            OptionError: where there is not one generator for each image.
        """
        if len(self.generators) != len(like):
            raise OptionError(
                f"there are {len(self.generators)} generators for {len(like)} images; pass generators=, one for each image"
            )
        return torch.stack([torch.randn(like.shape[1:], generator=g) for g in self.generators]).to(
            like
        )


@dataclass(frozen=True, kw_only=True)
class Method:
    """Base of all guidance methods: a window in the schedule, a stride, and a limit on the size of
    a correction.

    Args:
        start: fraction of the schedule at which the method begins to act.
        stop: fraction at which it no longer acts; the step `i` of `n` is inside where `start <= i /
            n < stop`.
        every: act at each `every`-th step only, step 0 included.
        limit: the largest correction allowed, as a share of the denoiser's own step `||x0 - x_t /
            alpha||` of that image; None for none.

    Raises:
        OptionError: for any option outside its allowed values, naming the option, the value and
            what is allowed.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    citation: ClassVar[str]

    start: float = option(0.0, "fraction of the schedule at which it begins", low=0, high=1)
    stop: float = option(1.0, "fraction of the schedule at which it ends", low=0, high=1)
    every: int = option(1, "act at every such step only", low=1, high=10_000)
    limit: float | None = option(
        None,
        "largest correction, as a share of the denoiser's own step",
        above=0,
        high=1000,
        choices=(None,),
    )

    def __post_init__(self) -> None:
        require_allowed(self, owner=type(self).__name__)
        if self.start >= self.stop:
            raise OptionError(
                f"{type(self).__name__}: start is {self.start} and stop is {self.stop}; start must be below stop, as in start=0.0, stop=0.6"
            )

    def acts(self, step: int, steps: int) -> bool:
        """Whether the step lies in the window and on the stride."""
        return self.start * steps <= step < self.stop * steps and step % self.every == 0

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        """The correction (B, …) to add to the predicted clean latents `x0` (B, …), in float32; None
        for none at all.
        """
        if not self.acts_on_prompts and type(self).renewal is Method.renewal:
            raise TypeError(
                f"{type(self).__name__} does not say what it does: define x0_delta(x0, context), renewal(context), "
                "condition(embeddings, context) or cfg_enabled(context)"
            )
        return None

    def condition(self, embeddings: Tensor, context: Context) -> Tensor | None:
        """Other embeddings (B, …) of the prompts for the model at this step, in place of
        `embeddings` (B, …); None to leave them.

        Called before the model, once for each tensor of embeddings that it takes (tokens, pooled, a
        class in each block). The context has the model's own input as `x_t`, and neither memory nor
        shield.
        """
        return None

    def cfg_enabled(self, context: Context) -> bool:
        """Whether classifier-free guidance is on at this step; the context is that of
        `condition`.
        """
        return True

    def renewal(self, context: Context) -> float:
        """How much of the noise to draw anew at this step, from 0, none, to 1, as much as ancestral
        sampling does (see `renewed`).
        """
        return 0.0

    def without_renewal(self) -> Self:
        """The method as it acts where the solver cannot draw noise anew; reports describe that."""
        return self

    @property
    def acts_on_prompts(self) -> bool:
        """Whether the method has a `condition` or a `cfg_enabled` of its own, for which the host
        has to be able to reach the prompts.
        """
        own = type(self)
        return own.condition is not Method.condition or own.cfg_enabled is not Method.cfg_enabled

    @property
    def needs_calibration(self) -> bool:
        """Whether the method has a setting that must first be measured on unguided samples (see
        `calibrated`).
        """
        return False

    def calibrated(self, latents: Tensor, groups: Tensor) -> Self:
        """The same method with such settings measured on final, unguided latents (B, …) and their
        prompt groups (B,).
        """
        return self


def per_image_norm(x: Tensor) -> Tensor:
    """Euclidean norm (B,) of each image of a batch (B, …), in float32."""
    return x.flatten(1).float().norm(dim=1)


def limited(delta: Tensor, x0: Tensor, context: Context, limit: float | None) -> Tensor:
    """`delta` with each image's part scaled down to at most `limit · ||x0 - x_t / alpha||`."""
    if limit is None:
        return delta
    room = limit * denoiser_step(x0, context)
    scale = (room / per_image_norm(delta).clamp_min(torch.finfo(torch.float32).tiny)).clamp_max(1)
    return delta * scale.view(-1, *[1] * (delta.ndim - 1))


def denoiser_step(x0: Tensor, context: Context) -> Tensor:
    """`||x0 - x_t / alpha||` (B,): how far the denoiser itself moves each image, in the units of
    `x0`.

    Where alpha is 0 (pure noise) the norm of `x0` stands for it.
    """
    if context.alpha == 0:
        return per_image_norm(x0)
    return per_image_norm(x0.float() - context.x_t.float() / context.alpha)


def renewed(x0: Tensor, share: float, context: Context) -> Tensor | None:
    """The edit (B, …) of `x0` (B, …) by which a deterministic step of the sampler draws part of the
    noise anew.

    The step goes from `x_t = alpha · x0 + sigma · e` to `next_alpha · x0 + next_sigma · e`. With
    fresh noise `z` it shall go to

        next_alpha · x0 + √(next_sigma² - s²) · e + s · z,    s = share · next_sigma · √(1 - (alpha
        · next_sigma / (next_alpha · sigma))²)

    which for `share = 1` is a draw of the noisier chain's posterior, ancestral sampling, and for 0
    the deterministic step. An edit of x0 by `delta` moves the result by `(next_alpha - alpha ·
    next_sigma / sigma) · delta`.

    Source: Song, Meng and Ermon 2021, Eq. 12 and 16, with η as `share` (arXiv:2010.02502), written
    for any alpha and sigma.

    Args:
        x0: the prediction, corrected.
        share: η, from 0 to 1.
        context: the noise levels, the noisy latents and where randomness comes from.

    Returns:
        None where nothing is drawn anew: at share 0, at the last step, where the noise level does
        not fall, and where the sampler is not of one step.

    Example:
        >>> import torch
        >>> levels = {"alpha": 0.6, "sigma": 0.8, "next_alpha": 1, "next_sigma": 0}
        >>> context = Context(step=0, steps=1, x_t=torch.zeros(1, 1), groups=torch.zeros(1), one_step=True, **levels)
        >>> renewed(torch.ones(1, 1), 1.0, context) is None  # no noise is left after the last step
        True
    """
    if share == 0 or not renewable(context):
        return None
    alpha, sigma, next_alpha, next_sigma = (
        context.alpha,
        context.sigma,
        context.next_alpha,
        context.next_sigma,
    )
    carried = alpha * next_sigma / (next_alpha * sigma)
    s = share * next_sigma * math.sqrt(1 - carried**2)
    e = (context.x_t.to(x0) - alpha * x0) / sigma
    change = (math.sqrt(next_sigma**2 - s**2) - next_sigma) * e + s * context.noise(x0)
    return change / (next_alpha * (1 - carried))


def renewable(context: Context) -> bool:
    """Whether noise can be drawn anew at this step: the sampler is of one step, and some noise is
    left after it, less than before.
    """
    alpha, sigma, next_alpha, next_sigma = (
        context.alpha,
        context.sigma,
        context.next_alpha,
        context.next_sigma,
    )
    return (
        context.one_step and next_sigma > 0 and alpha * next_sigma < (1 - 1e-6) * next_alpha * sigma
    )


def stored_rows(rows: Tensor, x: Tensor, what: str) -> Tensor:
    """Stored latents (n, d) with the device and dtype of flattened latents `x` (B, d); the same
    tensor where they have them already.

    Raises:
        OptionError: where they are of another size, which means of another model or image size;
            `what` names them in the message.
    """
    if rows.ndim != 2 or rows.shape[1] != x.shape[1]:
        raise OptionError(
            f"{what} holds latents of shape {tuple(rows.shape[1:])} and this generation has {x.shape[1]} values an image; both must come "
            "from the same model at the same image size"
        )
    return rows.to(x)
