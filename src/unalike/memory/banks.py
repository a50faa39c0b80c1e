"""The samples of all spaces in RAM, up to a capacity."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from unalike.memory.bank import Bank
from unalike.memory.labels import Label
from unalike.memory.samples import DTYPES, Batch


class Banks:
    """At most `capacity` samples over all spaces; when more come, the oldest go first.

    Attributes:
        capacity, dtype: as of `Memory`.
        spaces: the bank of each space that has samples.
        held: the items of all samples.
        next: the number of the sample that comes next.
    """

    def __init__(self, capacity: int, dtype: str) -> None:
        self.clear(capacity, dtype)
        self.next = 0

    def __len__(self) -> int:
        return sum(len(bank) for bank in self.spaces.values())

    def clear(self, capacity: int, dtype: str) -> None:
        """Drop all samples; numbers are not used again."""
        self.capacity, self.dtype = capacity, dtype
        self.spaces: dict[str, Bank] = {}
        self.held: set[str] = set()

    def fresh(self, batch: Batch) -> Batch:
        """The samples whose items are not held, each once.

        Raises:
            OptionError: when the batch does not fit what its space holds.
        """
        bank = self.spaces.get(batch.space)
        if bank is not None:
            bank.require(batch)
        rows = {label.item: i for i, label in reversed(list(enumerate(batch.labels)))}
        return batch.taken(sorted(i for item, i in rows.items() if item not in self.held))

    def append(self, batch: Batch, numbers: Tensor | None = None, *, room: int = 0) -> None:
        """Add samples that are newer than all others, and drop the oldest that are too many.

        A space whose samples have another shape loses those.

        Args:
            batch: whose items are not held.
            numbers: (n,) of the samples; None to count on.
            room: how many samples of the space are known to come.
        """
        if not len(batch):
            return
        if numbers is None:
            numbers = torch.arange(self.next, self.next + len(batch))
        bank = self.spaces.get(batch.space)
        if bank is not None and not bank.fits(batch):
            self._forget(bank.living_labels())
            bank = None
        if bank is None:
            bank = self.spaces[batch.space] = Bank(batch.shape)
            columns = {"latents": batch.latents, "prompts": batch.prompts, "numbers": numbers}
            if room > len(batch):
                bank.reserve(room, columns)
        bank.append(batch, numbers)
        self.held.update(label.item for label in batch.labels)
        self.next = int(numbers[-1]) + 1
        self.evict()

    def load(self, spaces: list[tuple[Batch, Tensor]]) -> None:
        """Take the samples of spaces that are not there yet, with their numbers."""
        for batch, numbers in spaces:
            bank = self.spaces[batch.space] = Bank(batch.shape)
            bank.append(batch, numbers)
            self.held.update(label.item for label in batch.labels)
            self.next = max(self.next, int(numbers[-1]) + 1)
        self.evict()

    def evict(self) -> None:
        """Drop the oldest samples that are more than the capacity."""
        excess = len(self) - self.capacity
        while excess > 0:
            space, oldest = min(self.spaces.items(), key=lambda entry: entry[1].first)
            others = [bank.first for bank in self.spaces.values() if bank is not oldest]
            count = len(oldest)
            if others:  # up to the first that is younger than one of another space
                count = int(torch.searchsorted(oldest.rows("numbers"), min(others)))
            count = min(count, excess)
            self._forget(oldest.drop(count))
            excess -= count
            if not len(oldest):
                del self.spaces[space]

    def remove(self, matches: Callable[[Label], bool]) -> int:
        """Drop samples by their labels, and return how many."""
        count = 0
        for space, bank in list(self.spaces.items()):
            labels = bank.living_labels()
            gone = [label for label in labels if matches(label)]
            if not gone:
                continue
            kept = [i for i, label in enumerate(labels) if not matches(label)]
            batch, numbers = self._whole(space, bank)
            self._forget(gone)
            count += len(gone)
            del self.spaces[space]
            if kept:
                again = self.spaces[space] = Bank(bank.shape)
                again.append(batch.taken(kept), numbers[kept])
        return count

    def contents(self) -> Iterator[tuple[Batch, Tensor]]:
        """The samples of each space with their numbers."""
        for space, bank in self.spaces.items():
            yield self._whole(space, bank)

    def labels(self) -> list[Label]:
        """The labels of all samples, oldest first."""
        found = [
            (number, label)
            for bank in self.spaces.values()
            for number, label in zip(
                bank.rows("numbers").tolist(), bank.living_labels(), strict=True
            )
        ]
        return [label for _, label in sorted(found, key=lambda entry: entry[0])]

    def _whole(self, space: str, bank: Bank) -> tuple[Batch, Tensor]:
        rows = Batch(
            space, bank.shape, bank.rows("latents"), bank.rows("prompts"), bank.living_labels()
        )
        return rows, bank.rows("numbers")

    def _forget(self, labels: list[Label]) -> None:
        self.held.difference_update(label.item for label in labels)


def same_dtype(batch: Batch, dtype: str) -> bool:
    """Whether a batch has the precision of that name."""
    return batch.latents.dtype == DTYPES[dtype]
