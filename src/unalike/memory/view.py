"""The samples of a space as methods see them."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from unalike.guidance.protocols import References


@dataclass(frozen=True)
class View(References):
    """The samples of one space at one moment; later additions do not change it.

    Attributes:
        latents: (n, d) float32, oldest first.
        prompts: (n, p) float32 embeddings of their prompts, or None.
        numbers: (n,) what tells each sample from all others that the memory ever had, on the CPU.
    """

    numbers: Tensor = field(kw_only=True)
