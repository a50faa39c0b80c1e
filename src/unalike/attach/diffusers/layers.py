"""Show methods the layers of a denoiser: change their features, leave out their adapters."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from unalike.attach.diffusers.graphs import is_compiled
from unalike.attach.diffusers.host import Host
from unalike.attach.diffusers.model_call import model_call
from unalike.attach.diffusers.prompts import Prompts
from unalike.attach.diffusers.scoped import layer_hook, original, own_model
from unalike.attach.diffusers.step_hook import Binding
from unalike.attach.run.session import Session
from unalike.errors import UnsupportedError
from unalike.guidance.context import Layer
from unalike.guidance.method import Method
from unalike.guidance.run import UpcomingCall

_TEXT_FIRST = (
    "FluxSingleTransformerBlock",
    "FluxTransformerBlock",
    "JointTransformerBlock",
    "QwenImageTransformerBlock",
)
"""Blocks that return the text before the image, which equal lengths would not tell."""

_HINT = "leave the method out for this pipeline"


class Layers:
    """Context manager: while it is open, methods with `features` see the outputs of the denoiser's
    layers, and those with `adapters_enabled` switch its adapters.

    - The layers are the mid block and the up blocks of a U-Net, and the blocks of a transformer.
      Blocks with joint attention have two outputs, features of the text and of the image.
    - An adapter (LoRA) is left out of a layer by evaluating the layer that it adapts once more, by
      itself, in place of the output. Nothing is switched on a model that other calls share, so that
      those in other threads keep their adapters; an evaluation without adapters costs each adapted
      layer twice.

    Args:
        pipe: the pipeline of this call alone, from `own_pipeline`.
        methods: nothing is hooked where none of them has either hook.
        binding: knows the step.
        session: asks the methods.
        prompts: knows how many images there are.

    Raises:
        UnsupportedError: on entering for a pipeline without such a denoiser or without an adapter
            that could be left out, and for a compiled one; from the denoiser where its rows are no
            images.
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
        self._seeing = [type(m).__name__ for m in methods if m.defines("features")]
        self._switching = [type(m).__name__ for m in methods if m.defines("adapters_enabled")]
        self._binding = binding
        self._session = session
        self._prompts = prompts
        self._hooks: list[RemovableHandle] = []
        self._call: UpcomingCall | None = None
        self._sample = torch.zeros(0)
        self._images, self._earlier = 0, 0  # of the batch; blocks evaluated before in this step
        self._adapters_enabled = True

    def __enter__(self) -> Layers:
        names = list(Host(self._pipe).denoisers) if self._who else []
        models = [original(getattr(self._pipe, name)) for name in names]
        seen = [self._shown(model) for model in models] if self._seeing else []
        adapted = self._adapted(models) if self._switching else []
        if self._who and not models:
            raise UnsupportedError(
                f"{self._who} needs a pipeline with a denoiser, unet or transformer, and "
                f"{type(self._pipe).__name__} has none; {_HINT}"
            )
        if any(is_compiled(part) for model in models for part in model.modules()):
            raise UnsupportedError(
                f"{self._who}: the denoiser of {type(self._pipe).__name__} is compiled, so that "
                f"its layers cannot be reached; leave torch.compile out, or {_HINT}"
            )
        for name in names:
            own_model(self._pipe, name).register_forward_pre_hook(self._before, with_kwargs=True)
        for layer, module in (pair for layers in seen for pair in layers):
            hook = layer_hook(self._pipe, functools.partial(self._after, layer))
            self._hooks.append(module.register_forward_hook(hook, with_kwargs=True))
        bare = layer_hook(self._pipe, self._bare)
        self._hooks += [m.register_forward_hook(bare, with_kwargs=True) for m in adapted]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    @property
    def _who(self) -> str:
        return " and ".join(dict.fromkeys([*self._seeing, *self._switching]))

    def _shown(self, model: torch.nn.Module) -> list[tuple[Layer, torch.nn.Module]]:
        """The layers of a denoiser that methods see, in the order that they are run."""
        up = getattr(model, "up_blocks", None)
        if isinstance(up, torch.nn.ModuleList):
            if Host(self._pipe).draws_videos:
                raise UnsupportedError(
                    f"{self._who}: {type(model).__name__} draws videos, whose frames are rows of "
                    f"their own inside of it; {_HINT}"
                )
            found = {"mid_block": getattr(model, "mid_block", None)}
            found |= {f"up_blocks.{i}": block for i, block in enumerate(up)}
        else:
            found = {
                f"{name}.{i}": block
                for name, blocks in model.named_children()
                if isinstance(blocks, torch.nn.ModuleList) and name.endswith(("blocks", "layers"))
                for i, block in enumerate(blocks)
            }
        blocks = {name: block for name, block in found.items() if block is not None}
        if not blocks:
            raise UnsupportedError(
                f"{self._who}: the blocks of {type(model).__name__} are not known; known are U-Nets"
                f" with up_blocks and transformers with lists of blocks; {_HINT}"
            )
        return [
            (Layer(name, i, len(blocks), "image", ()), block)
            for i, (name, block) in enumerate(blocks.items())
        ]

    def _adapted(self, models: Sequence[torch.nn.Module]) -> list[Any]:
        """The layers of the denoisers with adapters, as peft makes them."""
        who, host = " and ".join(self._switching), type(self._pipe).__name__
        found: list[Any] = [
            part
            for model in models
            for part in model.modules()
            if hasattr(part, "base_layer") and hasattr(part, "active_adapters")
        ]
        if any(part.merged for part in found):
            raise UnsupportedError(
                f"{who}: the LoRA of this {host} is fused into the weights, so that it cannot be "
                "left out; call pipe.unfuse_lora() first"
            )
        if not any(part.active_adapters and not part.disable_adapters for part in found):
            raise UnsupportedError(
                f"{who} leaves the LoRA out at some steps, and the denoiser of this {host} has "
                "none that is on; load one, as in pipe.load_lora_weights(…), or leave the method "
                "out"
            )
        return found

    def _before(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        sample, time = model_call(module, args, kwargs, f"{self._who}: ", _HINT)[1:]
        call = self._binding.upcoming(time)
        out = getattr(getattr(module, "config", None), "out_channels", None)
        now = (call.step, call.again)
        if self._call is None or now != (self._call.step, self._call.again):
            self._earlier = 0
        else:  # the prompts and the empty prompts have calls of their own
            self._earlier += len(self._sample) // self._images
        self._call, self._sample = call, sample
        self._images = self._prompts.images(sample, out)
        if self._earlier == 0 and self._switching:
            self._adapters_enabled = self._session.adapters_enabled(call, sample)

    def _after(
        self, layer: Layer, module: torch.nn.Module, args: Any, kwargs: dict[str, Any], output: Any
    ) -> Any:
        if isinstance(output, Tensor):
            return self._changed(layer, output)
        if not isinstance(output, tuple) or not any(isinstance(p, Tensor) for p in output):
            raise UnsupportedError(
                f"{self._who}: {type(module).__name__} returns a {type(output).__name__}, whose "
                f"features are not known; {_HINT}"
            )
        given = dict(zip(("hidden_states", "encoder_hidden_states"), args, strict=False)) | kwargs
        streams = _streams(module, given, output)
        joint = {"image", "text"} <= set(streams)
        changed = [
            self._changed(replace(layer, stream=stream, joint=joint), part) if stream else None
            for part, stream in zip(output, streams, strict=True)
        ]
        if all(part is None for part in changed):
            return None
        return tuple(own if new is None else new for own, new in zip(output, changed, strict=True))

    def _changed(self, layer: Layer, hidden: Tensor) -> Tensor | None:
        """A layer's output (R, …) with that of each block of images as the methods leave it."""
        call = self._call
        if call is None:
            return None
        if len(hidden) != len(self._sample) or len(hidden) % self._images:
            raise UnsupportedError(
                f"{self._who}: {layer.name} returns {len(hidden)} rows for {self._images} images "
                f"of a sample of {len(self._sample)} rows; {_HINT}"
            )
        places = (1,) if hidden.ndim == 3 else tuple(range(2, hidden.ndim))
        blocks, found = hidden.split(self._images), []
        for k, block in enumerate(blocks):
            own = replace(layer, places=places, block=self._earlier + k)
            found.append(self._session.features(call, self._sample, block, own))
        if all(new is None for new in found):
            return None
        return torch.cat([b if n is None else n for b, n in zip(blocks, found, strict=True)])

    def _bare(self, module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        """The output of an adapted layer without its adapters."""
        if self._adapters_enabled:
            return None
        return module.base_layer(*args, **kwargs)


def _streams(
    module: torch.nn.Module, given: dict[str, Any], output: tuple[Any, ...]
) -> list[str | None]:
    """Each output of a transformer's block by its stream: "image", "text", or None for neither.

    Outputs are told by the shapes of the block's inputs.

    Raises:
        UnsupportedError: where both have one shape, for a block whose order is not known.
    """
    shapes = {
        "image": getattr(given.get("hidden_states"), "shape", None),
        "text": getattr(given.get("encoder_hidden_states"), "shape", None),
    }
    name = type(module).__name__
    order = ["text", "image"] if name in _TEXT_FIRST else []
    result: list[str | None] = []
    for i, part in enumerate(output):
        fitting = [
            stream
            for stream, shape in shapes.items()
            if isinstance(part, Tensor) and part.shape == shape and stream not in result
        ]
        if len(fitting) > 1 and not order:
            raise UnsupportedError(
                f"{name} returns features of as many tokens of the text as of the image, which "
                "cannot be told apart; ask for another size of image, or leave out methods that "
                "change features"
            )
        if len(fitting) > 1:
            fitting = [stream for stream in order[i : i + 1] if stream in fitting]
        result.append(fitting[0] if fitting else None)
    return result
