"""Keep what a denoiser returns during a call, and return it again in a later one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unalike.attach.diffusers.graphs import unwrapped
from unalike.attach.diffusers.host import Host
from unalike.attach.diffusers.scoped import own_model

_INPUTS = ("sample", "hidden_states")


@dataclass(frozen=True)
class Made:
    """One call of a denoiser.

    Attributes:
        model: the name of the denoiser.
        sample: its input (R, …), a block of images or several.
        output: its output (R, …).
        form: makes of an output what the model returned.
    """

    model: str
    sample: Tensor
    output: Tensor
    form: Callable[[Tensor], Any]


Evaluation = list[Made]
"""The calls of one evaluation: one, or two where the empty prompts have a call of their own."""


class Recorder:
    """Context manager: while it is open, the denoisers of a stand-in are listened to.

    Args:
        own: from `own_pipeline`.

    Attributes:
        evaluations: what the denoisers did in each evaluation that is over; None for one that
            cannot be repeated from it, because inputs or outputs are no batches.
    """

    def __init__(self, own: Any) -> None:
        self._own = own
        self._made: list[Made | None] = []
        self.evaluations: list[Evaluation | None] = []

    def __enter__(self) -> Recorder:
        for name in Host(self._own).denoisers:
            stand_in = own_model(self._own, name)
            vars(stand_in)["forward"] = self._listening(name, stand_in, stand_in.forward)
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def end(self) -> None:
        """Ends an evaluation."""
        made, self._made = self._made, []
        whole = [call for call in made if call is not None]
        self.evaluations.append(whole if made and len(whole) == len(made) else None)

    def reset(self) -> None:
        """Forget everything."""
        self._made, self.evaluations = [], []

    def _listening(self, name: str, model: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
        def listened(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            sample, found = _sample(model, args, kwargs), _tensor(output)
            if sample is None or found is None or len(sample) != len(found[0]):
                self._made.append(None)
            else:
                self._made.append(Made(name, sample.cpu(), found[0].cpu(), found[1]))
            return output

        return listened


class Replay:
    """Context manager: while it is open, the denoisers of a stand-in return what they made before,
    as long as they are given the very same input.

    Args:
        own: from `own_pipeline`.
        evaluations: of the images of the call, in their order.

    Attributes:
        reused: how many evaluations were taken from these in full.
    """

    def __init__(self, own: Any, evaluations: Sequence[Evaluation]) -> None:
        self._own = own
        self._left = [(i, made) for i, calls in enumerate(evaluations) for made in calls]
        self._count = len(evaluations)
        self.reused = 0

    def __enter__(self) -> Replay:
        for name in Host(self._own).denoisers if self._left else ():
            stand_in = own_model(self._own, name)
            vars(stand_in)["forward"] = self._answering(name, stand_in, stand_in.forward)
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def _answering(self, name: str, model: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
        def answered(*args: Any, **kwargs: Any) -> Any:
            if not self._left:
                return forward(*args, **kwargs)
            number, made = self._left[0]
            sample = _sample(model, args, kwargs)
            if made.model != name or sample is None or not torch.equal(sample.cpu(), made.sample):
                self._left = []  # from here on it is another run
                return forward(*args, **kwargs)
            self._left = self._left[1:]
            if not self._left or self._left[0][0] != number:
                self.reused = number + 1
            return made.form(made.output.to(sample.device))

        return answered


def assembled(
    rounds: Sequence[Sequence[Evaluation | None]], choice: Sequence[tuple[int, int]]
) -> list[Evaluation]:
    """The evaluations of a call whose image `i` is `choice[i]`, an image of a round.

    Args:
        rounds: the evaluations of calls of equally many images.
        choice: for each image the number of the round and its place there.

    Returns:
        As many evaluations as can be put together; none where the calls are of different forms.
    """
    images, result = len(choice), []
    for of_rounds in zip(*rounds, strict=False):
        calls = [evaluation for evaluation in of_rounds if evaluation is not None]
        if len(calls) < len(of_rounds) or len({len(evaluation) for evaluation in calls}) > 1:
            break
        joint = [_joint(same, choice, images) for same in zip(*calls, strict=True)]
        whole = [made for made in joint if made is not None]
        if len(whole) < len(joint):
            break
        result.append(whole)
    return result


def _joint(calls: Sequence[Made], choice: Sequence[tuple[int, int]], images: int) -> Made | None:
    first = calls[0]
    if any(c.model != first.model or c.sample.shape != first.sample.shape for c in calls):
        return None
    if len(first.sample) % images:
        return None
    rows = [
        (of_round, block + place)
        for block in range(0, len(first.sample), images)
        for of_round, place in choice
    ]
    sample = torch.stack([calls[r].sample[row] for r, row in rows])
    output = torch.stack([calls[r].output[row] for r, row in rows])
    return Made(first.model, sample, output, first.form)


def _sample(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    module = unwrapped(model)
    arguments = inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments
    return next(
        (arguments[name] for name in _INPUTS if isinstance(arguments.get(name), Tensor)), None
    )


def _tensor(output: Any) -> tuple[Tensor, Callable[[Tensor], Any]] | None:
    """The tensor of an output, and what makes such an output of one; None where there is none."""
    if isinstance(output, tuple):
        alone = len(output) == 1 and isinstance(output[0], Tensor)
        return (output[0], lambda made: (made,)) if alone else None
    if isinstance(output, Tensor):
        return output, lambda made: made
    sample = getattr(output, "sample", None)
    if isinstance(sample, Tensor) and list(vars(output)) == ["sample"]:
        kind = type(output)
        return sample, lambda made: kind(sample=made)
    return None
