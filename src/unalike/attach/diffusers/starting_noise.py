"""Change the noise that a pipeline starts from, where it draws it or is given it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from types import FunctionType, MethodType
from typing import Any, Protocol

import torch
from torch import Tensor

from unalike.attach.diffusers.host import Host
from unalike.attach.diffusers.scoped import rebound, set_call
from unalike.errors import UnsupportedError
from unalike.guidance.method import Method

_DRAW = "randn_tensor"


class Starts(Protocol):
    """Gives a starting noise."""

    def start(self, noise: Tensor) -> Tensor | None:
        """The noise in place of `noise` (B, …); None to leave it."""
        ...


class StartingNoise:
    """Context manager: while it is open, the starting noise of the pipeline is as the methods leave
    it.

    Diffusers' pipelines draw it with `randn_tensor`, in `prepare_latents` or in their call. On the
    stand-in that function gives the methods' noise, before the pipeline scales it (variance
    preserving and exploding), uses it as it is (flow matching), adds it to an image (image to
    image) or packs it into tokens. So it is exact whatever the scheduler. `latents` that the caller
    gives to `prepare_latents` are noise of the same kind, packed where the pipeline packs it.

    Args:
        pipe: the pipeline of this call alone, from `own_pipeline`.
        methods: nothing is changed where none of them has `initial_noise`.
        session: asks the methods.
        gradients: whether the call is to be differentiated in the noise.

    Raises:
        UnsupportedError: on entering for a pipeline that draws its noise in another way; from the
            call where it draws several.
    """

    def __init__(
        self, pipe: Any, methods: Sequence[Method], session: Starts, *, gradients: bool = False
    ) -> None:
        self._pipe = pipe
        self._names = [type(m).__name__ for m in methods if m.defines("initial_noise")]
        self._session = session
        self._gradients = gradients

    def __enter__(self) -> StartingNoise:
        if not self._names:
            return self
        host = Host(self._pipe)
        prepare, body = host.part("prepare_latents"), inspect.unwrap(host.call)
        if inspect.ismethod(prepare) and _draws(prepare.__func__):
            self._pipe.prepare_latents = MethodType(self._prepared(prepare.__func__), self._pipe)
            if self._gradients:
                set_call(self._pipe, body)
        elif prepare is None and _draws(body):
            set_call(self._pipe, self._called(body))
        else:
            raise UnsupportedError(
                f"{self._who}: {type(self._pipe).__name__} does not draw its starting noise in "
                "prepare_latents or in its call, where it could be changed; leave the method out "
                "for this pipeline"
            )
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def _who(self) -> str:
        return " and ".join(self._names)

    def _prepared(self, own: FunctionType) -> Callable[..., Any]:
        """`prepare_latents` with the methods' noise."""
        signature = inspect.signature(own)

        @functools.wraps(own)
        def prepare_latents(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            given = bound.arguments.get("latents")
            if isinstance(given, Tensor):
                bound.arguments["latents"] = self._started(given)
            return self._drawing(own, drawn=isinstance(given, Tensor))(*bound.args, **bound.kwargs)

        return prepare_latents

    def _called(self, own: FunctionType) -> Callable[..., Any]:
        """The call, whose decorators are gone, with the methods' noise."""

        @functools.wraps(own)
        def call(*args: Any, **kwargs: Any) -> Any:
            with torch.set_grad_enabled(self._gradients):
                return self._drawing(own, drawn=False)(*args, **kwargs)

        return call

    def _drawing(self, own: FunctionType, *, drawn: bool) -> FunctionType:
        """A copy of a function whose `randn_tensor` gives the methods' noise; `drawn`, whether
        there is one already.
        """
        draw, done = own.__globals__[_DRAW], drawn

        def randn_tensor(*args: Any, **kwargs: Any) -> Tensor:
            nonlocal done
            if done:
                raise UnsupportedError(
                    f"{self._who}: {type(self._pipe).__name__} draws noise more than once before "
                    "its first step, or draws some besides the latents that it is given, so that "
                    "its starting noise cannot be told; leave latents or the method out"
                )
            done = True
            return self._started(draw(*args, **kwargs))

        return rebound(own, **{_DRAW: randn_tensor})

    def _started(self, noise: Tensor) -> Tensor:
        changed = self._session.start(noise)
        return noise if changed is None else changed


def _draws(function: Any) -> bool:
    return (
        isinstance(function, FunctionType)
        and _DRAW in function.__code__.co_names
        and _DRAW in function.__globals__
    )
