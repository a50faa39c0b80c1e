"""Folders of small pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (16, 16)) -> Image.Image:
    """Coloured noise of blocks, another for each seed."""
    blocks = torch.randint(
        256, (4, 4, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    ).numpy()
    return Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST)


def write(
    folder: Path, seeds: Sequence[int], *, size: tuple[int, int] = (16, 16), suffix: str = ".png"
) -> list[str]:
    """Pictures 00.png, 01.png … of these seeds, and their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{i:02}{suffix}" for i in range(len(seeds))]
    for name, seed in zip(names, seeds, strict=True):
        picture(seed, size).save(folder / name)
    return names


def pixels(folder: Path, names: Sequence[str]) -> torch.Tensor:
    """The pictures as they are on disk, (n, 3, h, w) in [0, 1]."""
    return (
        torch.stack(
            [
                torch.from_numpy(np.array(Image.open(folder / n).convert("RGB"))).permute(2, 0, 1)
                for n in names
            ]
        )
        / 255
    )
