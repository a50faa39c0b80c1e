"""A batch of samples, and what may be given as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from unalike.errors import NumericsError, OptionError, shown
from unalike.memory.labels import Label, Mark, names, require_one_each, require_text
from unalike.options import plain_number
from unalike.tensors import real_numbers

DTYPES = {"float32": torch.float32, "float16": torch.float16}
"""The precisions in which samples may be stored."""


@dataclass(frozen=True)
class Batch:
    """Samples of one space.

    Attributes:
        space: its name.
        shape: of one sample.
        latents: (n, d) in the precision of the memory, on the CPU.
        prompts: (n, p) embeddings of the prompts; p is 0 without any.
        labels: one a sample.
    """

    space: str
    shape: tuple[int, ...]
    latents: Tensor
    prompts: Tensor
    labels: list[Label]

    def __len__(self) -> int:
        return len(self.labels)

    def taken(self, rows: Sequence[int]) -> Batch:
        """The batch of these rows alone."""
        if len(rows) == len(self):
            return self
        index = list(rows)
        return replace(
            self,
            latents=self.latents[index],
            prompts=self.prompts[index],
            labels=[self.labels[i] for i in index],
        )

    def after(self, begin: int) -> Batch:
        """The batch of the rows from `begin` on; nothing is copied."""
        return replace(
            self,
            latents=self.latents[begin:],
            prompts=self.prompts[begin:],
            labels=self.labels[begin:],
        )

    def rows(self) -> Iterator[tuple[Label, bytes, bytes]]:
        """Each label with the bytes of its latent and of its prompt embedding."""
        for label, latent, prompt in zip(self.labels, self.latents, self.prompts, strict=True):
            yield label, numbers_of(latent), numbers_of(prompt)


def numbers_of(row: Tensor) -> bytes:
    """The numbers of a tensor as bytes, as a file has them."""
    return row.contiguous().numpy().tobytes()


def checked_batch(
    space: str,
    latents: Tensor,
    prompts: Tensor | None,
    texts: Sequence[str | None] | None,
    seeds: Sequence[int | None] | None,
    *,
    dtype: str,
) -> tuple[Batch, list[tuple[str | None, int | None]]]:
    """A batch without labels, and the text and seed of each sample.

    Raises:
        OptionError: for sizes that do not fit each other, and for something else than tensors,
            texts and seeds.
        NumericsError: for NaN and infinity, and numbers too large or too small for the precision.
    """
    require_text("space", space)
    rows = _storable("latents", latents, dtype)
    count = len(rows)
    embeddings = rows.new_zeros(count, 0) if prompts is None else None
    if prompts is not None:
        embeddings = _storable("prompts", prompts, dtype)
    for name, values in (("prompts", prompts), ("texts", texts), ("seeds", seeds)):
        require_one_each(name, values, count)
    known = list(texts) if texts is not None else [None] * count
    for text in known:
        if text is not None and not isinstance(text, str):
            raise OptionError("texts has something else than text; give a list of prompts, or None")
        if text is not None:
            require_text("texts", text, empty=True)
    own = [None] * count if seeds is None else _checked_seeds(seeds)
    assert embeddings is not None
    batch = Batch(space, tuple(latents.shape[1:]), rows, embeddings, [])
    return batch, list(zip(known, own, strict=True))


def labelled(
    batch: Batch,
    known: Sequence[tuple[str | None, int | None]],
    items: Sequence[str] | None,
    places: Sequence[int] | None,
    mark: Mark | None,
) -> Batch:
    """The batch with the labels that `names` makes."""
    latents = [numbers_of(row) for row in batch.latents]
    return replace(batch, labels=names(batch.space, known, latents, items, places, mark))


def require_capacity(capacity: Any) -> None:
    """Refuse anything but a whole number above 0 as a capacity."""
    if not isinstance(capacity, int) or isinstance(capacity, bool) or capacity < 1:
        raise OptionError(
            f"capacity is {shown(capacity)}; allowed: a whole number at least 1, as in "
            "Memory(capacity=10_000)"
        )


def require_dtype(dtype: Any) -> None:
    """Refuse anything but the name of a precision."""
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise OptionError(
            f"dtype is {shown(dtype)}; allowed: 'float32' or 'float16', as in "
            "Memory(dtype='float32')"
        )


def _checked_seeds(seeds: Sequence[int | None]) -> list[int | None]:
    """Seeds as whole numbers of Python, which a file can hold."""
    numbers = [None if seed is None else plain_number(seed) for seed in seeds]
    for seed, number in zip(seeds, numbers, strict=True):
        if seed is not None and not isinstance(number, int):
            raise OptionError(
                f"seeds has {shown(seed)}; allowed: whole numbers and None, as in seeds=[1, 2]"
            )
    return cast("list[int | None]", numbers)


def _storable(name: str, values: Tensor, dtype: str) -> Tensor:
    numbers = real_numbers(name, values)
    if not isinstance(values, Tensor) or values.ndim < 2:
        got = (
            f"{values.dtype} of shape {tuple(values.shape)}"
            if isinstance(values, Tensor)
            else f"a {type(values).__name__}"
        )
        raise OptionError(
            f"{name} is {got}; allowed: a tensor with one row for each sample, as in add(space, "
            "latents)"
        )
    if 0 in values.shape[1:]:
        raise OptionError(
            f"{name} has shape {tuple(values.shape)}; allowed: at least one number a sample"
        )
    rows = numbers.flatten(1).to(device="cpu", dtype=DTYPES[dtype])
    if not torch.isfinite(rows).all():
        raise NumericsError(
            f"{name} has NaN or infinite values in {dtype}; nothing was added. "
            "Memory(dtype='float32') holds larger numbers"
        )
    if ((rows == 0).all(dim=1) & numbers.cpu().flatten(1).any(dim=1)).any():
        raise NumericsError(
            f"{name} has rows too small for {dtype}, which would become 0; nothing was added. "
            "Memory(dtype='float32') holds smaller numbers, and larger latents fit as they are"
        )
    return rows
