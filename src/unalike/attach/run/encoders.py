"""Encoders that embed prompts in place of the pipeline: a function, or a network by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor

from unalike.errors import OptionError
from unalike.extractors.base import Extractor
from unalike.extractors.table import extractor

Encoder = Callable[[list[str]], Tensor]
"""`list of N prompts -> (N, p)`"""

PromptEncoder: TypeAlias = "str | Extractor | Encoder"
"""A function, or an extractor with a text tower or its name, such as "clip"."""


class ExtractorPrompts:
    """Use the text tower of an extractor as a prompt encoder.

    Attributes:
        extractor: that one.
        fingerprint: its own, which changes with its weights.

    Raises:
        OptionError: for an extractor that embeds images alone.
    """

    def __init__(self, extractor: Extractor) -> None:
        if type(extractor).prompt_features is Extractor.prompt_features:
            raise OptionError(
                f"prompt_encoder is {extractor.name!r}, which embeds images alone; allowed: clip, "
                "clip:FOLDER, or a function"
            )
        self.fingerprint = extractor.fingerprint
        self.extractor: Any = extractor

    def __call__(self, prompts: list[str]) -> Tensor:
        """Embed N prompts: (N, p)."""
        return self.extractor.prompt_features(prompts)


def prompt_encoder(given: PromptEncoder | None) -> Encoder | None:
    """Return the function that embeds prompts: the given one, or that of an extractor.

    Args:
        given: a function from N prompts to (N, p); an extractor of `unalike.extractors` with a text
            tower, or its name; None for none.

    Raises:
        OptionError: for anything else, and for a network that is neither here nor on the hub.
        StoreError: for a folder that cannot be loaded.

    Example:
        >>> prompt_encoder("pixels")
        Traceback (most recent call last):
            ...
        unalike.errors.OptionError: prompt_encoder is 'pixels', which embeds images alone; ...
    """
    if isinstance(given, str):
        given = extractor(given)
    if isinstance(given, Extractor):
        return ExtractorPrompts(given)
    if given is not None and not callable(given):
        raise OptionError(
            f"prompt_encoder is a {type(given).__name__}; allowed: a function from a list of "
            "prompts to embeddings (N, p), or 'clip'"
        )
    return given
