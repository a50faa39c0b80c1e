"""Protected sets of a few small vectors on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unalike.shields.bounds import Index
from unalike.shields.layered import Layered
from unalike.shields.manifest import Manifest
from unalike.shields.store import Opened
from unalike.shields.writer import Writer

SHAPE = (2, 3)
SETTINGS: dict[str, Any] = {"space": "model/2x3", "shape": SHAPE}
FOUR_ROWS = 256 + 4 * 6 * 4  # bytes of a shard that has room for four rows in float32


def latents(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def names(count: int) -> list[str]:
    return [f"{i:03}.png" for i in range(count)]


def fill(writer: Writer, vectors: Tensor, own: Sequence[str], batch: int) -> None:
    """Add what is not in yet."""
    left = [i for i, name in enumerate(own) if name not in writer.done]
    for start in range(0, len(left), batch):
        part = left[start : start + batch]
        writer.add(vectors[part], [own[i] for i in part])


def build(
    folder: Path,
    vectors: Tensor,
    *,
    batch: int = 3,
    radius: float = 1.0,
    own: Sequence[str] | None = None,
    **settings: Any,
) -> Manifest:
    with Writer.begin(folder, **{**SETTINGS, "shard_bytes": FOUR_ROWS, **settings}) as writer:
        fill(writer, vectors, own or names(len(vectors)), batch)
        return writer.finish(radius=radius)


def all_rows(opened: Opened) -> np.ndarray:
    return np.concatenate([block for _, block in opened.vectors.blocks(5)])


def nearest_is_itself(opened: Opened) -> bool:
    """Whether the search that was stored with a set finds each of its rows."""
    rows = all_rows(opened).astype(np.float64)
    index, distance = Layered(opened.vectors, Index.from_tensors(opened.index)).nearest(rows)
    return index.tolist() == list(range(len(rows))) and not distance.any()
