"""`guide`: attach guidance, a memory and a shield to a diffusers pipeline."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from unalike.attach.diffusers import carried, levels
from unalike.attach.diffusers.again import WIDER, steered, with_other_seeds
from unalike.attach.diffusers.arguments import completed, documented, model_defaults, unshared
from unalike.attach.diffusers.calibration import calibrated, settings_key
from unalike.attach.diffusers.decoding import Decoder
from unalike.attach.diffusers.denoiser_hook import Denoiser
from unalike.attach.diffusers.evaluation import require_seeds
from unalike.attach.diffusers.final_latents import FinalLatents
from unalike.attach.diffusers.first_prediction import FirstPrediction
from unalike.attach.diffusers.guards import (
    Embeds,
    Shields,
    guards_of,
    listed,
    require_fitting_shield,
    require_pipeline,
    require_stores,
)
from unalike.attach.diffusers.host import Host
from unalike.attach.diffusers.images import PipelineImages, Remembered
from unalike.attach.diffusers.known_models import KnownModels
from unalike.attach.diffusers.layers import Layers
from unalike.attach.diffusers.padding import Padding
from unalike.attach.diffusers.passes import Passes, Restart
from unalike.attach.diffusers.picking import (
    Picked,
    pick,
    repeatable,
    repeats_steps,
    suggested,
)
from unalike.attach.diffusers.prompts import Prompts
from unalike.attach.diffusers.recording import Evaluation, Replay
from unalike.attach.diffusers.regions.places import Places
from unalike.attach.diffusers.scoped import current, one_at_a_time, own_pipeline
from unalike.attach.diffusers.starting_noise import StartingNoise
from unalike.attach.diffusers.step_hook import Binding, Repeats
from unalike.attach.run import encoders
from unalike.attach.run.candidates import Candidates, as_candidates
from unalike.attach.run.encoders import PromptEncoder
from unalike.attach.run.guard import Guard
from unalike.attach.run.models import require_same_models
from unalike.attach.run.outputs import blanked
from unalike.attach.run.policy import ATTEMPTS, MOVE, REDRAW, Policy, Redraw, refusal
from unalike.attach.run.randomness import Randomness
from unalike.attach.run.redraws import Redraws
from unalike.attach.run.report import Report
from unalike.attach.run.session import Session
from unalike.errors import AttachmentError, OptionError, UnsupportedError
from unalike.guidance.method import Method
from unalike.memory import Memory

_OWN = (
    "pipe",
    "methods",
    "memory",
    "shield",
    "embed",
    "policy",
    "prompt_encoder",
    "groups",
    "candidates",
    "report",
    "latents",
    "carried",
    "_calibrations",
    "_known_models",
    "_remembered",
    "_streams",
)


def guide(
    pipe: Any,
    *methods: Method,
    memory: Memory | None = None,
    shield: Shields = None,
    embed: Embeds = None,
    on_violation: str = REDRAW,
    attempts: int = ATTEMPTS,
    prompt_encoder: PromptEncoder | None = None,
    groups: Sequence[int] | Tensor | None = None,
    candidates: int | Candidates | None = None,
) -> GuidedPipeline:
    """Attach guidance to a pipeline; call the result like the pipeline itself.

    Args:
        pipe: any diffusers pipeline whose scheduler has an x0 map (see
            `unalike.attach.diffusers.levels`).
        *methods: applied in order at each step; none is fine, as with a shield alone.
        memory: earlier generations, which methods may stay away from; the call's own images are
            added when it has succeeded.
        shield: protected latents, or vectors of an embedding; after the last step each image is
            checked against them, and certified. A list of several, in spaces of their own: then an
            image is inside where it is inside one of them, and methods see the first of latents, or
            the first.
        embed: what made the vectors of a shield in an embedding: an extractor of
            `unalike.extractors`, or a function of images (n, 3, h, w) in [0, 1] that gradients pass
            through; a list where several shields need one.
        on_violation: what is done with an image that is inside then. "redraw", the default, judges
            images as they are finished (8 bits, encoded again): they are drawn again from earlier
            noise levels while SPELL steers them away, then from other seeds. The others judge the
            final latent: "move" it out; "regenerate", draw from other seeds alone; "refuse". What
            is still inside in the end is refused: the call raises `RefusedError`, which has the
            others.
        attempts: how often an image is drawn from another seed at most, with "redraw" and
            "regenerate".
        prompt_encoder: `list of N prompts -> (N, p)`, instead of the pipeline's own embeddings: one
            shared encoder makes the prompts of several models comparable. "clip" is
            openai/clip-vit-base-patch32, which SPARKE was published with; "clip:FOLDER" another.
        groups: a number for each image, equal for images of the same prompt, where the pipeline's
            prompts do not tell.
        candidates: choose each image out of so many candidates by the first evaluations alone, as
            `choose` does; `Candidates` says how. The images of a prompt are chosen out of all
            candidates of that prompt, unlike each other and unlike the memory. None for as many as
            the methods say, where they can be chosen: `Auto` says 4 in calls of few steps.

    Raises:
        UnsupportedError: for a pipeline without a scheduler, one whose scheduler has no x0 map, or
            one that takes no generator where images may have to be drawn again.
        AttachmentError: for a pipeline that is guided already.
        OptionError: for an argument of the wrong kind, or a policy without a shield.
        StoreError: for a shield or a memory of another model.

    Cost: a method that is calibrated (`SPELL(radius="auto")`) samples at least 8 unguided images
    once for each setting of the call. With a shield the finished images are encoded once more, to
    say how far they are from the protected ones by themselves. Images that are inside are drawn
    again alone where no method looks at the other images of the batch (`batch=False`) and the
    arguments tell them apart, else with the whole batch: with "redraw" up to five times, and up to
    three first predictions for each of the other seeds. Candidates cost one or two evaluations
    each; those of the chosen are taken over into the drawing where methods leave the first
    evaluation alone, so that two candidates an image make a call of 4 evaluations 1.25 times as
    dear, and four 1.75 times.

    Example:
        >>> from unalike import Auto, load
        >>> guided = guide(load("emoji"), Auto())
        >>> images = guided("heart", num_images_per_prompt=2, num_inference_steps=2).images
        >>> [image.size for image in images], len(guided.report.images)
        ([(64, 64), (64, 64)], 2)
    """
    if isinstance(pipe, GuidedPipeline):
        raise AttachmentError(
            "this pipeline is guided already; give all methods to one call, as in guide(pipe, "
            "SPARKE(), SPELL())"
        )
    require_pipeline(pipe, "guide(load('emoji'), SPARKE())")
    for method in methods:
        if not isinstance(method, Method):
            raise OptionError(
                f"{method!r} is not a guidance method; pass an object, as in guide(pipe, "
                "SPARKE(strength=0.05))"
            )
    require_stores("guide(pipe", memory, shield)
    how = as_candidates(candidates)
    if how is not None and how.count > 1:
        require_seeds(pipe)
    policy, encoder = Policy(on_violation, attempts), encoders.prompt_encoder(prompt_encoder)
    defaults = tuple(model_defaults(pipe).items())
    return _guided_class(type(pipe), tuple(Host(pipe).block_inputs), defaults)(
        pipe,
        methods,
        memory=memory,
        shield=shield,
        embed=embed,
        policy=policy,
        prompt_encoder=encoder,
        groups=groups,
        candidates=how,
    )


class GuidedPipeline:
    """A pipeline with guidance, made by `guide`.

    Calling it takes the arguments of the pipeline and returns what the pipeline returns. A call
    runs on a stand-in of the pipeline, so that the pipeline and other calls of its models stay as
    they are; a call that fails leaves the memory as it was. Every other attribute is the pipeline's
    own. `isinstance` sees the pipeline's class, so that diffusers can build other pipelines from
    it, as in `AutoPipelineForImage2Image.from_pipe(guided)`; call `guide` on those to guide them.

    Attributes:
        pipe: the pipeline.
        methods, memory, shield, embed, prompt_encoder, groups: as given to `guide`.
        candidates: how images are chosen out of candidates; None for what the methods say.
        policy: what is done with images inside the protected set.
        report: what the last call did; None before the first.
        latents: the final latents (B, …) of the last call, on the CPU, 0 for refused images; None
            before the first, and where the last step was not reached.
    """

    def __init__(
        self,
        pipe: Any,
        methods: Sequence[Method],
        *,
        memory: Memory | None,
        shield: Shields,
        embed: Embeds,
        policy: Policy,
        prompt_encoder: encoders.Encoder | None,
        groups: Sequence[int] | Tensor | None,
        candidates: Candidates | None,
    ) -> None:
        self.pipe = pipe
        self.methods = tuple(methods)
        self.memory = memory
        self.shield = shield
        self.embed = embed
        self.policy = policy
        self.prompt_encoder = prompt_encoder
        self.groups = groups
        self.candidates = candidates
        self.report: Report | None = None
        self.latents: Tensor | None = None
        self._calibrations: dict[str, Method] = {}
        self._known_models = KnownModels()
        self._remembered = Remembered()
        self._streams: list[dict[str, Any]] = [{} for _ in self.methods]
        levels.require(pipe.scheduler)
        policy.require(pipe, shields=len(listed(shield)))
        self._require_fitting_stores()

    @one_at_a_time
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the pipeline with guidance; arguments and result are the pipeline's own.

        For a model that was loaded by its name, steps and guidance scale default to the model's
        (`unalike models`), everything else to the pipeline's.

        Raises:
            OptionError: for a name that is no argument of the pipeline.
            AttachmentError: while another call of this object runs.
            RefusedError: when images are inside the protected set and stay there; it has the
                others, which are in the memory, too.
            UnalikeError: for any other fault of the guidance; the pipeline's own errors come
                through as they are.
        """
        if self.memory is not None:
            self.memory.refresh()
        self._require_fitting_stores()
        kwargs = completed(self.pipe, args, kwargs)
        named = Host(self.pipe).named(args, kwargs)
        methods = self._ready_methods(named)
        picked = self._pick(methods, named)
        if picked is not None:
            named = {**named, "generator": picked.generator}
            args, kwargs = (), named
        redraws, redraw = self.policy.redraws_of(self.pipe, named), Redraw(named)
        known = picked.evaluations if picked is not None and repeatable(methods) else ()
        order = Passes if repeats_steps(self.pipe, named, remembering=bool(self.memory)) else None
        first, output = self._run(methods, named, args, kwargs, keep=True, known=known, order=order)
        guards = self._guards(named)
        finished = guards if self.policy.finished else ()
        draws = Redraws(first, output, finished)
        self._restart(draws, methods, redraw)
        for attempt in range(1, redraws + 1):
            if draws.inside:
                rows, own = self._part(methods, redraw, draws)
                again, calls = with_other_seeds(
                    self.pipe,
                    own,
                    [rows.index(i) for i in draws.inside],
                    len(rows),
                    attempt,
                    guards=finished,
                    encoder=self.prompt_encoder,
                    groups=self._groups_of(rows),
                )
                drawn = self._run(methods, again, (), again, keep=True, order=order, rows=rows)
                draws.add(*drawn, rows=rows, calls=calls)
        output, latents = draws.output(), draws.latents()
        report = draws.report(methods, guards, as_latents=named.get("output_type") == "latent")
        draws.commit()
        if first.finished:
            self._streams = first.streams
        if picked is not None:
            report = report.chosen_from(picked.count, picked.calls)
        self.report = report
        self.latents = (
            None if latents is None else blanked(latents, draws.inside, draws.images).cpu()
        )
        if draws.inside:
            raise refusal(output, report, draws.inside, draws.failures, self.policy)
        return output

    def __getattr__(self, name: str) -> Any:
        if name in _OWN or name.startswith("__"):
            raise AttributeError(name)
        return getattr(current(self.pipe), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self.pipe, name, value)
            if (own := current(self.pipe)) is not self.pipe:
                setattr(own, name, value)

    @property
    def __class__(self) -> Any:  # type: ignore[override]  # from_pipe asks for it
        return type(self.pipe)

    def __dir__(self) -> list[str]:
        own = [name for name in _OWN if not name.startswith("_")]
        return sorted({*own, *dir(type(self)), *dir(self.pipe)})

    def __repr__(self) -> str:
        methods = ", ".join(map(repr, self.methods)) or "no methods"
        return f"GuidedPipeline({type(self.pipe).__name__}, {methods})"

    def to(self, *args: Any, **kwargs: Any) -> GuidedPipeline:
        """Move the pipeline; return this guided one."""
        self.pipe = self.pipe.to(*args, **kwargs)
        return self

    def _run(
        self,
        methods: Sequence[Method],
        named: dict[str, Any],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        *,
        keep: bool,
        known: Sequence[Evaluation] = (),
        order: Callable[[Session], Repeats] | None = None,
        rows: Sequence[int] | None = None,
        steering: float = 0.0,
    ) -> tuple[Session, Any]:
        """Run the pipeline once; without `keep` for its final latents alone. `known` are its first
        evaluations, where they are known; `order` makes the order of the steps, where it is another
        one than the schedule's; `rows` are the images that it makes, where they are not all;
        `steering` is the radius of the balls that methods see, where that is the larger one.
        """
        own, groups = own_pipeline(self.pipe), self._groups_of(rows)
        prompts = Prompts(own, named, self.prompt_encoder if keep else None, groups)
        embeds = keep and any(getattr(method, "embed", None) is not None for method in methods)
        places = Places(own, named, methods, prompts)
        session = Session(
            methods,
            models=self._known_models.names,
            prompts=prompts,
            memory=self.memory if keep else None,
            guards=self._guards(named, steering) if keep else (),
            move=self.policy.on_violation == MOVE,
            finished=self.policy.finished,
            images=PipelineImages(self._decoder(named), self._remembered) if embeds else None,
            randomness=Randomness(named.get("generator")),
            places=places,
            streams=self._streams if keep and len(self._streams) == len(methods) else None,
            predict=self._predict(methods, named),
        )
        with (
            places,
            Binding(
                own, session, None if order is None else order(session), session.updates
            ) as binding,
            prompts,
            Padding(own, methods, prompts),
            StartingNoise(own, methods, session),
            Denoiser(own, methods, binding, session, prompts),
            Layers(own, methods, binding, session, prompts),
            FinalLatents(own, session) as final,
            Replay(own, known) as replay,
        ):
            output = own(
                *map(unshared, args),
                **{name: unshared(value) for name, value in final.quiet(kwargs).items()},
            )
            session.unguided, session.reused = binding.unguided, replay.reused
            return session, final.returned(output)

    def _pick(self, methods: Sequence[Method], named: dict[str, Any]) -> Picked | None:
        """The candidates that the call is made of; None where nothing is to be chosen."""
        how = self.candidates
        if how is None:
            how = suggested(self.pipe, methods, named, remembering=bool(self.memory))
        if how.count == 1:
            return None
        return pick(
            self.pipe,
            named,
            how,
            memory=self.memory,
            models=self._known_models.names,
            guards=self._guards(named),
            encoder=self.prompt_encoder,
            groups=self.groups,
        )

    def _restart(self, draws: Redraws, methods: Sequence[Method], redraw: Redraw) -> None:
        """Draw images that are inside again from their finished latents, noised to an earlier and
        earlier level, while SPELL steers them away.
        """
        if not draws.inside or not self.policy.restarts:
            return
        finished = draws.latents()
        if finished is None or not repeats_steps(self.pipe, redraw.same(), remembering=True):
            return
        methods, reach = steered(methods), draws.reach(self._guards(redraw.same()))
        for share in self.policy.restarts:
            if draws.inside:
                rows, own = self._part(methods, redraw, draws)
                order, same = partial(Restart, latents=finished[rows], share=share), own.same()
                again = self._run(
                    methods, same, (), same, keep=True, order=order, rows=rows,
                    steering=WIDER * reach,
                )  # fmt: skip
                draws.add(*again, rows=rows, restarted=True)

    def _part(
        self, methods: Sequence[Method], redraw: Redraw, draws: Redraws
    ) -> tuple[list[int], Redraw]:
        """The images that are drawn to draw those inside again: these alone where no method looks
        at the others of the batch and the arguments tell them apart, else all; and their call.
        """
        alone = all(getattr(method, "batch", True) is False for method in methods)
        fewer = redraw.fewer(draws.inside, draws.images) if alone else None
        return (list(range(draws.images)), redraw) if fewer is None else (draws.inside, fewer)

    def _groups_of(self, rows: Sequence[int] | None) -> Any:
        """The groups that were given of some of the images; of all for None."""
        if self.groups is None or rows is None:
            return self.groups
        return [self.groups[i] for i in rows]

    def _predict(self, methods: Sequence[Method], named: dict[str, Any]) -> FirstPrediction | None:
        """Predicts what the call makes of a starting noise, for the methods that ask for it."""
        asking = [m for m in methods if getattr(m, "reads_predictions", False)]
        own = named.get("latents") is None
        return FirstPrediction(self.pipe, named, asking) if asking and own else None

    def _guards(self, named: dict[str, Any], steering: float = 0.0) -> tuple[Guard, ...]:
        """The guards that measure the latents of this call, one for each protected set; `steering`
        as of `_run`.
        """
        if self.shield is None:
            return ()
        if named.get("padding_mask_crop") is not None:
            raise UnsupportedError(
                "padding_mask_crop pastes the finished image into the original, so it cannot be "
                "certified; leave it out, or guide the "
                "pipeline without a shield"
            )
        if named.get("denoising_end") is not None:
            raise UnsupportedError(
                f"denoising_end is {named['denoising_end']}, so the call ends before its last step "
                "and has no images that could be certified; leave it out, or guide the pipeline "
                "without a shield and give the shield to the second pipeline"
            )
        return guards_of(self.pipe, self.shield, self.embed, named, steering)

    def _decoder(self, named: dict[str, Any]) -> Decoder:
        return Decoder(self.pipe, (named.get("height"), named.get("width")))

    def _ready_methods(self, named: dict[str, Any]) -> list[Method]:
        """The methods, calibrated for these settings where they need it; each once."""
        keys = {
            i: carried.digest((settings_key(m, self.pipe, named), self._known_models.names))
            for i, m in enumerate(self.methods)
            if m.needs_calibration
        }
        missing = {key: self.methods[i] for i, key in keys.items() if key not in self._calibrations}
        if missing:
            ready = calibrated(
                list(missing.values()), named, self._unguided, Host(self.pipe).parameters
            )
            self._calibrations.update(zip(missing, ready, strict=True))
        return [self._calibrations[keys[i]] if i in keys else m for i, m in enumerate(self.methods)]

    @property
    def carried(self) -> bytes:
        """What calls leave for later ones besides the memory: measured radii, and what methods such
        as CoupledNoise store for each prompt. Set on another `guide` of the same pipeline and
        methods, later calls draw what they would have drawn here. For methods of
        `unalike.guidance`; others can store what has no bytes.
        """
        return carried.to_bytes(self._streams, self._calibrations)

    @carried.setter
    def carried(self, data: bytes) -> None:
        streams, calibrations = carried.from_bytes(data)
        if len(streams) == len(self.methods):
            self._streams, self._calibrations = streams, calibrations

    def _unguided(self, arguments: dict[str, Any]) -> tuple[Tensor, Tensor]:
        session, _ = self._run((), arguments, (), arguments, keep=False)
        if session.latents is None:
            raise UnsupportedError(
                "a method needs to be calibrated on finished samples, and this call does not run "
                "to the last step; set its radius "
                "yourself, as in SPELL(radius=20.0)"
            )
        return session.latents, session.groups

    def _require_fitting_stores(self) -> None:
        shield, models = self.shield, self._known_models.look(self.pipe, self.prompt_encoder)
        held = self.memory is not None and len(self.memory) > 0
        if self.memory is not None:
            require_same_models(self.memory, models)
        self._known_models.require_unchanged(latents=held or shield is not None, prompts=held)
        require_fitting_shield(self.pipe, shield, self.embed, models)


@functools.cache
def _guided_class(
    kind: type, inputs: tuple[str, ...], defaults: tuple[tuple[str, Any], ...]
) -> type[GuidedPipeline]:
    """Make the class of guided pipelines whose call shows the arguments of a pipeline class.

    `defaults` are the model's own, in place of those of the class.
    """
    call = getattr(kind, "unguided", kind.__call__)
    own = documented(
        GuidedPipeline.__call__, call, kind.__name__, dict.fromkeys(inputs), dict(defaults)
    )
    members = {"__call__": own, "__doc__": GuidedPipeline.__doc__, "__module__": __name__}
    return type("GuidedPipeline", (GuidedPipeline,), members)
