"""Buffers for the samples of one space."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.memory.labels import Label
from unalike.memory.mirror import Mirror
from unalike.memory.samples import Batch

_LEAST = 8


@dataclass
class Bank:
    """The samples of one space.

    Rows `start:stop` of the buffers are alive; labels are a list of the same layout.

    Attributes:
        buffers: latents (n, d), prompts (n, p), p being 0 without any, and numbers (n,).
        gone: how many samples it had that it has no longer.
        mirrors: copies on other devices.
    """

    shape: tuple[int, ...]
    buffers: dict[str, Tensor] = field(default_factory=dict)
    start: int = 0
    stop: int = 0
    labels: list[Label] = field(default_factory=list)
    gone: int = 0
    mirrors: dict[torch.device, Mirror] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.stop - self.start

    def rows(self, name: str) -> Tensor:
        """The living rows of a buffer, oldest first."""
        return self.buffers[name][self.start : self.stop]

    def living_labels(self) -> list[Label]:
        """The labels of the living rows, oldest first."""
        return self.labels[self.start : self.stop]

    @property
    def first(self) -> int:
        """The number of the oldest living sample."""
        return int(self.buffers["numbers"][self.start])

    def require(self, batch: Batch) -> None:
        """Refuse samples of another shape, or with embeddings of another size.

        Raises:
            OptionError: naming both.
        """
        kept, given = self.buffers["prompts"].shape[1], batch.prompts.shape[1]
        if batch.shape != self.shape:
            raise OptionError(
                f"latents have shape {batch.shape} and the memory's samples of {batch.space!r} "
                f"have {self.shape}; use another space name"
            )
        if given != kept:
            got, had = (f"embeddings of size {n}" if n else "no embeddings" for n in (given, kept))
            raise OptionError(
                f"prompts: {got} given and the memory's samples of {batch.space!r} have {had}; "
                "use another space name"
            )

    def fits(self, batch: Batch) -> bool:
        """Whether `require` would let a batch pass."""
        return (
            batch.shape == self.shape
            and batch.prompts.shape[1] == self.buffers["prompts"].shape[1]
            and batch.latents.dtype == self.buffers["latents"].dtype
        )

    def append(self, batch: Batch, numbers: Tensor) -> None:
        """Add rows at the end."""
        new = {"latents": batch.latents, "prompts": batch.prompts, "numbers": numbers}
        if not self.buffers or self.stop + len(batch) > len(self.buffers["numbers"]):
            self.reserve(max(_LEAST, 2 * (len(self) + len(batch))), new)
        for name, values in new.items():
            self.buffers[name][self.stop : self.stop + len(batch)] = values
        self.stop += len(batch)
        self.labels.extend(batch.labels)

    def reserve(self, size: int, like: dict[str, Tensor]) -> None:
        """Move the living rows to new buffers of `size` rows.

        Views of the old ones stay as they are.
        """
        alive = len(self)
        for name, values in like.items():
            buffer = values.new_empty(size, *values.shape[1:])
            if alive:
                buffer[:alive] = self.rows(name)
            self.buffers[name] = buffer
        self.labels = self.living_labels()
        self.start, self.stop = 0, alive

    def drop(self, count: int) -> list[Label]:
        """Drop the oldest rows, and return their labels."""
        dropped = self.labels[self.start : self.start + count]
        self.start += count
        self.gone += count
        return dropped

    def mirrored(self, device: torch.device) -> dict[str, Tensor]:
        """Latents and prompts of the living rows in float32 on a device."""
        if device not in self.mirrors:
            self.mirrors[device] = Mirror(device)
        columns = {name: self.rows(name) for name in ("latents", "prompts")}
        return self.mirrors[device].updated(columns, self.gone)
