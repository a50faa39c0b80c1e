"""Save a memory to one safetensors file, and read it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unalike import tensorfile
from unalike.errors import StoreError
from unalike.memory.bank import COLUMNS, DTYPES, Bank

_KIND = "unalike.memory"
_VERSION = 1


def write(path: Path, capacity: int, dtype: str, banks: Mapping[str, Bank]) -> None:
    """Write the samples of all spaces, replacing what was there in one go or not at all.

    Raises:
        StoreError: when the file cannot be written.
    """
    tensors, spaces = {}, []
    for number, (space, bank) in enumerate(banks.items()):
        tensors |= {f"{number}.{name}": bank.rows(name) for name in COLUMNS}
        spaces.append(
            {
                "space": space,
                "shape": bank.shape,
                "texts": bank.texts[bank.start :],
                "seeds": bank.seeds[bank.start :],
            }
        )
    manifest = {"capacity": capacity, "dtype": dtype, "spaces": spaces}
    tensorfile.write(path, _KIND, _VERSION, manifest, tensors)


def read(path: Path) -> tuple[int, str, dict[str, Bank]]:
    """Read the capacity, the precision and the samples of each space that `write` wrote.

    Raises:
        StoreError: when there is no such file, it is damaged, or it is something else than a
            memory.
    """
    manifest, tensors = tensorfile.read(path, _KIND, _VERSION)
    try:
        capacity, dtype, spaces = manifest["capacity"], manifest["dtype"], manifest["spaces"]
        _require(type(capacity) is int and capacity > 0, f"capacity {capacity!r}")
        _require(dtype in DTYPES, f"dtype {dtype!r}")
        banks = {
            _text(entry["space"]): _bank(
                entry, {name: tensors[f"{number}.{name}"] for name in COLUMNS}, dtype
            )
            for number, entry in enumerate(spaces)
        }
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"the memory {str(path)!r} is damaged: its manifest does not fit its contents "
            f"({error}); use a backup"
        ) from error
    return capacity, dtype, banks


def _bank(entry: Mapping[str, Any], columns: dict[str, Tensor], dtype: str) -> Bank:
    shape, texts, seeds = entry["shape"], list(entry["texts"]), list(entry["seeds"])
    latents, prompts, order = (columns[name] for name in COLUMNS)
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
    return Bank(tuple(shape), dict(columns), 0, count, texts, seeds)


def _text(value: Any) -> str:
    _require(isinstance(value, str), f"space {value!r}")
    return value


def _require(fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(what)
