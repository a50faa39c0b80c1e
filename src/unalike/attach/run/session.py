"""The begin/correct/finish lifecycle of one guided run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from unalike.attach.run.conditions import Conditions
from unalike.attach.run.ending import Ending
from unalike.attach.run.guard import Guard, steering
from unalike.attach.run.memorisation import Updates
from unalike.attach.run.models import Models, require_same_models
from unalike.attach.run.randomness import Randomness
from unalike.attach.run.report import Decoded, ImageReport, image_reports, steps_active
from unalike.attach.spaces import latent_space, memory_space
from unalike.errors import (
    AttachmentError,
    NumericsError,
    OptionError,
    ShieldError,
    UnsupportedError,
)
from unalike.guidance.context import Layer
from unalike.guidance.method import Method
from unalike.guidance.methods import described
from unalike.guidance.run import Call, Prepared, Run, UpcomingCall
from unalike.guidance.spell import SPELL
from unalike.memory import Memory, View

if TYPE_CHECKING:
    from unalike.attach.diffusers.images import (
        PipelineImages,
    )  # with diffusers, which code outside it need not have
    from unalike.attach.diffusers.regions.places import Places


class Conditioned(Protocol):
    """Tells a session the conditions of its images."""

    def conditions(self, sample: Tensor) -> Conditions:
        """Return the conditions of the images of `sample` (R, …)."""
        ...


class Session:
    """The guidance of one run of a pipeline. It changes nothing outside before `commit`.

    Args:
        methods: in order.
        models: names of the pipeline's latent and prompt models.
        prompts: says what is known of the images of the call, as by listening to the pipeline's
            prompts.
        memory: read at the first step; written by `commit` only.
        guards: of the protected sets; they check after the last step.
        move: whether the guard, then one, moves out what is inside; else it only measures.
        finished: whether the finished images will be told by `see`.
        images: of the pipeline, where a method compares embeddings of those.
        randomness: of the call, for the memory's records and for methods that draw random numbers;
            None for torch's global generator.
        places: finds the regions of the methods in the latents; None where there are none to find.
        streams: for each method what it stored in earlier calls; this run changes copies.
        predict: as in `Context`.

    Attributes:
        space: the latent space and that of the prompt embeddings, as `Memory` names them.
        steps: number of model evaluations so far.
        decoded: whether the final latents were read where they are decoded or returned.
        unguided: names of schedulers whose steps were not guided.
        predictions: number of model evaluations for `predict`, before the first step.
        reused: number of model evaluations that were known before.
        updates: the updates of the latents; the host adds them.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        *,
        models: Models,
        prompts: Conditioned,
        memory: Memory | None = None,
        guards: Sequence[Guard] = (),
        move: bool = True,
        finished: bool = False,
        images: PipelineImages | None = None,
        randomness: Randomness | None = None,
        places: Places | None = None,
        streams: Sequence[dict[str, Any]] | None = None,
        predict: Callable[[Tensor, bool], Tensor] | None = None,
    ) -> None:
        self._methods = tuple(methods)
        self._models = models
        self._prompts = prompts
        self._memory = memory
        self._guards = tuple(guards)
        self._move, self._tells = move, finished
        self._images = images
        self._randomness = randomness or Randomness()
        self._places = places
        self._streams = [{} for _ in methods] if streams is None else streams
        self._predict = None if predict is None else self._counted(predict)
        self.predictions = 0
        self.unguided: list[str] = []
        self.reused = 0
        self.decoded = False
        self.updates = Updates()
        self._begin_anew()

    def reset(self) -> None:
        """Note a new schedule: its first step begins a new run.

        Some pipelines set a schedule after their last step too, and some after they have drawn the
        starting noise, which then belongs to this schedule.
        """
        self._stale = not self._has_noise

    def _begin_anew(self) -> None:
        if self.decoded and (self._guards or self._memory is not None):
            store = "shield" if self._guards else "memory"
            raise UnsupportedError(
                f"this pipeline makes its result in parts, one after another, and the {store} can "
                "be kept for one alone; ask for a result "
                f"of one part (fewer frames), or guide it without a {store}"
            )
        self._stale = self.decoded = self._has_noise = False
        self._run: Run | None = None
        self._conditions: Conditions | None = None
        self._ending = Ending(self._guards, self._move, finished=self._tells)
        self.space = ""
        self.steps = self.restarts = 0
        self.updates.clear()

    @property
    def groups(self) -> Tensor:
        """Prompt groups (B,) of the images."""
        return self._begun()[1].groups

    @property
    def streams(self) -> list[dict[str, Any]]:
        """For each method what it stored, this run included."""
        return self._begun()[0].streams

    def start(self, noise: Tensor) -> Tensor | None:
        """Return the starting noise in place of `noise` (B, …); None to leave it."""
        if self._stale or self.steps:
            self._begin_anew()
        run = self._run or self._begin(noise)
        self._has_noise = True
        return run.start(noise)

    def features(
        self, call: UpcomingCall, sample: Tensor, hidden: Tensor, layer: Layer
    ) -> Tensor | None:
        """Return the output of a layer in place of `hidden` (B, …); None to leave it."""
        run = self._ready(sample)
        return run.features(call, sample[: len(run.groups)], hidden, layer)

    def adapters_enabled(self, call: UpcomingCall, sample: Tensor) -> bool:
        """Tell whether the denoiser's adapters are on while it is given `sample` (R, …)."""
        run = self._ready(sample)
        return run.adapters_enabled(call, sample[: len(run.groups)])

    def correct(self, call: Call) -> Tensor | None:
        """Sum the methods' corrections for all rows of the scheduler; None for none."""
        if self._stale:
            self._begin_anew()
        if not self.steps:
            self._see_latents(call)
        run, conditions = self._begun()
        self.steps += 1
        images = conditions.images
        with nullcontext() if self._images is None else self._images.open():
            delta = run.correct(replace(call, x0=call.x0[:images], x_t=call.x_t[:images]))
        return None if delta is None else _repeated(delta.to(call.x0), len(call.x0))

    def passes(self, steps: int) -> int:
        """Return how often the steps after the first are taken, of a schedule of so many."""
        return max((method.passes_for(steps) for method in self._methods), default=1)

    def restarted(self, call: Call) -> Tensor:
        """Return the noisy latents (R, …) that a further pass begins with."""
        run, conditions = self._begun()
        self.restarts += 1
        self.updates.clear()  # they lead to latents that the run does not go on from
        images = conditions.images
        found = run.restarted(replace(call, x0=call.x0[:images], x_t=call.x_t[:images]))
        return _repeated(found, len(call.x0))

    def prepare(self, call: UpcomingCall, sample: Tensor, embeddings: Sequence[Tensor]) -> Prepared:
        """Prepare the evaluation of the model on its input `sample` (R, …).

        `embeddings` are those of the prompts, each (B, …).
        """
        run = self._ready(sample)
        images = len(run.groups)
        if any(len(part) != images for part in embeddings):
            raise UnsupportedError(
                f"this call makes {images} images and the model is given "
                f"{[len(part) for part in embeddings]} embeddings of their "
                "prompts; methods that act on prompts need one for each image: leave them out for "
                "this pipeline"
            )
        return run.prepare(call, sample[:images], embeddings)

    def finish(self, latents: Tensor, *, movable: bool = True) -> Tensor | None:
        """Measure the final latents (R, …) against the shield; return others where some were moved.

        Called again where they are changed after the last step.

        Args:
            latents: those that the images are made of, as far as is known.
            movable: whether they can still be moved out.
        """
        run, conditions = self._begun()
        own = latents[: conditions.images].detach().clone()
        if not torch.isfinite(own).all():
            raise NumericsError(
                f"the latents after the last step ({run.steps} of {run.steps}) have NaN or "
                "infinite values; "
                "try float32, or bfloat16 in place of float16"
            )
        changed = self._ending.measure(own, movable=movable)
        # a copy, for callbacks may change in place what the pipeline has
        return None if changed is None else _repeated(changed.clone(), len(latents))

    def see(self, finished: Sequence[Sequence[Decoded | None]]) -> None:
        """Takes what was measured of the finished images, for each guard."""
        self._ending.see(finished)

    def lose_latents(self, host: str) -> None:
        """Forget the final latents, because those that are decoded cannot be read.

        Raises:
            UnsupportedError: where they have to be measured or remembered.
        """
        if self._guards or self._memory is not None:
            store = "shield" if self._guards else "memory"
            raise UnsupportedError(
                f"the latents that this {host} decodes or returns are not those after its last "
                f"step and cannot be read, so the {store} "
                "cannot be kept; leave out what changes them (callback_on_step_end), or guide it "
                f"without a {store}"
            )
        self._ending.latents = None

    @property
    def latents(self) -> Tensor | None:
        """The final latents (B, …), moved out where they had to be; None before the last step, and
        where those that are decoded or returned cannot be read.
        """
        return self._ending.latents

    @property
    def finished(self) -> bool:
        """Whether the last step was reached."""
        return self._ending.reached

    @property
    def inside(self) -> list[int]:
        """The numbers of the images that end in a protected ball."""
        return self._ending.inside

    @property
    def failures(self) -> dict[int, ShieldError]:
        """The reasons why images could not be moved out, by the number of the image."""
        return self._ending.failures

    def images(self) -> list[ImageReport]:
        """Report each image, without its neighbours.

        Raises:
            AttachmentError: when the scheduler was never stepped.
            ShieldError: when there is a shield and the last step was not reached, so that nothing
                was checked.
        """
        run, conditions = self._begun()
        if not self.finished and self._guards:
            raise ShieldError(
                f"the pipeline ended after step {self.steps} of {run.steps}, so its latents were "
                "not checked against the shield; "
                "let it run to the end (no interrupt, no denoising_end), or guide it without a "
                "shield"
            )
        return image_reports(
            run.traces,
            conditions.groups,
            conditions.texts,
            self._ending.certificates(steps_active(run.traces, SPELL.name, conditions.images)),
            self._covered(run, conditions.images),
            self._randomness.seeds(conditions.images),
            self.updates.memorisations(conditions.images),
        )

    def used(self, methods: Sequence[Method]) -> list[dict[str, Any]]:
        """Name and options of the methods as they acted: those that the solver let draw no noise
        anew without it. `renewal` has the share of the noise that one asked for and got.
        """
        found = []
        for method, trace in zip(methods, self._begun()[0].traces, strict=True):
            renewal = trace.renewal
            dropped = renewal.asked > 0 and renewal.used == 0
            acted = method.without_renewal() if dropped else method
            entry = described(acted if self.restarts else acted.without_passes())
            found.append(entry | ({"renewal": asdict(renewal)} if renewal.asked > 0 else {}))
        return found

    @property
    def remembered(self) -> Tensor | None:
        """The latents (n, d) that the memory held when the run began; None for none."""
        run = self._begun()[0]
        return None if run.memory is None else run.memory.latents

    def commit(self, latents: Tensor, kept: Sequence[int], seeds: Sequence[int | None]) -> None:
        """Add images to the memory, where there is one.

        Args:
            latents: the final latents (B, …) of all images of the call.
            kept: the numbers of those to add, by which a mark of the memory names them.
            seeds: of all images, None for those that no seed makes again.
        """
        conditions = self._begun()[1]
        if self._memory is None or not kept:
            return
        embeddings, texts = conditions.embeddings, conditions.texts
        self._memory.add(
            self.space,
            latents[list(kept)],
            prompts=None if embeddings is None else embeddings[list(kept)],
            texts=None if texts is None else [texts[i] for i in kept],
            seeds=[seeds[i] for i in kept],
            places=kept,
        )

    def _begun(self) -> tuple[Run, Conditions]:
        if self._run is None or self._conditions is None:
            raise AttachmentError(
                "the pipeline never stepped its own scheduler, so nothing was guided; pipelines "
                "that step copies of it cannot be guided"
            )
        return self._run, self._conditions

    def _ready(self, sample: Tensor) -> Run:
        """The run for the images of the model's input `sample` (R, …)."""
        if self._stale:
            self._begin_anew()
        if self._run is None:
            return self._begin(sample)
        if self._has_noise:  # some pipelines draw it before they encode the prompts
            self._condition(self._run, self._prompts.conditions(sample), sample.device)
            self._has_noise = False
        return self._run

    def _begin(self, sample: Tensor) -> Run:
        """The run for the images of `sample` (R, …), before anything is known of their latents."""
        conditions = self._prompts.conditions(sample)
        run = Run(
            self._methods,
            groups=conditions.groups,
            generators=self._randomness.generators(sample[: conditions.images]),
            streams=[dict(stream) for stream in self._streams],
            predict=self._predict,
        )
        self._condition(run, conditions, sample.device)
        self._run = run
        return run

    def _counted(
        self, predict: Callable[[Tensor, bool], Tensor]
    ) -> Callable[[Tensor, bool], Tensor]:
        def counted(noise: Tensor, through_model: bool) -> Tensor:
            self.predictions += 1
            return predict(noise, through_model)

        return counted

    def _condition(self, run: Run, conditions: Conditions, device: torch.device) -> None:
        """Tell the run what is known of its prompts."""
        self._conditions = conditions
        self._require_prompts(conditions)
        run.groups = conditions.groups.to(device)
        run.prompts = None if conditions.embeddings is None else conditions.embeddings.to(device)
        run.padding = None if conditions.padding is None else conditions.padding.to(device)

    def _require_prompts(self, conditions: Conditions) -> None:
        """Refuse methods that compare prompts with the memory's where there are no embeddings."""
        if self._memory is None or conditions.embeddings is not None or conditions.texts is None:
            return
        for method in self._methods:
            if getattr(method, "reads_prompts", False) and getattr(method, "memory", False):
                raise OptionError(
                    f"{type(method).__name__} compares prompts with those of the memory, and this "
                    "call has texts without embeddings; pass "
                    "prompt_encoder= (a function from a list of prompts to embeddings), or leave "
                    "the memory out"
                )

    def _see_latents(self, call: Call) -> None:
        """Give the run its memory, shield and regions, once the shape of its latents is known."""
        run, device = self._ready(call.x_t), call.x0.device
        run.masks = None if self._places is None else self._places.masks(call.x0[: len(run.groups)])
        space = latent_space(self._models.latents, tuple(call.x_t.shape[1:]))
        self.space = memory_space(
            space, self._models.prompts, None if run.prompts is None else run.prompts.shape[1]
        )
        earlier = run.memory = self._references(device)
        guard = steering(self._guards)
        run.shield = None if guard is None else guard.regions(space, device)
        run.images = self._images
        if self._images is not None and self._memory is not None:
            self._images.remember(self._memory, self.space, earlier, call.x_t.shape[1:], device)

    def _covered(self, run: Run, images: int) -> list[list[float] | None]:
        """Measure the share of each image that each method's region covers; None for none."""
        regions = [getattr(method, "region", None) for method in self._methods]
        masks = [
            None if region is None or run.masks is None else run.masks(region) for region in regions
        ]
        return [
            None if mask is None else mask.flatten(1).float().mean(dim=1).expand(images).tolist()
            for mask in masks
        ]

    def _references(self, device: torch.device) -> View | None:
        if self._memory is None:
            return None
        require_same_models(self._memory, self._models)
        return self._memory.view(self.space, device)


def _repeated(rows: Tensor, count: int) -> Tensor:
    """Repeat the images (B, …) to the `count` rows of a scheduler with a doubled batch."""
    return rows if len(rows) == count else rows.repeat(count // len(rows), *[1] * (rows.ndim - 1))
