"""Arguments of a call that makes some of the images of another call."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

_TEXT = re.compile(r"(negative_)?prompt(_\d)?")
NUMBER = re.compile(r"num_\w+_per_prompt|batch_size")
"""The arguments by which pipelines are asked for several images, videos, or sounds."""
_SHARED = frozenset({"sigmas", "timesteps", "callback_on_step_end_tensor_inputs"})
"""Lists that are the same for all images."""


def fewer_images(
    arguments: Mapping[str, Any], rows: Sequence[int], images: int
) -> dict[str, Any] | None:
    """The arguments of a call that makes some of the images alone; None where that is not known to
    be the same for each of them.

    It is where an image is made of its prompts and a generator of its own, and of numbers that all
    share: not with images, embeddings or latents among the arguments.

    Args:
        arguments: of a call of a pipeline, by name.
        rows: numbers of the images.
        images: how many the call makes.

    Example:
        >>> own = [torch.Generator().manual_seed(i) for i in range(4)]
        >>> asked = {"prompt": ["cat", "dog"], "num_images_per_prompt": 2, "generator": own}
        >>> found = fewer_images(asked, [0, 3], 4)
        >>> found["prompt"], found["num_images_per_prompt"], found["generator"] == [own[0], own[3]]
        (['cat', 'dog'], 1, True)
        >>> fewer_images({**asked, "prompt_embeds": torch.zeros(4, 7, 8)}, [0], 4) is None
        True
    """
    generators = arguments.get("generator")
    if not isinstance(generators, list | tuple) or len({id(g) for g in generators}) != images:
        return None
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        if name == "generator":
            found[name] = [generators[i] for i in rows]
        elif _TEXT.fullmatch(name) and value is not None:
            texts = [value] if isinstance(value, str) else value
            if not _are_texts(texts) or images % len(texts):
                return None
            each = images // len(texts)
            found[name] = [texts[i // each] for i in rows]
        elif name == "class_labels":
            if not isinstance(value, list | tuple) or len(value) != images:
                return None
            found[name] = [value[i] for i in rows]
        elif NUMBER.fullmatch(name) and value is not None:
            found[name] = len(rows) if name == "batch_size" else 1
        elif name in _SHARED or _is_shared(value):
            found[name] = value
        else:
            return None
    return found


def _are_texts(value: Any) -> bool:
    listed = isinstance(value, list | tuple) and len(value) > 0
    return listed and all(isinstance(text, str) for text in value)


def _is_shared(value: Any) -> bool:
    """Whether a value says the same of all images."""
    return (
        value is None
        or isinstance(value, bool | int | float | str | torch.dtype)
        or (callable(value) and not isinstance(value, torch.nn.Module))
    )
