"""Read the memories of earlier releases: one safetensors file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unalike import tensorfile
from unalike.errors import StoreError
from unalike.memory.labels import Label, item_of
from unalike.memory.samples import DTYPES, Batch, numbers_of

_KIND = "unalike.memory"
_VERSION = 1
_COLUMNS = ("latents", "prompts", "order")


@dataclass(frozen=True)
class Old:
    """A memory of an earlier release.

    Attributes:
        capacity, dtype: as of `Memory`.
        spaces: the samples of each space with their numbers (n,), which count from 0.
    """

    capacity: int
    dtype: str
    spaces: list[tuple[Batch, Tensor]]

    def contents(self) -> Iterator[tuple[Batch, Tensor]]:
        """The samples with the ids that a database gives them, which count from 1."""
        for batch, numbers in self.spaces:
            yield batch, numbers + 1


def read(path: Path) -> Old:
    """Read the capacity, the precision and the samples of each space; equal samples once.

    Raises:
        StoreError: when there is no such file, it is damaged, or it is something else than a
            memory.
    """
    manifest, tensors = tensorfile.read(path, _KIND, _VERSION)
    created = path.stat().st_mtime
    try:
        capacity, dtype, spaces = manifest["capacity"], manifest["dtype"], manifest["spaces"]
        _require(type(capacity) is int and capacity > 0, f"capacity {capacity!r}")
        _require(dtype in DTYPES, f"dtype {dtype!r}")
        found = [
            _space(entry, {name: tensors[f"{number}.{name}"] for name in _COLUMNS}, dtype, created)
            for number, entry in enumerate(spaces)
        ]
        names = [batch.space for batch, _ in found]
        _require(len(set(names)) == len(names), "a space that is there twice")
        everything = torch.cat([numbers for _, numbers in found]) if found else torch.zeros(0)
        _require(len(everything.unique()) == len(everything), "an order that repeats")
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"the memory {str(path)!r} is damaged: its manifest does not fit its contents "
            f"({error}); use a backup"
        ) from error
    return Old(capacity, dtype, found)


def _space(
    entry: Mapping[str, Any], columns: dict[str, Tensor], dtype: str, created: float
) -> tuple[Batch, Tensor]:
    space, shape = _text(entry["space"]), entry["shape"]
    texts, seeds = list(entry["texts"]), list(entry["seeds"])
    latents, prompts, order = (columns[name] for name in _COLUMNS)
    _require(all(type(n) is int and n > 0 for n in shape), f"shape {shape!r}")
    _require(latents.ndim == prompts.ndim == 2 and order.ndim == 1, "tensors of another shape")
    count = len(order)
    _require(
        count > 0 and {len(latents), len(prompts), len(texts), len(seeds)} == {count},
        "sizes that differ",
    )
    _require(latents.shape[1] == math.prod(shape), f"shape {shape!r}")
    _require(
        latents.dtype == prompts.dtype == DTYPES[dtype] and order.dtype == torch.int64,
        f"tensors that are not in {dtype}",
    )
    _require(bool(latents.isfinite().all() and prompts.isfinite().all()), "NaN or infinity")
    _require(bool((order.diff() > 0).all() and order[0] >= 0), "an order that does not rise")
    _require(all(text is None or isinstance(text, str) for text in texts), "texts")
    _require(all(seed is None or type(seed) is int for seed in seeds), "seeds")
    labels: dict[str, tuple[int, Label]] = {}
    for i, (text, seed) in enumerate(zip(texts, seeds, strict=True)):
        item = item_of(space, text, seed, numbers_of(latents[i]))
        labels.setdefault(item, (i, Label(text, seed, item, None, created)))
    kept = [i for i, _ in labels.values()]
    batch = Batch(
        space, tuple(shape), latents[kept], prompts[kept], [label for _, label in labels.values()]
    )
    return batch, order[kept]


def _text(value: Any) -> str:
    _require(isinstance(value, str) and bool(value), f"space {value!r}")
    return value


def _require(fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(what)
