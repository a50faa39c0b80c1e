"""Features of the images of a folder; unreadable images are listed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unalike.errors import NumericsError, StoreError
from unalike.extractors.base import Extractor
from unalike.images import UNREADABLE, read_image
from unalike.runs.images import reason, refusal


@dataclass(frozen=True)
class ImageSet:
    """The readable images of a folder.

    Attributes:
        folder: where they are.
        files: (n,) names relative to it.
        features: (n, d) float32.
        sizes: width × height → how many.
        skipped: files that could not be read, with the reason.
    """

    folder: Path
    files: Sequence[str]
    features: Tensor = field(repr=False)
    sizes: Counter[tuple[int, int]]
    skipped: Sequence[tuple[str, str]]

    def __len__(self) -> int:
        return len(self.files)


def extract(
    folder: Path,
    files: Sequence[str],
    extractor: Extractor,
    *,
    skip_bad: bool,
    tick: Callable[[], None],
) -> ImageSet:
    """Features of images of any sizes; images of one size are embedded together.

    Args:
        folder: where they are.
        files: names relative to it, at least one.
        extractor: what embeds them.
        skip_bad: leave out what cannot be read.
        tick: called after each image.

    Raises:
        StoreError: for images that cannot be read, all of them listed, unless `skip_bad`; with it,
            where none is left.
        NumericsError: for features that are not finite.
    """
    batches = _Batches(extractor)
    skipped: list[tuple[str, str]] = []
    sizes: Counter[tuple[int, int]] = Counter()
    for number, file in enumerate(files):
        try:
            image = read_image(folder / file)
        except UNREADABLE as error:
            skipped.append((file, reason(error, folder / file)))
        else:
            sizes[image.size] += 1
            if (
                skip_bad or not skipped
            ):  # after a refusal the rest is only read to list what else is bad
                batches.add(number, file, image)
        tick()
    if skipped and (not skip_bad or len(skipped) == len(files)):
        raise StoreError(refusal(repr(str(folder)), len(files), skipped))
    bad = {file for file, _ in skipped}
    return ImageSet(folder, [f for f in files if f not in bad], batches.features(), sizes, skipped)


class _Batches:
    """Collects images of each size until there are enough for a batch; never many more than a few
    batches in all.
    """

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor
        self._waiting: dict[tuple[int, int], list[tuple[int, str, Tensor]]] = defaultdict(list)
        self._found: dict[int, Tensor] = {}

    def add(self, number: int, file: str, image: Image.Image) -> None:
        pixels = torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1)
        waiting = self._waiting[image.size]
        waiting.append((number, file, pixels))
        if len(waiting) == self._extractor.batch_size:
            self._embed(image.size)
        elif sum(map(len, self._waiting.values())) >= 4 * self._extractor.batch_size:
            self._embed(max(self._waiting, key=lambda size: len(self._waiting[size])))

    def features(self) -> Tensor:
        for size in list(self._waiting):
            self._embed(size)
        return torch.stack([row for _, row in sorted(self._found.items())])

    def _embed(self, size: tuple[int, int]) -> None:
        numbers, files, pixels = zip(*self._waiting.pop(size), strict=True)
        try:
            rows = self._extractor.features(torch.stack(pixels).float() / 255)
        except NumericsError as error:
            raise NumericsError(f"{error} (images {files[0]} to {files[-1]})") from error
        self._found.update(zip(numbers, rows, strict=True))
