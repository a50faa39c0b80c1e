"""Buffers for the samples of one space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unalike.errors import OptionError

DTYPES = {"float32": torch.float32, "float16": torch.float16}
"""The precisions in which samples may be stored."""
COLUMNS = ("latents", "prompts", "order")
"""Stored tensors: latents (n, d), prompts (n, p), p being 0 without any, and order (n,)."""


@dataclass
class Bank:
    """The samples of one space.

    Rows `start:stop` of the buffers are alive; texts and seeds are lists of the same layout.
    """

    shape: tuple[int, ...]
    buffers: dict[str, Tensor] = field(default_factory=dict)
    start: int = 0
    stop: int = 0
    texts: list[str | None] = field(default_factory=list)
    seeds: list[int | None] = field(default_factory=list)

    def __len__(self) -> int:
        return self.stop - self.start

    def rows(self, name: str) -> Tensor:
        return self.buffers[name][self.start : self.stop]

    def require(self, space: str, shape: tuple[int, ...], prompt_size: int | None) -> None:
        kept = self.buffers["prompts"].shape[1]
        if shape != self.shape:
            raise OptionError(
                f"latents have shape {shape} and the memory's samples of {space!r} have "
                f"{self.shape}; use another space name"
            )
        if (prompt_size or 0) != kept:
            got, had = (
                f"embeddings of size {n}" if n else "no embeddings"
                for n in (prompt_size or 0, kept)
            )
            raise OptionError(
                f"prompts: {got} given and the memory's samples of {space!r} have {had}; use "
                "another space name"
            )

    def append(
        self, new: dict[str, Tensor], texts: list[str] | None, seeds: Sequence[int | None] | None
    ) -> None:
        count = len(new["latents"])
        new = {"prompts": new["latents"].new_zeros(count, 0), **new}
        if not self.buffers or self.stop + count > len(self.buffers["order"]):
            self._make_room(count, new)
        for name, values in new.items():
            self.buffers[name][self.stop : self.stop + count] = values
        self.stop += count
        self.texts.extend(texts if texts is not None else [None] * count)
        self.seeds.extend(seeds if seeds is not None else [None] * count)

    def _make_room(self, count: int, like: dict[str, Tensor]) -> None:
        """Move the living rows to new buffers of twice the size.

        Views of the old ones stay as they are.
        """
        alive, size = len(self), max(8, 2 * (len(self) + count))
        for name, values in like.items():
            buffer = (
                values.new_empty(size, values.shape[1])
                if values.ndim == 2
                else values.new_empty(size)
            )
            if alive:
                buffer[:alive] = self.rows(name)
            self.buffers[name] = buffer
        self.texts, self.seeds = self.texts[self.start :], self.seeds[self.start :]
        self.start, self.stop = 0, alive

    def drop(self, count: int) -> None:
        self.start += count
