"""Hooks on a pipeline's denoiser, for methods that act on prompts: other embeddings, and steps without classifier-free guidance."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.embeddings import LabelEmbedding
from torch import Tensor

from unalike.attach.binding import Binding
from unalike.attach.prompts import Prompts, positive_rows
from unalike.attach.session import Session
from unalike.errors import UnsupportedError
from unalike.guidance.base import Method
from unalike.guidance.run import Prepared

_HINT = "use methods that correct x0 with this pipeline, such as SPARKE"


class Denoiser:
    """Context manager: while it is open, the denoiser (`unet` or `transformer`) is given the prompts as the methods leave them.

    Rows of the positive prompts are told apart from the others by equality with what `encode_prompt` returned, or with the class labels of
    the call. Class labels become embeddings inside the model, in each block; those are replaced where they are made. Where
    classifier-free guidance is to be left out, the output for each empty prompt is replaced by that for the prompt, which makes any
    weight of guidance the same as 1.

    Args:
        pipe: a diffusers pipeline.
        methods: nothing is hooked where none of them acts on prompts.
        binding: knows the step.
        session: asks the methods.
        prompts: has heard the prompts.

    Raises:
        UnsupportedError: on entering for a pipeline without one denoiser; from the denoiser where its rows cannot be told apart.
    """

    def __init__(self, pipe: Any, methods: Sequence[Method], binding: Binding, session: Session, prompts: Prompts) -> None:
        self._pipe = pipe
        self._names = [type(m).__name__ for m in methods if m.acts_on_prompts]
        self._may_drop_cfg = any(type(m).cfg_enabled is not Method.cfg_enabled for m in methods)
        self._binding = binding
        self._session = session
        self._prompts = prompts
        self._hooks: list[Any] = []
        self._step, self._prepared = -1, Prepared((), True)
        self._rows = torch.zeros(0, dtype=torch.bool)
        self._with_prompt: Tensor | None = None
        self._classes: dict[LabelEmbedding, Tensor] = {}

    def __enter__(self) -> Denoiser:
        if self._names:
            module = self._module()
            self._hooks = [
                module.register_forward_pre_hook(self._before, with_kwargs=True),
                module.register_forward_hook(self._after),
                *(part.register_forward_hook(self._embedded) for part in _embedders(module)),
            ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _module(self) -> torch.nn.Module:
        found = [
            m for name in ("unet", "transformer", "transformer_2") if isinstance(m := getattr(self._pipe, name, None), torch.nn.Module)
        ]
        if len(found) != 1:
            raise UnsupportedError(
                f"{' and '.join(self._names)} needs a pipeline with one denoiser, unet or transformer, and {type(self._pipe).__name__} has "
                f"{len(found)}; {_HINT}"
            )
        return found[0]

    def _before(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
        arguments = bound.arguments
        sample = next((arguments[n] for n in ("sample", "hidden_states") if isinstance(arguments.get(n), Tensor)), None)
        times = torch.as_tensor(arguments.get("timestep", ())).reshape(-1).cpu().double()
        if sample is None or not len(times) or (times != times[0]).any():
            raise UnsupportedError(
                f"{' and '.join(self._names)}: {type(module).__name__} is not called with one sample and one timestep; {_HINT}"
            )
        labels = arguments.get("class_labels")
        tokens = arguments.get("encoder_hidden_states") if labels is None else labels
        coming = self._binding.coming(times[0].item())
        self._rows = self._positive_rows(module, tokens, asked=coming.step == self._step)
        if not self._rows.any():  # the empty prompts have a call of their own
            if coming.step != self._step and self._may_drop_cfg:
                raise UnsupportedError(
                    f"{' and '.join(self._names)}: {type(module).__name__} is asked without the prompt before it is asked with it, so "
                    f"classifier-free guidance cannot be left out; {_HINT}"
                )
            return args, kwargs
        places = _places(arguments) if labels is None else []
        if coming.step != self._step:
            self._classes = {}
            classes = {} if labels is None else {m: m(labels[self._rows]) for m in _embedders(module)}
            embeddings = [*(place[name][self._rows] for place, name in places), *classes.values()]
            self._prepared, self._step = self._session.prepare(coming, sample, embeddings), coming.step
            new = self._prepared.embeddings[len(places) :]
            self._classes = {m: rows for m, rows in zip(classes, new, strict=True) if rows is not None}
        for (place, name), rows in zip(places, self._prepared.embeddings, strict=False):
            if rows is not None:
                place[name] = self._replaced(place[name], rows)
        return bound.args[1 : 1 + len(args)], {name: arguments.get(name, value) for name, value in kwargs.items()}

    def _replaced(self, values: Tensor, rows: Tensor) -> Tensor:
        """`values` (R, …) with those of the positive prompts replaced."""
        return values.index_put((self._rows.nonzero().flatten(),), rows.to(values))

    def _positive_rows(self, module: torch.nn.Module, tokens: Any, *, asked: bool) -> Tensor:
        """Which rows of the denoiser's input belong to positive prompts: (R,) bool; `asked`, whether it had those of this step already."""
        positive = self._prompts.positive
        if asked and isinstance(tokens, Tensor) and isinstance(positive, Tensor) and tokens.shape[1:] != positive.shape[1:]:
            return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)  # the empty prompts, which have another length
        if not (isinstance(tokens, Tensor) and isinstance(positive, Tensor)) or tokens.shape[1:] != positive.shape[1:]:
            raise UnsupportedError(
                f"{' and '.join(self._names)}: {type(module).__name__} is not given the prompt embeddings that {type(self._pipe).__name__} "
                f"made, so they cannot be replaced; {_HINT}"
            )
        return positive_rows(tokens, positive)

    def _embedded(self, module: LabelEmbedding, _: Any, output: Tensor) -> Tensor:
        new = self._classes.get(module)
        return output if new is None else self._replaced(output, new)

    def _after(self, module: torch.nn.Module, _: Any, output: Any) -> Any:
        made = output[0] if isinstance(output, tuple) else output.sample
        if self._rows.any():
            self._with_prompt = made[self._rows]
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
    """Where a call holds embeddings of prompts: a dictionary and a key for each."""
    places = [(arguments, name) for name in ("encoder_hidden_states", "pooled_projections") if isinstance(arguments.get(name), Tensor)]
    added = arguments.get("added_cond_kwargs")
    if isinstance(added, dict) and isinstance(added.get("text_embeds"), Tensor):
        arguments["added_cond_kwargs"] = dict(added)  # the pipeline's own dictionary serves all steps
        places.append((arguments["added_cond_kwargs"], "text_embeds"))
    return places
