"""Ask a pipeline for several images of one prompt, each from a generator of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from unalike.attach.diffusers.host import Host
from unalike.errors import OptionError, named

_NUMBER = re.compile(r"num_\w+_per_prompt")
_PER_PROMPT = re.compile(r"prompt|class_labels|embeds|attention_mask|image")
_NOT_PER_PROMPT = re.compile(r"ip_adapter|guidance|num_|processor|scale")
_COUNTED = ("prompt", "class_labels", "prompt_embeds", "image")

T = TypeVar("T")
Layout = Callable[[dict[str, Any], int], dict[str, Any]]
"""From the arguments for one image of a prompt to those for so many."""


class Images:
    """The arguments of calls that draw images of the prompts of one call.

    A pipeline is asked for several images by the number of images of a prompt; where it has none
    or ignores it, by repeating the prompt; and where it cannot do that either, one by one. Which
    way it takes shows at the first call. With an image to start from, the prompt and the image are
    repeated first: many pipelines encode an image once for all images of a prompt, with noise of
    the first generator.

    Args:
        pipe: a diffusers pipeline.
        arguments: of a call that draws one image of each prompt, by name.

    Attributes:
        prompts: how many there are; 1 where the pipeline has none.

    Raises:
        OptionError: for a number of images among the arguments.
    """

    def __init__(self, pipe: Any, arguments: dict[str, Any]) -> None:
        names = Host(pipe).parameters
        self._numbers = [name for name in names if _NUMBER.fullmatch(name)]
        for name in ("batch_size", *self._numbers):
            if arguments.get(name) is not None and name in names:
                raise OptionError(
                    named(
                        "{} is {!r}; leave it out: {num} says how many images of each prompt there "
                        "are to be, as in {num=8}",
                        name,
                        arguments[name],
                    )
                )
        self._arguments = arguments
        self.prompts = next((n for name in _COUNTED if (n := _length(arguments.get(name)))), 1)
        by_batch = "batch_size" in names and "prompt" not in names
        self._layouts: list[Layout] = [
            *([_by_batch_size] if by_batch else []),
            *([self._by_number] if self._numbers else []),
        ]
        pictured = any("image" in name and _is_per_prompt(name) for name in arguments)
        self._layouts.insert(0 if pictured else len(self._layouts), _repeated)

    def call(
        self, run: Callable[[dict[str, Any], int], T], prompt: int, seeds: Sequence[int]
    ) -> list[T]:
        """Call `run` with arguments that draw the images of some seeds, once or one by one.

        Args:
            run: takes arguments and the number of images that they ask for; raises ValueError or
                TypeError where it is not to be asked so.
            prompt: the number of the prompt.
            seeds: of the images.
        """
        one = self._of(prompt)
        while len(seeds) > 1 and self._layouts:
            asked = self._layouts[0](one, len(seeds))
            try:
                return [run({**asked, "generator": [seeded(s) for s in seeds]}, len(seeds))]
            except (ValueError, TypeError) as error:
                if isinstance(error, OptionError):
                    raise
                self._layouts.pop(0)  # its own checks refuse this; one image is refused by none
        return [run({**one, "generator": seeded(seed)}, 1) for seed in seeds]

    def _of(self, prompt: int) -> dict[str, Any]:
        """The arguments that draw one image of a prompt."""
        if self.prompts == 1:
            return self._arguments
        return {
            name: value[prompt : prompt + 1]
            if _is_per_prompt(name) and _length(value) == self.prompts
            else value
            for name, value in self._arguments.items()
        }

    def _by_number(self, arguments: dict[str, Any], images: int) -> dict[str, Any]:
        return {**arguments, self._numbers[0]: images}


def seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A new generator with this seed."""
    return torch.Generator(device).manual_seed(seed)


def lists_images(arguments: dict[str, Any], images: int) -> bool:
    """Whether each of several images starts from an image of its own."""
    return images > 1 and any(
        "image" in name and _is_per_prompt(name) and _length(value) == images
        for name, value in arguments.items()
    )


def _by_batch_size(arguments: dict[str, Any], images: int) -> dict[str, Any]:
    return {**arguments, "batch_size": images}


def _repeated(arguments: dict[str, Any], images: int) -> dict[str, Any]:
    """All that belongs to the prompt as often as there are images."""
    return {
        name: _times(value, images) if _is_per_prompt(name) else value
        for name, value in arguments.items()
    }


def _times(value: Any, images: int) -> Any:
    """A value for one prompt as one for each image; None and lists of several as they are."""
    if isinstance(value, Tensor) and len(value) == 1:
        return torch.cat([value] * images)
    if isinstance(value, list | tuple) and len(value) == 1:
        return list(value) * images
    return value if value is None or isinstance(value, bool) or _length(value) else [value] * images


def _is_per_prompt(name: str) -> bool:
    return bool(_PER_PROMPT.search(name)) and not _NOT_PER_PROMPT.search(name)


def _length(value: Any) -> int:
    """The number of prompts that an argument is for; 0 unless it is a list."""
    if isinstance(value, list | tuple) or (isinstance(value, Tensor) and value.ndim > 0):
        return len(value)
    return 0
