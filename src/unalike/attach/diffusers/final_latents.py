"""Read the latents that a call decodes or returns, and compare them with those after its last step.

Pipelines and callbacks may change latents after the scheduler's last step: inpainting pastes the
original back, a callback corrects colours. The session measures, moves out and remembers the
latents that are left then.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from torch import Tensor

from unalike.attach.diffusers.host import Host
from unalike.attach.diffusers.scoped import own_model
from unalike.attach.diffusers.vae import scaled, unscaled
from unalike.attach.run.outputs import made_images, pixels, replaced, with_latents
from unalike.attach.run.session import Session

_READERS = (
    "_unpack_latents",
    "_unpack_latents_with_ids",
    "_unpack_latents_no_patch",
    "_denormalize_latents",
    "_unpatchify_latents",
    "decode_latents",
    "_decode_latents",
)
"""Methods of pipelines that are given the final latents as the scheduler has them."""

_CALLBACKS = ("callback_on_step_end", "callback")
_ROUNDINGS = 4  # of a latent on its way to the decoder


class FinalLatents:
    """Context manager: while it is open, the session learns which latents are decoded or returned.

    The first method in `_READERS` that is called with latents like those of the last step has them
    as the scheduler does. Else they are read from what the autoencoder is given, with its scaling
    taken back; or, where nothing is decoded, from the output. Latents that differ from those after
    the last step are measured in place of them, and moved out before they are decoded.

    Args:
        pipe: a stand-in from `own_pipeline`.
        session: of the call; has the latents after the last step.

    Raises:
        UnsupportedError: from the call, before it decodes, where a shield or a memory needs the
            final latents, and they differ from those after the last step in an unknown way.
    """

    def __init__(self, pipe: Any, session: Session) -> None:
        self._pipe = pipe
        self._session = session
        self._suspended = False
        self._edited = False  # whether a callback may have changed the final latents
        self._parts: list[Tensor] = []  # of latents that are decoded in parts

    def __enter__(self) -> FinalLatents:
        pipe = self._pipe
        for name in _READERS:
            own = Host(pipe).part(name)
            if callable(own):
                vars(pipe)[name] = self._reading(own)
        name, vae = Host(pipe).autoencoder
        if callable(getattr(vae, "decode", None)):
            stand_in = own_model(pipe, name)
            vars(stand_in)["decode"] = self._decoding(stand_in.decode)
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def quiet(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call; what its callbacks decode is not taken for its result."""
        changed = {}
        for name in _CALLBACKS:
            callback = arguments.get(name)
            if isinstance(callback, PipelineCallback | MultiPipelineCallbacks):
                self._edited = True  # pipelines ask for its class, so it stays what it is
            elif callable(callback):
                changed[name] = self._suspending(callback)
        return {**arguments, **changed}

    def returned(self, output: Any) -> Any:
        """The output of the call, latents in it moved out where they had to be.

        Raises:
            UnsupportedError: where nothing tells what became of the final latents.
        """
        if self._final is not None and not self._session.decoded:
            output = self._settled(output, self._final)
        return output if self._final is None else with_latents(output, self._final)

    @property
    def _final(self) -> Tensor | None:
        return self._session.latents

    def _reading(self, own: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(own)
        def read(*args: Any, **kwargs: Any) -> Any:
            final = self._final
            if final is None or self._session.decoded or self._suspended:
                return own(*args, **kwargs)
            bound = inspect.signature(own).bind(*args, **kwargs)
            name = next(iter(bound.arguments))
            given = bound.arguments[name]
            if isinstance(given, Tensor) and _compared(given, final) is not None:
                changed = self._settle(given)
                bound.arguments[name] = given if changed is None else changed
            return own(*bound.args, **bound.kwargs)

        return read

    def _decoding(self, own: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(own)
        def decode(z: Any, *args: Any, **kwargs: Any) -> Any:
            if (
                self._final is None
                or self._session.decoded
                or self._suspended
                or not isinstance(z, Tensor)
            ):
                return own(z, *args, **kwargs)
            return own(self._read(z), *args, **kwargs)

        return decode

    def _suspending(self, own: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(own)
        def callback(*args: Any, **kwargs: Any) -> Any:
            self._suspended = True
            try:
                result = own(*args, **kwargs)
            finally:
                self._suspended = False
            given = [*_tensors(result), *(part for value in args for part in _tensors(value))]
            self._edited |= any(map(self._differs, given))
            return result

        return callback

    def _differs(self, latents: Any) -> bool:
        final = self._final
        return isinstance(latents, Tensor) and final is not None and not _compared(latents, final)

    def _read(self, z: Tensor) -> Tensor:
        """The latents to decode in place of `z`, the decoder's input."""
        pipe, final = self._pipe, self._final
        assert final is not None
        if z.shape != final.shape:
            self._read_layout(z, final)
            return z
        self._session.decoded = True
        precise = final.to(torch.promote_types(final.dtype, torch.float32))
        if _same(z, final, unscaled(pipe, precise), unscaled(pipe, torch.zeros_like(precise))):
            return z
        if not self._edited and _rescaled(z, final):
            return z
        for _ in range(3):  # rounding to the decoder's precision may lead back inside
            changed = self._session.finish(scaled(pipe, z.to(precise)))
            if changed is None:
                break
            z = unscaled(pipe, changed).to(z)
        return z

    def _read_layout(self, z: Tensor, final: Tensor) -> None:
        """Compares latents in another layout, or in parts, by their values alone."""
        self._parts.append(z.detach())
        found = sum(part.numel() for part in self._parts)
        if found < final.numel():
            return
        self._session.decoded = True
        if found == final.numel():
            values = torch.cat([_values(scaled(self._pipe, p.float())) for p in self._parts])
            self._parts = []
            values, own = values.sort().values, _values(final).sort().values
            if _same(values, own, own, torch.zeros_like(own)):
                return
        self._session.lose_latents(type(self._pipe).__name__)

    def _settle(self, latents: Tensor) -> Tensor | None:
        """The latents after the last step as they are decoded or returned; None for as given."""
        self._session.decoded = True
        final = self._final
        assert final is not None
        if _compared(latents, final) or (not self._edited and _rescaled(latents, final)):
            return None
        if latents.shape[1:] != final.shape[1:]:
            self._session.lose_latents(type(self._pipe).__name__)
            return None
        return self._session.finish(latents)

    def _settled(self, output: Any, final: Tensor) -> Any:
        made = made_images(output)
        if not isinstance(made, Tensor) or _compared(made, final) is None:
            self._read_images(output, final)
            return output
        unit = Host(self._pipe).latent_scale  # some pipelines divide what they return by it
        if unit != 1 and _same(made, final, final / unit, torch.zeros_like(final)):
            return output
        changed = self._settle(made if unit == 1 else made * unit)
        return output if changed is None else replaced(output, changed / unit)

    def _read_images(self, output: Any, final: Tensor) -> None:
        """Compares finished images with the final latents, where those are images themselves."""
        shown = pixels(output, len(final)) if Host(self._pipe).autoencoder[1] is None else None
        if shown is None or shown.shape != final.shape:
            self._session.lose_latents(type(self._pipe).__name__)
            return
        processor = Host(self._pipe).processor
        symmetric = getattr(getattr(processor, "config", None), "do_normalize", True)
        expected = (final.float() / 2 + 0.5 if symmetric else final.float()).clamp(0, 1)
        if ((shown.to(expected) - expected).abs() > 1.01 / 255).any():
            images = shown * 2 - 1 if symmetric else shown
            self._session.finish(images.to(final), movable=False)


def _tensors(value: Any) -> list[Tensor]:
    """The latents that a callback is given or returns: a tensor, or that of a dictionary."""
    value = value.get("latents") if isinstance(value, dict) else value
    return [value] if isinstance(value, Tensor) else []


def _compared(latents: Tensor, final: Tensor) -> bool | None:
    """Whether latents are the final ones, up to their precision; None where they cannot be them,
    for their shape. Some pipelines leave out tokens or frames first.
    """
    if latents.ndim != final.ndim or len(latents) % len(final):
        return None
    latents, *copies = latents.split(len(final))
    if any(not torch.equal(copy, latents) for copy in copies):
        return None
    other = [d for d in range(1, final.ndim) if latents.shape[d] != final.shape[d]]
    if not other:
        return torch.equal(latents, final.to(latents))
    if len(other) > 1 or latents.shape[other[0]] > final.shape[other[0]]:
        return None
    dim, length = other[0], latents.shape[other[0]]
    starts = (0, final.shape[dim] - length)
    return any(torch.equal(latents, final.narrow(dim, s, length).to(latents)) for s in starts)


def _same(z: Tensor, final: Tensor, expected: Tensor, shift: Tensor) -> bool:
    """Whether the decoder's input is what is expected of the final latents, up to rounding."""
    eps = max(torch.finfo(z.dtype).eps, torch.finfo(final.dtype).eps)
    size = (expected - shift).abs() + shift.abs()
    off = (z.to(expected) - expected).abs()
    return bool((off <= _ROUNDINGS * eps * size + torch.finfo(torch.float32).tiny).all())


def _rescaled(z: Tensor, final: Tensor) -> bool:
    """Whether `z` is the final latents with each channel scaled and shifted, as some pipelines do
    in their own way before they decode.
    """
    if z.shape != final.shape:
        return False
    x, y = (t.detach().cpu().double().transpose(0, 1).flatten(1) for t in (final, z))
    if x.shape[1] < 3:
        return False
    x, mean = x - x.mean(dim=1, keepdim=True), y.mean(dim=1, keepdim=True)
    slope = (x * (y - mean)).sum(dim=1, keepdim=True) / x.square().sum(dim=1, keepdim=True)
    eps = max(torch.finfo(z.dtype).eps, torch.finfo(final.dtype).eps)
    off = (slope * x + mean - y).abs()
    return bool((off <= _ROUNDINGS * eps * y.abs().amax(dim=1, keepdim=True)).all())


def _values(latents: Tensor) -> Tensor:
    return latents.detach().float().flatten()
