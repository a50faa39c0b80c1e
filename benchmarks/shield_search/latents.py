"""The protected set of the benchmark: latents with a natural spectrum, as many as are asked for, in
float16 shards on the disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.base import Progress
from benchmarks.shield_search.pictures import Kinds, picture
from unalike import tensorfile
from unalike.pipelines.loading import load
from unalike.shields.vectors import TENSOR, Mapped

MODEL = "emoji"
SHAPE = (16, 16, 16)
DIMENSION = 4_096
_ENCODED, _SHARD = ("benchmarks.encoded", 1), ("benchmarks.latents", 1)
_PART = 250  # images encoded between two files, so that little is lost at Ctrl-C
_CUTS = range(5, 12)  # columns or rows of 16 that a collage takes from the first image


@dataclass(frozen=True)
class SetSize:
    """How the set is made: images of each kind, and rows in a shard of collages."""

    kinds: Kinds
    shard: int = 25_000


def encoded(folder: Path, size: SetSize, progress: Progress) -> Tensor:
    """The latents (m, 4096) float16 of all images, in the order of `Kinds.counts`, encoded where
    the folder lacks them.

    The encoder runs in bfloat16, for speed: what it gives is the set, whatever its rounding.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [
        (kind, number) for kind, count in size.kinds.counts().items() for number in range(count)
    ]
    parts, pipe = [], None
    for i, first in enumerate(range(0, len(wanted), _PART)):
        own = wanted[first : first + _PART]
        path = folder / f"encoded-{i:03d}.safetensors"
        if not path.is_file():
            progress(first / len(wanted))
            pipe = pipe or load(MODEL)
            latents = _encode(pipe, own)
            tensorfile.write(path, *_ENCODED, {"pictures": own}, {TENSOR: latents})
        parts.append(tensorfile.read(path, *_ENCODED)[1][TENSOR])
    return torch.cat(parts)


@torch.no_grad()
def _encode(pipe: object, pictures: list[tuple[str, int]]) -> Tensor:
    vae = pipe.vae.bfloat16()  # type: ignore[attr-defined]
    found = []
    for first in range(0, len(pictures), 10):
        pixels = torch.stack([picture(*which) for which in pictures[first : first + 10]])
        found.append(
            vae.encode((2 * pixels - 1).bfloat16()).latent_dist.mode() * vae.config.scaling_factor
        )
    return torch.cat(found).flatten(1).half()


def shards(folder: Path, base: Tensor, count: int, size: SetSize, progress: Progress) -> Mapped:
    """The first `count` rows of the set: the encoded images themselves, then collages of two,
    written where the folder lacks them.

    Shard by shard with a seed of its own, so that a shorter set is the beginning of a longer one
    and an interrupted run goes on.
    """
    paths = []
    for i, first in enumerate(range(0, count, size.shard)):
        path = folder / f"vectors-{size.shard}-{i:04d}.safetensors"
        if not path.is_file():
            progress(first / count)
            rows = collages(base, size.shard, seed=i)
            own = base[first : first + size.shard]
            rows[: len(own)] = own
            tensorfile.write(path, *_SHARD, {"first": first}, {TENSOR: rows})
        paths.append(path)
    # All shards are whole, and a set that ends inside one would need a file of its own.
    return Mapped([(path, size.shard) for path in paths], DIMENSION, "float16")


def collages(base: Tensor, count: int, *, seed: int) -> Tensor:
    """Latents (count, 4096) float16: the left or upper part of one image's latent with the rest
    of another's, each mirrored or not.

    Latents of a convolutional autoencoder are local, so that a collage is close to the latent of
    the image that is joined likewise. The cut lies after 5 to 11 of the 16 rows or columns.
    """
    generator = torch.Generator().manual_seed(seed)
    grid = base.view(-1, *SHAPE)
    first = torch.randint(len(grid), (count,), generator=generator)
    second = (first + torch.randint(1, len(grid), (count,), generator=generator)) % len(grid)
    form = torch.randint(8 * len(_CUTS), (count,), generator=generator)
    made = torch.empty(count, *SHAPE, dtype=base.dtype)
    for number, (cut, across, mirrored) in enumerate(_forms()):
        own = (form == number).nonzero().flatten()
        one, other = (
            grid[chosen[own]].flip(-1) if flip else grid[chosen[own]]
            for chosen, flip in zip((first, second), mirrored, strict=True)
        )
        axis = 3 if across else 2
        made[own] = torch.cat(
            [one.narrow(axis, 0, cut), other.narrow(axis, cut, SHAPE[-1] - cut)], dim=axis
        )
    return made.flatten(1)


def _forms() -> Iterator[tuple[int, bool, tuple[bool, bool]]]:
    for cut in _CUTS:
        for across in (True, False):
            for mirrored in ((False, False), (False, True), (True, False), (True, True)):
                yield cut, across, mirrored
