"""Change a denoiser's prompts, and leave out classifier-free guidance at some steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.embeddings import LabelEmbedding
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from unalike.attach.diffusers.graphs import is_compiled, unwrapped
from unalike.attach.diffusers.host import Host
from unalike.attach.diffusers.model_call import model_call
from unalike.attach.diffusers.prompts import Prompts
from unalike.attach.diffusers.rows import positive_rows
from unalike.attach.diffusers.scoped import layer_hook, original, own_model
from unalike.attach.diffusers.step_hook import Binding
from unalike.attach.run.session import Session
from unalike.errors import UnsupportedError
from unalike.guidance.method import Method
from unalike.guidance.run import Prepared

_HINT = "use methods that correct x0 with this pipeline, such as SPARKE"

_NONE = (-1, 0)
"""Before the first evaluation, by its step and how often that was taken before."""


class Denoiser:
    """Context manager: while it is open, the denoiser (`unet` or `transformer`) is given the
    prompts as the methods leave them.

    Rows of the positive prompts are told apart from the others by equality with what
    `encode_prompt` returned, or with the class labels of the call. What the model is given may be
    longer, as where a duration follows the prompt, and may have a row for each frame of a video.
    Class labels become embeddings inside the model, in each block; those are replaced where they
    are made. Where classifier-free guidance is to be left out, the output for each empty prompt is
    replaced by that for the prompt, which makes any weight of guidance the same as 1. Of two
    transformers that take turns both are hooked.

    Args:
        pipe: the pipeline of this call alone, from `own_pipeline`.
        methods: nothing is hooked where none of them acts on prompts.
        binding: knows the step.
        session: asks the methods.
        prompts: has heard the prompts.

    Raises:
        UnsupportedError: on entering for a pipeline without a denoiser; from the denoiser where its
            rows cannot be told apart.
    """

    def __init__(
        self,
        pipe: Any,
        methods: Sequence[Method],
        binding: Binding,
        session: Session,
        prompts: Prompts,
    ) -> None:
        self._pipe = pipe
        self._names = [type(m).__name__ for m in methods if m.acts_on_prompts]
        self._may_change_prompts = any(type(m).condition is not Method.condition for m in methods)
        self._may_drop_cfg = any(type(m).cfg_enabled is not Method.cfg_enabled for m in methods)
        self._binding = binding
        self._session = session
        self._prompts = prompts
        self._hooks: list[RemovableHandle] = []
        self._evaluation, self._prepared = _NONE, Prepared((), True)
        self._unheard = _NONE  # the last step in which the model was asked without the prompt first
        self._rows = torch.zeros(0, dtype=torch.bool)  # of the model's input, for positive prompts
        self._images = 0
        self._length: int | None = (
            None  # how many tokens of those that it is given are the prompt's
        )
        self._with_prompt: Tensor | None = None
        self._classes: dict[LabelEmbedding, Tensor] = {}

    def __enter__(self) -> Denoiser:
        modules = self._modules() if self._names else []
        embedders = (
            [part for module in modules for part in _embedders(module)]
            if self._may_change_prompts
            else []
        )
        if embedders and any(
            is_compiled(part) and _embedders(part)
            for module in modules
            for part in original(module).modules()
        ):
            raise UnsupportedError(
                f"{self._who}: {type(self._pipe).__name__} embeds its classes inside of a "
                "compiled model, where they cannot be replaced; "
                f"leave torch.compile out, or {_HINT}"
            )
        for module in modules:
            module.register_forward_pre_hook(self._before, with_kwargs=True)
            module.register_forward_hook(self._after)
        embedded = layer_hook(self._pipe, self._embedded)
        self._hooks = [part.register_forward_hook(embedded) for part in embedders]
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        if kind is None:
            self._require_heard(None)

    def _modules(self) -> list[torch.nn.Module]:
        found = Host(self._pipe).denoisers
        if not found or len(found.keys() & {"unet", "transformer"}) > 1:
            raise UnsupportedError(
                f"{self._who} needs a pipeline with one denoiser, unet or transformer, and "
                f"{type(self._pipe).__name__} has "
                f"{len(found)}; {_HINT}"
            )
        return [own_model(self._pipe, name) for name in found]

    @property
    def _who(self) -> str:
        return " and ".join(self._names)

    def _before(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        module = unwrapped(module)
        bound, sample, time = model_call(module, args, kwargs, f"{self._who}: ", _HINT)
        arguments = bound.arguments
        # class labels may be something else than prompts, such as a level of noise
        labels = arguments.get("class_labels") if self._prompts.labelled else None
        tokens = arguments.get("encoder_hidden_states") if labels is None else labels
        call = self._binding.upcoming(time)
        now = (call.step, call.again)
        self._require_heard(now)
        self._rows = self._positive_rows(module, tokens, sample, asked=now == self._evaluation)
        if not self._rows.any():  # the empty prompts have a call of their own
            if now != self._evaluation and self._may_drop_cfg:
                raise UnsupportedError(
                    f"{self._who}: {type(module).__name__} is asked without the prompt before it "
                    "is asked with it, so "
                    f"classifier-free guidance cannot be left out; {_HINT}"
                )
            if now != self._evaluation:
                self._unheard = now
            return args, kwargs
        places = _places(arguments) if labels is None else []
        if now != self._evaluation:
            self._classes = {}
            classes = (
                {}
                if labels is None
                else {m: m(labels[self._rows][: self._images]) for m in _embedders(module)}
            )
            embeddings = [*(self._taken(place[name]) for place, name in places), *classes.values()]
            self._prepared, self._evaluation = (
                self._session.prepare(call, sample[: self._images], embeddings),
                now,
            )
            new = self._prepared.embeddings[len(places) :]
            self._classes = {
                m: rows for m, rows in zip(classes, new, strict=True) if rows is not None
            }
        for (place, name), rows in zip(places, self._prepared.embeddings, strict=False):
            if rows is not None:
                place[name] = self._replaced(place[name], rows)
        return bound.args[1 : 1 + len(args)], {
            name: arguments.get(name, value) for name, value in kwargs.items()
        }

    def _taken(self, values: Tensor) -> Tensor:
        """Of `values` (R · frames, …) those of the positive prompts (B, …): what the frames of a
        video share is taken once.
        """
        each = values.unflatten(0, (len(self._rows), -1))[self._rows.to(values.device), 0]
        each = each[: self._images]  # other blocks have the same
        return each[:, : self._length] if each.ndim == 3 else each

    def _replaced(self, values: Tensor, rows: Tensor) -> Tensor:
        """`values` (R · frames, …) with those of the positive prompts replaced by `rows` (B, …),
        the same for all frames.
        """
        frames = len(values) // len(self._rows)
        new = rows.to(values).repeat_interleave(frames, dim=0)
        blocks = int(self._rows.sum()) // len(rows)
        new = new.repeat(blocks, *[1] * (new.ndim - 1))
        chosen = self._rows.repeat_interleave(frames).nonzero().flatten().to(values.device)
        if new.ndim == 3 and new.shape[1] < values.shape[1]:
            new = torch.cat([new, values[chosen, new.shape[1] :]], dim=1)
        return values.index_put((chosen,), new)

    def _positive_rows(
        self, module: torch.nn.Module, tokens: Any, sample: Tensor, *, asked: bool
    ) -> Tensor:
        """Find the rows of the input `sample` (R, …) that belong to positive prompts: (R,) bool.

        `asked` says whether the caller had those of this step.
        """
        positive = self._prompts.positive
        found = None
        if isinstance(tokens, Tensor) and isinstance(positive, Tensor):
            self._length = positive.shape[1] if positive.ndim == 3 else None
            out = getattr(getattr(module, "config", None), "out_channels", None)
            images = self._prompts.images(sample, out)
            equal = self._prompts.negative_is_equal
            found = positive_rows(
                tokens,
                positive,
                rows=len(sample),
                images=images,
                negative_is_equal=equal,
                perturbed=Host(self._pipe).perturbs_attention,
                others=self._prompts.others,
            )
            self._images = images
            if equal and asked and len(sample) == images:  # negative prompts, in a call of theirs
                return torch.zeros(len(sample), dtype=torch.bool, device=sample.device)
            if found is None and asked:  # the empty prompts, which have another length
                return torch.zeros(len(sample), dtype=torch.bool, device=sample.device)
        if found is None:
            raise self._no_prompts(type(module).__name__)
        if (found.any(dim=1) != found.all(dim=1)).any():
            raise UnsupportedError(
                f"{self._who}: {type(self._pipe).__name__} gives {type(module).__name__} several "
                "prompts for the frames of one video, and "
                f"prompts can only be replaced where all frames have the same; {_HINT}"
            )
        return found.all(dim=1).to(sample.device)

    def _require_heard(self, evaluation: tuple[int, int] | None) -> None:
        """Refuse a model that was not asked with the prompts in the step before."""
        if self._unheard not in (_NONE, evaluation, self._evaluation):
            raise self._no_prompts("the denoiser")

    def _no_prompts(self, module: str) -> UnsupportedError:
        return UnsupportedError(
            f"{self._who}: {module} is not given the prompt embeddings that "
            f"{type(self._pipe).__name__} made, so they cannot be replaced; {_HINT}"
        )

    def _embedded(self, module: LabelEmbedding, _: Any, output: Tensor) -> Tensor:
        new = self._classes.get(module)
        return output if new is None else self._replaced(output, new)

    def _after(self, module: torch.nn.Module, _: Any, output: Any) -> Any:
        made = output[0] if isinstance(output, tuple) else output.sample
        if self._rows.any():  # of several blocks with the prompts the first is the plain one
            self._with_prompt = made[self._rows][: self._images]
        if self._prepared.cfg or self._rows.all() or self._with_prompt is None:
            return output
        others = (~self._rows).nonzero().flatten()
        copies = len(others) // len(self._with_prompt)
        made = made.index_put((others,), self._with_prompt.repeat(copies, *[1] * (made.ndim - 1)))
        if isinstance(output, tuple):
            return (made, *output[1:])
        output.sample = made
        return output


def _embedders(module: torch.nn.Module) -> list[LabelEmbedding]:
    return [part for part in module.modules() if isinstance(part, LabelEmbedding)]


def _places(arguments: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """The prompt embeddings among the arguments: a dictionary and a key for each."""
    places = [
        (arguments, name)
        for name in ("encoder_hidden_states", "pooled_projections")
        if isinstance(arguments.get(name), Tensor)
    ]
    added = arguments.get("added_cond_kwargs")
    if isinstance(added, dict) and isinstance(added.get("text_embeds"), Tensor):
        arguments["added_cond_kwargs"] = dict(
            added
        )  # the pipeline's own dictionary serves all steps
        places.append((arguments["added_cond_kwargs"], "text_embeds"))
    return places
