"""Which part of the memory a prompt belongs to: that of the prompts which are most like it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from typing import Self

import torch
from torch import Tensor

from unalike.runs.plan import batches
from unalike.runs.samples import Planned

_SIZE, _MOST, _ROUNDS = 256, 2000, 8


@dataclass(frozen=True)
class Sharding:
    """Assigns prompts to the shards of a memory by their words.

    Methods weigh an earlier image by how like its prompt is, so that those of other shards would
    count little. Images of one prompt are always in one shard, and those of one group.

    Args:
        centres: one text for each shard, or none for a single shard.
        grouped: the shard of each prompt of a group.

    Example:
        >>> sharding = Sharding(("a red heart", "a black dog"))
        >>> [sharding.of(text) for text in ("heart, red", "two dogs, one black", "a dog")]
        [0, 1, 1]
    """

    centres: tuple[str, ...] = ()
    grouped: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_plan(cls, plan: Iterable[Planned], count: int) -> Self:
        """Choose the centres among the prompts of a run: each far from those before it.

        Args:
            plan: all images.
            count: of shards; there are fewer where there are fewer prompts.
        """
        firsts: dict[str, str] = {}  # group → its first prompt
        members: dict[str, str] = {}  # prompt → the first prompt of its group
        texts: dict[str, None] = {}
        for planned in plan:
            texts[planned.prompt] = None
            if planned.group is not None:
                first = firsts.setdefault(planned.group, planned.prompt)
                members.setdefault(planned.prompt, first)
        single = cls(_far_apart(list(texts)[:_MOST], count))
        return cls(single.centres, {text: single.of(first) for text, first in members.items()})

    @property
    def count(self) -> int:
        """How many shards there are."""
        return max(1, len(self.centres))

    def of(self, text: str) -> int:
        """The shard of a prompt: that of the nearest centre."""
        found = self.grouped.get(text)
        if found is not None or not self.centres:
            return found or 0
        return int((self._vectors @ _vector(text)).argmax())

    def keeps(self, shard: int, text: str | None) -> bool:
        """Whether a shard has samples of a prompt; all have those without one."""
        return text is None or self.of(text) == shard

    def batches(self, plan: Sequence[Planned], size: int) -> list[list[Planned]]:
        """The images that are drawn together: of one shard each, the shards in turn."""
        own: list[list[Planned]] = [[] for _ in range(self.count)]
        shards = {text: self.of(text) for text in {planned.prompt for planned in plan}}
        for planned in plan:
            own[shards[planned.prompt]].append(planned)
        turns = zip_longest(*(batches(images, size) for images in own))
        return [batch for turn in turns for batch in turn if batch]

    @cached_property
    def _vectors(self) -> Tensor:
        return torch.stack([_vector(text) for text in self.centres])


def _far_apart(texts: Sequence[str], count: int) -> tuple[str, ...]:
    """Texts that are far from each other, beginning with the first; none where one is enough."""
    if count < 2 or len(texts) < 2:
        return ()
    vectors = torch.stack([_vector(text) for text in texts])
    chosen = [0]
    nearest = vectors @ vectors[0]
    while len(chosen) < min(count, len(texts)):
        chosen.append(int(nearest.argmin()))
        nearest = torch.maximum(nearest, vectors @ vectors[chosen[-1]])
    return tuple(texts[i] for i in chosen)


def _vector(text: str) -> Tensor:
    """The counts of a text's words, and of their beginnings, as a unit vector."""
    counts = torch.zeros(_SIZE)
    for word in text.lower().replace(",", " ").split():
        for part in {word, word[:4]}:
            counts[zlib.crc32(part.encode()) % _SIZE] += 1
    return counts / counts.norm().clamp_min(1)
