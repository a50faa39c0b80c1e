"""Storage of a method for each prompt, from call to call of one guided pipeline."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from unalike.guidance.context import Context

_SAME = 1 - 1e-5
_PROMPTS = 256


class PromptStream:
    """A value for each prompt in `Context.stream`, for the 256 prompts that were last stored.

    Prompts are told by their embeddings, which are equal but for rounding; without embeddings all
    images are of one prompt.

    Args:
        context: of the running call.

    Example:
        >>> import torch
        >>> from unalike.guidance.level import Level
        >>> x, level = torch.zeros(2, 1), Level(0.0, 1.0, 0.0, 1.0)
        >>> context = Context(0, 1, level, x, torch.tensor([0, 1]), prompts=torch.eye(2))
        >>> PromptStream(context).put(1, "second")
        >>> PromptStream(context).get(0), PromptStream(context).get(1)
        (None, 'second')
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def get(self, image: int) -> Any:
        """The value of the prompt of this image; None where there is none."""
        own = self._prompt(image)
        return next((value for prompt, value in self._entries if _same(prompt, own)), None)

    def put(self, image: int, value: Any) -> None:
        """Store the value of the prompt of this image; None removes it."""
        own = self._prompt(image)
        entries = [entry for entry in self._entries if not _same(entry[0], own)]
        added = [] if value is None else [(own, value)]
        self._context.stream["prompts"] = tuple([*entries, *added][-_PROMPTS:])

    @property
    def _entries(self) -> tuple[tuple[Tensor | None, Any], ...]:
        return self._context.stream.get("prompts", ())

    def _prompt(self, image: int) -> Tensor | None:
        prompts = self._context.prompts
        return None if prompts is None else prompts[image].float().cpu()


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and float(a @ b) > _SAME * float(a.norm() * b.norm())
