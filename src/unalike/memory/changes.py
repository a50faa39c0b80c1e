"""What one memory has and a copy of it elsewhere lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unalike.memory.banks import Banks
from unalike.memory.samples import Batch


class Position(NamedTuple):
    """How far a copy has followed a memory.

    Attributes:
        source: names the opened memory; another one begins anew.
        epoch: rises whenever samples are removed or the capacity changes.
        next: the number of the sample that comes next.
    """

    source: str
    epoch: int
    next: int


@dataclass(frozen=True)
class Changes:
    """The samples that a copy lacks.

    Attributes:
        position: of the copy once it has these.
        whole: whether the copy loses what it has first.
        capacity, dtype: of the memory.
        spaces: new samples with their numbers.
    """

    position: Position
    whole: bool
    capacity: int
    dtype: str
    spaces: list[tuple[Batch, Tensor]]

    def __len__(self) -> int:
        return sum(len(batch) for batch, _ in self.spaces)

    @property
    def bytes(self) -> int:
        """The size of their numbers."""
        return sum(b.latents.nbytes + b.prompts.nbytes for b, _ in self.spaces)


def changes(banks: Banks, now: Position, since: Position | None) -> Changes:
    """The changes of banks since a copy was at a position; None for a copy that has nothing."""
    whole = since is None or since[:2] != now[:2]
    first = 0 if whole or since is None else since.next
    found = [(batch, numbers) for batch, numbers in _newer(banks, first) if len(batch)]
    return Changes(now, whole, banks.capacity, banks.dtype, found)


def follow(banks: Banks, found: Changes) -> None:
    """Bring the banks of a copy up to date."""
    if found.whole:
        banks.clear(found.capacity, found.dtype)
        banks.load(found.spaces)
        return
    for batch, numbers in found.spaces:
        banks.append(batch, numbers)


def commits(banks: Banks, since: Position) -> int:
    """How many batches were added since a position; those that were removed do not count."""
    newer = _newer(banks, since.next)
    return len({(label.run, label.created) for batch, _ in newer for label in batch.labels})


def _newer(banks: Banks, first: int) -> list[tuple[Batch, Tensor]]:
    """The samples of each space from a number on."""
    found = []
    for batch, numbers in banks.contents():
        begin = int(torch.searchsorted(numbers, first))
        rows = batch if not begin else batch.after(begin)
        found.append((rows, numbers[begin:]))
    return found
