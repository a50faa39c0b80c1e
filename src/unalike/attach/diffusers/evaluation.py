"""Run a pipeline for its first evaluations alone, and return what they predict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unalike.attach.diffusers import levels
from unalike.attach.diffusers.arguments import unshared
from unalike.attach.diffusers.host import Host
from unalike.attach.diffusers.prompts import Prompts
from unalike.attach.diffusers.recording import Evaluation, Recorder
from unalike.attach.diffusers.scoped import own_pipeline
from unalike.attach.diffusers.step_hook import Binding
from unalike.attach.run.conditions import Conditions
from unalike.attach.run.encoders import Encoder
from unalike.errors import NumericsError, OptionError, UnsupportedError, named
from unalike.guidance.run import Call
from unalike.selection import agreement

Progress = Callable[[int, int], None]
"""Told how many candidates were evaluated, and of how many."""
_FEW = 4
_LEFT_OUT = ("callback", "callback_on_step_end", "latents")


class _Stop(BaseException):  # no pipeline catches it as one of its own errors
    """Ends a call after the last evaluation that is wanted of it."""


@dataclass(frozen=True)
class Evaluated:
    """The predictions of the first evaluations of a call.

    Attributes:
        x0: predicted clean latents (B, …) of the last one, float32, on the CPU.
        before: those of the evaluation before it; None after one evaluation.
        conditions: of the images.
        step: how many evaluations there were.
        steps: how many a whole call has.
        agreement: how near the outputs with and without the prompt are to each other in the last
            one: (B,), see `unalike.selection.agreement`. None without classifier-free guidance.
        made: what the denoisers did in each; None for one that cannot be repeated from that.
    """

    x0: Tensor
    before: Tensor | None
    conditions: Conditions
    step: int
    steps: int
    agreement: Tensor | None = None
    made: list[Evaluation | None] = field(default_factory=list, repr=False)

    @property
    def calls(self) -> int:
        """Evaluations of one image; with classifier-free guidance both halves are one."""
        return self.step * len(self.x0)


def evaluations(step: int | str, steps: int) -> int:
    """The number of evaluations that candidates are judged by; of a whole call there are `steps`.

    With "auto" 1 for up to 4 steps, where it costs a quarter of the image or more, else 2.

    Raises:
        OptionError: for more than there are.

    Example:
        >>> evaluations("auto", 4), evaluations("auto", 20), evaluations(3, 20)
        (1, 2, 3)
    """
    if isinstance(step, str):
        return 1 if steps <= _FEW else 2
    if step > steps:
        raise OptionError(
            named(
                "{step} is {} and the call has {} evaluations of the model; allowed: at most as "
                "many, or 'auto', as in {step=1}",
                step,
                steps,
            )
        )
    return step


def evaluate(
    pipe: Any,
    arguments: dict[str, Any],
    step: int | str,
    *,
    encoder: Encoder | None = None,
    groups: Sequence[int] | Tensor | None = None,
    changed: Callable[[Any], AbstractContextManager[Any]] = nullcontext,
) -> Evaluated:
    """Run a pipeline until it has been evaluated `step` times, and stop before the scheduler's
    next step.

    The call runs on a stand-in, which is thrown away half done; callbacks are left out, and torch's
    own random numbers stay as they are.

    Args:
        pipe: a diffusers pipeline.
        arguments: of the call, by name.
        step: how many evaluations; "auto" as in `evaluations`.
        encoder: embeds the prompts in place of the pipeline's text encoder.
        groups: as of `guide`.
        changed: open while the stand-in that it is given runs.

    Raises:
        OptionError: for more evaluations than the call has.
        UnsupportedError: for a pipeline that cannot be guided, or ended before.
        NumericsError: for a prediction that is not finite.
    """
    own = own_pipeline(pipe)
    if not Host(pipe).is_modular:
        own.set_progress_bar_config(disable=True)
    prompts = Prompts(own, arguments, encoder, groups)
    recorder = Recorder(own)
    watch = _Watch(own.scheduler, prompts, recorder, step)
    quiet = {name: unshared(value) for name, value in arguments.items() if name not in _LEFT_OUT}
    try:
        with (
            torch.random.fork_rng(devices=range(torch.cuda.device_count())),
            Binding(own, watch),
            prompts,
            recorder,
            changed(own),
        ):
            own(**quiet)
    except _Stop:
        return watch.evaluated()
    finally:
        Host(pipe).free_models()
    raise UnsupportedError(
        f"{Host(pipe).name} did not stop after {watch.done} evaluations, so that its candidates "
        "cannot be told apart early; draw them all and choose among the images"
    )


def require_seeds(pipe: Any) -> None:
    """Refuse a pipeline whose images have no seeds, or that cannot be stopped early.

    Raises:
        UnsupportedError: saying which.
    """
    if "generator" not in Host(pipe).parameters:
        raise UnsupportedError(
            f"{Host(pipe).name} takes no generator, so its images have no seeds to choose among; "
            "draw more images than you need and choose among those"
        )
    levels.require(pipe.scheduler)


class _Watch:
    """Keeps the predictions of a call and ends it: the guidance of a `Binding`."""

    def __init__(
        self, scheduler: Any, prompts: Prompts, recorder: Recorder, step: int | str
    ) -> None:
        self._scheduler = scheduler
        self._prompts = prompts
        self._recorder = recorder
        self._step = step
        self._conditions: Conditions | None = None
        self._x0: list[Tensor] = []
        self._steps = self.done = 0

    def reset(self) -> None:
        self._x0, self._conditions = [], None
        self._recorder.reset()
        known = len(levels.schedule(self._scheduler))
        evaluations(self._step, known)  # an image to start from may leave fewer

    def correct(self, call: Call) -> Tensor | None:
        if self._conditions is None:
            self._conditions = self._prompts.conditions(call.x_t)
            self._steps = call.steps
        wanted = evaluations(self._step, call.steps)
        if not torch.isfinite(call.x0).all():
            raise NumericsError(
                f"the model's prediction at step {call.step} of {call.steps} has NaN or infinite "
                "values; try float32, or bfloat16 in place of float16"
            )
        x0 = call.x0[: self._conditions.images].float().cpu()
        self._x0 = [*self._x0[-1:], x0]
        self.done = call.step + 1
        self._recorder.end()
        if self.done >= wanted:
            raise _Stop
        return None

    def finish(self, latents: Tensor) -> Tensor | None:
        return None

    def evaluated(self) -> Evaluated:
        assert self._conditions is not None
        before = self._x0[0] if len(self._x0) > 1 else None
        return Evaluated(
            self._x0[-1],
            before,
            self._conditions,
            self.done,
            self._steps,
            guided_agreement(self._recorder.evaluations[-1], self._x0[-1]),
            self._recorder.evaluations,
        )


def guided_agreement(made: Evaluation | None, x0: Tensor) -> Tensor | None:
    """Minus the distance (B,) of the outputs of an evaluation with and without the prompt.

    None where there are not just these two blocks of outputs.

    Args:
        made: the calls of the denoiser.
        x0: predictions (B, …) of that evaluation.
    """
    images, channels = len(x0), x0.shape[1]
    blocks = [block for call in made or () for block in call.output.split(images)]
    if len(blocks) != 2 or any(len(block) != images for block in blocks):
        return None
    first, second = (  # a learned variance follows the prediction
        block[:, :channels] if block.shape[1] == 2 * channels else block for block in blocks
    )
    return agreement(first, second)


@contextmanager
def counted(pipe: Any, progress: Progress | None, total: int) -> Iterator[Callable[[int], None]]:
    """Count candidates in a bar, as the pipeline shows its own, or tell `progress`.

    Args:
        pipe: a diffusers pipeline.
        progress: told in place of a bar.
        total: how many candidates there are.
    """
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, total)

    if progress is not None or Host(pipe).is_modular:
        yield tell
        return
    with pipe.progress_bar(total=total) as bar:
        yield bar.update
