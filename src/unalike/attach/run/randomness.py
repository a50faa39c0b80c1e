"""Random numbers of a call: noise for the methods, and the seeds that are worth recording.

Everything derives from the state that the caller's generators are in when the call begins, and is
computed on copies: the host draws from the generators as it does without guidance.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_MULTIPLIER = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio


@dataclass(frozen=True)
class _Source:
    """One generator of a call as it was when the call began."""

    generator: torch.Generator
    state: bytes
    seed: int | None  # None where numbers were drawn since it was seeded

    @classmethod
    def of(cls, generator: torch.Generator) -> _Source:
        state, seed = state_of(generator), generator.initial_seed()
        fresh = state == state_of(torch.Generator(generator.device).manual_seed(seed))
        return cls(generator, state, seed if fresh else None)

    @property
    def drawn_from(self) -> bool:
        """Whether numbers were drawn since the call began."""
        return state_of(self.generator) != self.state


class Randomness:
    """Derives the methods' noise from a pipeline's `generator` argument.

    An image with a generator of its own has noise that depends on that generator's state alone, so
    it is the same in any batch; a fresh generator counts by its seed. Images that share a generator
    are told apart by their place. Where the host draws nothing from the generator before the first
    step (explicit `latents`), and without a generator, the first noisy latents count too.

    Args:
        generator: one, one for each image, or None for torch's global one.
    """

    def __init__(self, generator: Any = None) -> None:
        self._sources = [_Source.of(g) for g in _listed(generator)]
        self._seeds: list[int] | None = None
        self._global = b"" if self._sources else torch.get_rng_state().numpy().tobytes()

    @classmethod
    def of_seeds(cls, seeds: Sequence[int]) -> Randomness:
        """The random numbers of images with these seeds, for hosts without generators."""
        result = cls([])
        result._seeds = list(seeds)
        return result

    def seeds(self, images: int) -> list[int | None] | None:
        """The seed that each image can be drawn from again; None for an image without one.

        That is the seed of a generator that was fresh and serves this image alone. None for all
        where there are no generators, or not one for each image.
        """
        if self._seeds is not None:
            return list(self._seeds)
        if len(self._sources) != images:
            return None
        uses = Counter(id(s.generator) for s in self._sources)
        return [s.seed if uses[id(s.generator)] == 1 else None for s in self._sources]

    def generators(self, x_t: Tensor) -> list[torch.Generator]:
        """A new CPU generator for each image, for the methods' own draws.

        Args:
            x_t: the noisy latents (B, …) of the first step.
        """
        return [torch.Generator().manual_seed(_mixed(key)) for key in self._keys(x_t)]

    def _keys(self, x_t: Tensor) -> list[int]:
        images, sources = len(x_t), self._sources
        if self._seeds is not None:
            return self._seeds
        if not sources:
            return [_digest(self._global, i, _bytes(x_t[i])) for i in range(images)]
        if len(sources) == images:
            places = occurrences([s.generator for s in sources])
            each = list(zip(sources, places, strict=True))
        elif len(sources) == 1:
            each = [(sources[0], i) for i in range(images)]
        else:
            joint = b"".join(s.state for s in sources)
            return [_digest(joint, i, _bytes(x_t[i])) for i in range(images)]
        return [
            _key(source, place, b"" if source.drawn_from else _bytes(x_t[i]))
            for i, (source, place) in enumerate(each)
        ]


def copied(generator: Any) -> Any:
    """Copies of a pipeline's `generator` argument, one or a list, in the states that they are in;
    None for None. An object that is repeated in the list is repeated in the copy.
    """
    if isinstance(generator, list | tuple):
        copies = {id(g): copied(g) for g in generator}
        return [copies[id(g)] for g in generator]
    return generator.clone_state() if isinstance(generator, torch.Generator) else generator


def derived_seed(generator: torch.Generator, *place: int | None) -> int:
    """A seed (below 2**63) from a generator's state and some numbers; the generator stays as it is.

    Example:
        >>> seeds = [derived_seed(torch.Generator().manual_seed(7), n) for n in (1, 1, 2)]
        >>> seeds[0] == seeds[1], seeds[0] == seeds[2]
        (True, False)
    """
    text = "".join(f" {number}" for number in place)
    digest = hashlib.sha256(state_of(generator) + text.encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def advance(generators: Sequence[torch.Generator]) -> None:
    """Draw a number from each generator, so that a later call finds it in another state.

    Example:
        >>> generator = torch.Generator().manual_seed(7)
        >>> before = derived_seed(generator, 1)
        >>> advance([generator, generator])
        >>> derived_seed(generator, 1) == before
        False
    """
    for generator in {id(g): g for g in generators}.values():
        torch.rand(1, generator=generator, device=generator.device)


def state_of(generator: torch.Generator) -> bytes:
    """The state of a generator."""
    return generator.get_state().numpy().tobytes()


def _listed(generator: Any) -> list[torch.Generator]:
    given = generator if isinstance(generator, list | tuple) else [generator]
    return list(given) if all(isinstance(g, torch.Generator) for g in given) else []


def occurrences(objects: Sequence[object]) -> list[int]:
    """For each object how many times it stands earlier in the sequence.

    Example:
        >>> a, b = object(), object()
        >>> occurrences([a, b, a])
        [0, 0, 1]
    """
    seen: Counter[int] = Counter()
    result = []
    for one in objects:
        result.append(seen[id(one)])
        seen[id(one)] += 1
    return result


def _key(source: _Source, place: int, start: bytes) -> int:
    if source.seed is not None and place == 0 and not start:
        return source.seed
    return _digest(source.state, place, start)


def _digest(state: bytes, place: int, start: bytes) -> int:
    digest = hashlib.sha256(state + f" {place} ".encode() + start).digest()
    return int.from_bytes(digest[:8], "little")


def _mixed(key: int) -> int:
    """A seed far from those of neighbouring keys, and from the seed of the starting noise."""
    return (key * _MULTIPLIER + 1) % 2**63


def _bytes(latent: Tensor) -> bytes:
    return latent.detach().float().cpu().contiguous().numpy().tobytes()
