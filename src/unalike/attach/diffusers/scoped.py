"""A pipeline of its own for one guided call, so that hooks set on it reach no other call.

Pipelines share models and schedulers: two are built around one U-Net, a callback calls a second
pipeline between two steps, a server calls one pipeline in several threads. A hook on a shared
object would act on all of these calls. So each guided call runs on a stand-in of the pipeline: the
same class and the same weights, but a scheduler with state of its own, and models with hooks of
their own. Nothing outside the call sees them, and nothing has to be put back when it fails.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from types import FunctionType, MethodType
from typing import Any

import torch
from diffusers import DiffusionPipeline, ModularPipeline, SchedulerMixin

from unalike.attach.diffusers.tokenizers import own_tokenizers
from unalike.errors import AttachmentError

_ORIGINAL, _ENTERED, _CALL = "_unalike_original", "_unalike_entered", "_unalike_call"
_BODY = "_unalike_body"
_INTERRUPT = "_unalike_interrupt"

_running: ContextVar[tuple[Any, ...]] = ContextVar("unalike_running", default=())
_evaluating: ContextVar[Any] = ContextVar("unalike_evaluating", default=None)


def own_pipeline(pipe: Any) -> Any:
    """A stand-in of a pipeline for one call: hook it, then call it once.

    It has the pipeline's class, its attributes and its models themselves; its schedulers are
    copies, and what the call sets on them stays on them. Pipelines inside the pipeline have
    stand-ins too. A callback that calls the stand-in meanwhile calls the pipeline, unguided. An
    interrupt that is asked of the pipeline reaches the call.

    Args:
        pipe: a diffusers pipeline.
    """
    own = _shell(pipe)
    for scheduler in own_schedulers(own).values():
        copy = _copied(scheduler, type(scheduler))
        for name, value in vars(copy).items():
            if type(value) is list:  # the outputs that a multistep solver keeps
                vars(copy)[name] = list(value)
        _replace(own, scheduler, copy)
    return own


def own_model(own: Any, name: str) -> Any:
    """A stand-in of a model, put in its place in a stand-in pipeline: hooks on it, and methods that
    are set on it, act in this call alone.

    Calling it calls the model itself, with the hooks, the offloading and the compiled graph that it
    has. Layers inside of the model are shared; see `layer_hook`.

    Args:
        own: from `own_pipeline`.
        name: of the attribute, such as "unet".

    Example:
        A call that looks at the latents that it decodes:

        >>> own = own_pipeline(pipe)                       # doctest: +SKIP
        >>> vae = own_model(own, "vae")                    # doctest: +SKIP
        >>> vae.decode = look_and_then(vae.decode)         # doctest: +SKIP
    """
    if _ORIGINAL not in vars(own):
        raise TypeError(
            f"own is a {type(own).__name__} that other calls share; pass own_pipeline(pipe)"
        )
    model = getattr(own, name)
    if _ORIGINAL in vars(model):
        return model

    @functools.wraps(model.forward)
    def forward(*args: Any, **kwargs: Any) -> Any:
        token = _evaluating.set(own)
        try:
            return model(*args, **kwargs)
        finally:
            _evaluating.reset(token)

    stand_in, fresh = _copied(model, type(model)), vars(torch.nn.Module())
    vars(stand_in).update(
        {key: fresh[key] for key in fresh if key.startswith(("_forward", "_backward"))}
    )
    vars(stand_in).update({"forward": forward, "_compiled_call_impl": None, _ORIGINAL: model})
    _replace(own, model, stand_in)
    vars(own)[name] = stand_in
    return stand_in


def rebound(function: FunctionType, **names: Any) -> FunctionType:
    """A copy of a function that finds other things under some global names of its module.

    The module, and all else that uses it, stay as they are.

    Example:
        >>> def length(x):
        ...     return abs(x)
        >>> rebound(length, abs=float)(-1), length(-1)
        (-1.0, 1)
    """
    copy = FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def set_call(own: Any, call: Callable[..., Any]) -> None:
    """Has a stand-in run `call(own, …)` in place of the call of its class.

    Args:
        own: from `own_pipeline`.
        call: a function of the stand-in and the arguments of the call.
    """
    vars(own)[_BODY] = call


def own_schedulers(own: Any) -> dict[str, Any]:
    """All schedulers of a stand-in and of the pipelines inside it, each once, by the names of the
    attributes.

    Args:
        own: from `own_pipeline`; anything else has none.
    """
    if _ORIGINAL not in vars(own):
        return {}
    found = {name: value for name, value in vars(own).items() if isinstance(value, SchedulerMixin)}
    for name, inner in _inner(own).items():
        found.update({f"{name}.{part}": s for part, s in own_schedulers(inner).items()})
    names = {id(scheduler): name for name, scheduler in reversed(found.items())}
    return {name: scheduler for name, scheduler in found.items() if names[id(scheduler)] == name}


def original(stand_in: Any) -> Any:
    """The pipeline or the model that is stood in for; anything else as it is."""
    return vars(stand_in).get(_ORIGINAL, stand_in)


def current(pipe: Any) -> Any:
    """The stand-in of a pipeline in its innermost guided call in this thread or task; the pipeline
    itself where there is none.
    """
    return next((own for own in reversed(_running.get()) if original(own) is pipe), pipe)


def one_at_a_time(call: Callable[..., Any]) -> Callable[..., Any]:
    """A method that is refused while it runs on the same object, in any thread: its results are
    kept on the object.
    """

    @functools.wraps(call)
    def alone(self: Any, *args: Any, **kwargs: Any) -> Any:
        mine = object()
        if vars(self).setdefault(_CALL, mine) is not mine:  # atomic, unlike a test and then a write
            raise AttachmentError(
                "this guided pipeline is in a call already, and report and latents are of one "
                "call; for "
                "calls at the same time make one for each, as in guide(pipe, SPARKE()): they may "
                "share pipe"
            )
        try:
            return call(self, *args, **kwargs)
        finally:
            del vars(self)[_CALL]

    return alone


def layer_hook(own: Any, hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook for a layer of a model that other calls share: it acts only while a stand-in from
    `own_model(own, …)` is evaluated, in the thread that does that.
    """

    @functools.wraps(hook)
    def scoped(*args: Any, **kwargs: Any) -> Any:
        return hook(*args, **kwargs) if _evaluating.get() is own else None

    return scoped


def _copied(thing: Any, kind: type) -> Any:
    """A shallow copy, whose methods that were set on the object itself are its own."""
    copy = object.__new__(kind)
    for name, value in vars(thing).items():
        bound = isinstance(value, MethodType) and value.__self__ is thing
        vars(copy)[name] = MethodType(value.__func__, copy) if bound else value
    return copy


def _shell(pipe: Any) -> Any:
    own = _copied(pipe, _stand_in_class(type(pipe)))
    vars(own)[_ORIGINAL] = pipe
    for name, value in _inner(own).items():
        vars(own)[name] = _shell(value)
    return own


def _inner(own: Any) -> dict[str, Any]:
    """The pipelines that a pipeline calls, by the names of its attributes."""
    kinds = (DiffusionPipeline, ModularPipeline)
    return {
        name: value
        for name, value in vars(own).items()
        if name != _ORIGINAL and issubclass(type(value), kinds)  # not the class that it tells
    }


def _replace(own: Any, part: Any, stand_in: Any) -> None:
    for inner in _inner(own).values():
        _replace(inner, part, stand_in)
    for name, value in vars(own).items():
        if value is part and name != _ORIGINAL:
            vars(own)[name] = stand_in


@functools.cache
def _stand_in_class(kind: type) -> type:
    """The class of stand-ins for pipelines of a class."""
    own_call = getattr(kind, "unguided", kind.__call__)

    @functools.wraps(own_call)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if vars(self).get(_ENTERED):  # a callback calls the pipeline that it is given
            return own_call(original(self), *args, **kwargs)
        vars(self)[_ENTERED] = True
        token = _running.set((*_running.get(), self))
        try:
            with own_tokenizers(self):
                return vars(self).get(_BODY, own_call)(self, *args, **kwargs)
        finally:
            _running.reset(token)

    def components(self: Any) -> Any:
        return original(self).components

    def maybe_free_model_hooks(self: Any) -> None:
        original(self).maybe_free_model_hooks()

    def interrupt(self: Any) -> bool:
        flags = [
            vars(self).get(_INTERRUPT),
            getattr(original(self), "_interrupt", None),
        ]
        if flags == [None, None]:
            raise AttributeError("_interrupt")
        return any(flags)

    def set_interrupt(self: Any, value: bool) -> None:
        vars(self)[_INTERRUPT] = value
        if not value and getattr(original(self), "_interrupt", False):
            original(self)._interrupt = False  # of an earlier call: each call begins with this

    members: dict[str, Any] = {
        "__call__": call,
        "__module__": kind.__module__,
        "__doc__": kind.__doc__,
        "_interrupt": property(interrupt, set_interrupt),
        "components": property(components),
        "maybe_free_model_hooks": maybe_free_model_hooks,
    }
    members = {
        name: member
        for name, member in members.items()
        if hasattr(kind, name) or name == "_interrupt"
    }
    return type(kind.__name__, (kind,), members)
