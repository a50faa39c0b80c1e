"""Hold protected vectors in memory, or map them from files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from unalike.errors import NumericsError, OptionError, StoreError
from unalike.files import parse_json

TENSOR = "vectors"
"""The name of the one tensor of a shard."""
DTYPES = {"float16": "F16", "float32": "F32"}
"""The precisions in which vectors may be stored, and their names in safetensors."""
BLOCK = 4096
_LONGEST_HEADER = 1 << 16
LARGEST = 1e15
"""No number of a protected vector may be larger; nothing that a model makes is."""
FARTHEST = 1e100
"""No number of a vector that is searched for may be larger, and no radius, so that their squares
are numbers of float64; nor may a radius be smaller than one over this.
"""


class Vectors(Protocol):
    """n vectors of d numbers, stored in float16 or float32 and read by their rows."""

    @property
    def count(self) -> int:
        """The number n of rows."""
        ...

    @property
    def dimension(self) -> int:
        """The length d of a row."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """float16 or float32."""
        ...

    def rows(self, index: np.ndarray) -> np.ndarray:
        """The rows (k, d) with these numbers (k,), in their order and as they are stored."""
        ...

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[int, np.ndarray]]:
        """Yield all rows in order, at most `size` at a time, with the number of the first."""
        ...


def require_queries(x: np.ndarray, dimension: int) -> None:
    """Refuse queries of another shape, and those with NaN, which are at no distance.

    Args:
        x: (B, d) float64.
        dimension: d of the vectors that are searched.

    Raises:
        OptionError: for another shape.
        NumericsError: for NaN, infinity and numbers beyond 1e100; the message names the row.
    """
    if x.ndim != 2 or x.shape[1] != dimension:
        raise OptionError(
            f"x has shape {x.shape}; allowed: (B, {dimension}), rows of the length of the "
            "protected vectors"
        )
    fits = (np.abs(x) <= FARTHEST).all(axis=1)
    if not fits.all():
        bad = int(np.flatnonzero(~fits)[0])
        raise NumericsError(
            f"row {bad} of the {len(x)} that are compared with the protected set has NaN, infinity "
            f"or numbers beyond {FARTHEST:g}, so it is neither inside nor outside; run the "
            "pipeline in float32, or leave that row out"
        )


class Resident:
    """Vectors in memory.

    Args:
        array: (n, d), float16 or float32.

    Raises:
        OptionError: for an array of another form.

    Example:
        >>> vectors = Resident(np.eye(3, dtype=np.float32))
        >>> vectors.rows(np.array([2, 0]))
        array([[0., 0., 1.],
               [1., 0., 0.]], dtype=float32)
    """

    def __init__(self, array: np.ndarray) -> None:
        if array.ndim != 2 or array.dtype.name not in DTYPES:
            raise OptionError(
                f"array has shape {array.shape} and type {array.dtype}; allowed: (n, d) in "
                f"{' or '.join(DTYPES)}"
            )
        self.array = array
        self.count, self.dimension = array.shape
        self.dtype = array.dtype

    def __len__(self) -> int:
        return self.count

    def rows(self, index: np.ndarray) -> np.ndarray:
        """The rows (k, d) with these numbers (k,), in their order and as they are stored."""
        return self.array[index]

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[int, np.ndarray]]:
        """Yield all rows in order, at most `size` at a time, with the number of the first."""
        for first in range(0, self.count, size):
            yield first, self.array[first : first + size]


class Mapped:
    """Vectors in safetensors files, read from the disk where they are needed.

    Only what the system keeps cached is in memory.

    Args:
        shards: each file and how many rows it has, in order.
        dimension: d.
        dtype: "float16" or "float32".

    Raises:
        StoreError: for a file that is not there, too short, or holds something else than so many
            rows.

    Cost: opening reads the header of each file; `rows` reads the pages of the rows alone.
    """

    def __init__(self, shards: Sequence[tuple[Path, int]], dimension: int, dtype: str) -> None:
        if dtype not in DTYPES:
            raise OptionError(f"dtype is {dtype!r}; allowed: {', '.join(DTYPES)}")
        self.dtype = np.dtype(dtype)
        self.dimension = dimension
        self._maps = [_mapped(Path(path), (count, dimension), dtype) for path, count in shards]
        self._first = np.cumsum([0, *(len(m) for m in self._maps)]).tolist()
        self.count: int = self._first[-1]

    def __len__(self) -> int:
        return self.count

    def rows(self, index: np.ndarray) -> np.ndarray:
        """The rows (k, d) with these numbers (k,), in their order and as they are stored."""
        index = np.asarray(index, dtype=np.int64)
        if len(index) and (index.min() < 0 or index.max() >= self.count):
            raise IndexError(
                f"index reaches from {index.min()} to {index.max()}; there are rows 0 to "
                f"{self.count - 1}"
            )
        found = np.empty((len(index), self.dimension), dtype=self.dtype)
        shard = np.searchsorted(self._first, index, side="right") - 1
        for s in np.unique(shard):
            here = np.flatnonzero(shard == s)
            here = here[
                np.argsort(index[here], kind="stable")
            ]  # in the order of the file, for the disk's sake
            found[here] = self._maps[s][index[here] - self._first[s]]
        return found

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[int, np.ndarray]]:
        """Yield all rows in order, at most `size` at a time, with the number of the first."""
        for first in range(0, self.count, size):
            last = min(first + size, self.count)
            a, b = bisect_right(self._first, first) - 1, bisect_right(self._first, last - 1) - 1
            parts = [
                self._maps[s][max(first - self._first[s], 0) : last - self._first[s]]
                for s in range(a, b + 1)
                if len(self._maps[s])
            ]
            yield first, parts[0] if len(parts) == 1 else np.concatenate(parts)


def _mapped(path: Path, shape: tuple[int, int], dtype: str) -> np.ndarray:
    """Map the tensor of a shard after checking its header and its length."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            fits = 0 < length <= min(size - 8, _LONGEST_HEADER)
            header = parse_json(file.read(length)) if fits else None
        entry = header.get(TENSOR) if isinstance(header, dict) else None
        if (
            not isinstance(entry, dict)
            or entry.get("dtype") != DTYPES[dtype]
            or entry.get("shape") != list(shape)
        ):
            raise StoreError(
                f"{str(path)!r} is damaged: it does not hold {shape[0]} × {shape[1]} numbers in "
                f"{dtype}; use a backup"
            )
        nbytes = shape[0] * shape[1] * np.dtype(dtype).itemsize
        if entry.get("data_offsets") != [0, nbytes] or size != 8 + length + nbytes:
            raise StoreError(
                f"{str(path)!r} is damaged: it has {size} bytes and should have "
                f"{8 + length + nbytes}; use a backup"
            )
        if nbytes == 0:
            return np.empty(shape, dtype=dtype)
        return np.memmap(
            path, dtype=np.dtype(dtype).newbyteorder("<"), mode="r", offset=8 + length, shape=shape
        ).view(np.ndarray)
    except (OSError, ValueError) as error:
        raise StoreError(f"{str(path)!r} is missing or damaged ({error}); use a backup") from error
