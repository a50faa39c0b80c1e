"""Read inputs in batches, encode them, and pass the points on."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

import torch
from PIL import Image
from torch import Tensor

from unalike.errors import OptionError, StoreError
from unalike.runs.images import refusal
from unalike.runs.progress import Progress
from unalike.runs.shield.encoders import Encoder
from unalike.runs.shield.latents import LatentFile
from unalike.runs.shield.sources import Source

Take = Callable[[Tensor, list[str]], None]
"""Given points (m, …) and their names."""
Skipped = list[tuple[str, str]]
"""Names of images that could not be read, each with the reason."""


def all_names(sources: Sequence[Source | LatentFile]) -> list[str]:
    """The names of all inputs, in order."""
    return [name for source in sources for name in source.names]


def require_shapes(sources: Sequence[Source | LatentFile], encoder: Encoder) -> None:
    """Make sure that files of latents fit the space.

    Raises:
        OptionError: for one that does not.
    """
    flat = (torch.Size(encoder.shape).numel(),)
    for source in sources:
        if isinstance(source, LatentFile) and source.shape not in (encoder.shape, flat):
            raise OptionError(
                f"{str(source.path)!r} has latents of shape {source.shape}; allowed here: "
                f"{encoder.shape}, or flat, {flat}, "
                "as this model and size make them"
            )


def encode_all(
    sources: Sequence[Source | LatentFile],
    encoder: Encoder,
    take: Take,
    *,
    done: Set[str] = frozenset(),
    batch_size: int,
    skip_bad: bool,
    tell: Progress,
) -> Skipped:
    """Pass on the points of all inputs that are not done, in batches; return the unreadable ones.

    Args:
        sources: where they are.
        encoder: what encodes images.
        take: given each batch.
        done: names to leave out.
        batch_size: images encoded at a time.
        skip_bad: leave out what cannot be read.
        tell: called with the share that is done.

    Raises:
        StoreError: for images that cannot be read, all of them listed, unless `skip_bad`; what was
            handed on before stays. With it, where no input is left.
    """
    require_shapes(sources, encoder)
    names = all_names(sources)
    wanted = set(names) - set(done)
    job = _Job(encoder, take, len(names), len(names) - len(wanted), batch_size, skip_bad, tell)
    for source in sources:
        if isinstance(source, LatentFile):
            for own, points in source.batches(wanted):
                job.take(points, own)
        else:
            for item in source.read(wanted):
                job.image(item.name, item.image, item.reason)
    if not job.bad or skip_bad:
        job.encode()
    if job.bad and (not skip_bad or len(job.bad) == len(names)):
        raise StoreError(refusal("what was given", len(names), job.bad))
    return job.bad


class _Job:
    """One pass over the inputs: images that wait for their batch, and what is done."""

    def __init__(
        self,
        encoder: Encoder,
        take: Take,
        total: int,
        done: int,
        batch_size: int,
        skip_bad: bool,
        tell: Progress,
    ) -> None:
        self.bad: Skipped = []
        self._encoder = encoder
        self._take = take
        self._total = total
        self._done = done
        self._batch_size = batch_size
        self._skip_bad = skip_bad
        self._tell = tell
        self._names: list[str] = []
        self._images: list[Image.Image] = []

    def image(self, name: str, image: Image.Image | None, reason: str) -> None:
        if image is None:
            self.bad.append((name, reason))
            self._advance(1)
        elif (
            self._skip_bad or not self.bad
        ):  # after a refusal the rest is only read to list what else is bad
            self._names.append(name)
            self._images.append(image)
            if len(self._images) == self._batch_size:
                self.encode()
        else:
            self._advance(1)

    def encode(self) -> None:
        if self._images:
            self.take(self._encoder.encode(self._images), self._names)
            self._names, self._images = [], []

    def take(self, points: Tensor, names: list[str]) -> None:
        self._take(points, names)
        self._advance(len(names))

    def _advance(self, count: int) -> None:
        self._done += count
        self._tell(self._done / self._total, f"{self._done} of {self._total} images")
