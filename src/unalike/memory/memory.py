"""A bounded bank of earlier generations that outlives the process."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor

from unalike.errors import NumericsError, OptionError, shown
from unalike.guidance.protocols import References
from unalike.memory import file
from unalike.memory.bank import DTYPES, Bank
from unalike.options import plain_number
from unalike.tensors import real_numbers

_LOCK = threading.RLock()  # guided calls in several threads may share a memory


class Memory:
    """The final latents of earlier generations and the embeddings of their prompts, by space.

    Holds at most `capacity` samples over all spaces together; when more come, the oldest go first,
    whatever their space. Adding a batch costs O(B d) on average: rows are appended to a buffer that
    doubles when it is full, and evicted by moving its beginning.

    Args:
        capacity: the most samples it holds.
        dtype: "float32", or "float16" for half the space; what is compared is float32 in both
            cases.

    Raises:
        OptionError: for a capacity below 1 or another dtype.

    Example:
        >>> memory = Memory(capacity=3)
        >>> memory.add("model/2", torch.eye(2), texts=["cat", "dog"])
        >>> memory.add("model/2", torch.zeros(2, 2), texts=["owl", "fox"])
        >>> len(memory), memory.texts("model/2")
        (3, ['dog', 'owl', 'fox'])
        >>> memory.view("model/2").latents.shape
        torch.Size([3, 2])
    """

    def __init__(self, capacity: int = 10_000, dtype: str = "float32") -> None:
        _require_capacity(capacity)
        if dtype not in DTYPES:
            raise OptionError(
                f"dtype is {dtype!r}; allowed: 'float32' or 'float16', as in "
                "Memory(dtype='float32')"
            )
        self.capacity = capacity
        self.dtype = dtype
        self._banks: dict[str, Bank] = {}
        self._added = 0

    def __len__(self) -> int:
        return sum(len(bank) for bank in self._banks.values())

    def __repr__(self) -> str:
        spaces = ", ".join(self._banks) or "none"
        return f"Memory({len(self)} of {self.capacity} samples, {self.dtype}, spaces: {spaces})"

    def spaces(self) -> dict[str, int]:
        """Number of samples by space."""
        return {space: len(bank) for space, bank in self._banks.items()}

    def add(
        self,
        space: str,
        latents: Tensor,
        *,
        prompts: Tensor | None = None,
        texts: list[str] | None = None,
        seeds: Sequence[int | None] | None = None,
    ) -> None:
        """Append a batch; all of it or, where something is wrong, nothing.

        Args:
            space: names the latent space and that of the prompt embeddings.
            latents: final clean latents (B, …).
            prompts: embeddings (B, p) of their prompts, or None; the same choice for all of a
                space.
            texts: the prompts themselves, for people to read.
            seeds: the seeds they can be made from again; None for one that has none.

        Raises:
            OptionError: when the sizes do not fit each other or what the space holds already.
            NumericsError: for NaN and infinity, and latents too large or too small for float16.
        """
        with _LOCK:
            self._add(space, latents, prompts, texts, seeds)

    def _add(
        self,
        space: str,
        latents: Tensor,
        prompts: Tensor | None,
        texts: list[str] | None,
        seeds: Sequence[int | None] | None,
    ) -> None:
        rows = _storable("latents", latents, self.dtype)
        embeddings = None if prompts is None else _storable("prompts", prompts, self.dtype)
        for name, values in (("prompts", prompts), ("texts", texts), ("seeds", seeds)):
            if values is not None and not hasattr(values, "__len__"):
                raise OptionError(f"{name} is {shown(values)}; give one for each latent, or None")
            if values is not None and len(values) != len(rows):
                raise OptionError(
                    f"{name} has {len(values)} entries for {len(rows)} latents; give one for each, "
                    "or None"
                )
        seeds = None if seeds is None else _checked_seeds(seeds)
        if texts is not None and not all(t is None or isinstance(t, str) for t in texts):
            raise OptionError("texts has something else than text; give a list of prompts, or None")
        bank = self._banks.get(space)
        if bank is not None:
            bank.require(
                space, tuple(latents.shape[1:]), None if embeddings is None else embeddings.shape[1]
            )
        if len(rows) == 0:
            return
        if bank is None:
            bank = self._banks[space] = Bank(tuple(latents.shape[1:]))
        order = torch.arange(self._added, self._added + len(rows))
        bank.append(
            {"latents": rows, "order": order}
            | ({} if embeddings is None else {"prompts": embeddings}),
            texts,
            seeds,
        )
        self._added += len(rows)
        self._evict()

    def view(self, space: str) -> References | None:
        """The samples of a space, oldest first, in float32; None where it has none.

        With float32 storage nothing is copied, and later additions do not change what was handed
        out.
        """
        with _LOCK:
            bank = self._banks.get(space)
            if bank is None:
                return None
            latents, prompts = bank.rows("latents"), bank.rows("prompts")
        return References(latents.float(), None if prompts.shape[1] == 0 else prompts.float())

    def texts(self, space: str) -> list[str | None]:
        """The prompts of a space's samples, oldest first, in the order of `view`."""
        bank = self._banks.get(space)
        return [] if bank is None else bank.texts[bank.start :]

    def seeds(self, space: str) -> list[int | None]:
        """The seeds of a space's samples, oldest first, in the order of `view`."""
        bank = self._banks.get(space)
        return [] if bank is None else bank.seeds[bank.start :]

    def numbers(self, space: str) -> list[int]:
        """The numbers of a space's samples, in the order of `view`.

        A sample's number counts the samples that were added before it, and never changes.
        """
        bank = self._banks.get(space)
        return [] if bank is None else bank.rows("order").tolist()

    def resize(self, capacity: int) -> None:
        """Set the capacity; the oldest samples that are too many go at once.

        Raises:
            OptionError: for a capacity below 1.
        """
        _require_capacity(capacity)
        self.capacity = capacity
        self._evict()

    def _evict(self) -> None:
        excess = len(self) - self.capacity
        if excess <= 0:
            return
        ages = torch.cat([bank.rows("order") for bank in self._banks.values()])
        oldest_kept = ages.sort().values[excess]
        for space, bank in list(self._banks.items()):
            bank.drop(int((bank.rows("order") < oldest_kept).sum()))
            if len(bank) == 0:
                del self._banks[space]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, replacing an earlier one in one go or not at all.

        Raises:
            StoreError: when the file cannot be written.
        """
        file.write(Path(path), self.capacity, self.dtype, self._banks)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open the memory that `save` wrote to `path`.

        Raises:
            StoreError: when there is no such file, it is damaged, or it is something else than a
                memory.
        """
        capacity, dtype, banks = file.read(Path(path))
        memory = cls(capacity, dtype)
        memory._banks = banks
        memory._added = 1 + max(
            (int(bank.rows("order").max()) for bank in banks.values()), default=-1
        )
        return memory


def _require_capacity(capacity: Any) -> None:
    if not isinstance(capacity, int) or isinstance(capacity, bool) or capacity < 1:
        raise OptionError(
            f"capacity is {capacity!r}; allowed: a whole number at least 1, as in "
            "Memory(capacity=10_000)"
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
