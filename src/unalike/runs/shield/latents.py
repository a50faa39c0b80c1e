"""Files of latents that were encoded elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unalike.errors import OptionError

SUFFIXES = (".npy", ".safetensors")
_TENSORS = ("latents", "vectors")
_VALUES = 1 << 23
_FAULTS = (
    OSError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    SafetensorError,
)
"""The errors of numpy and safetensors for damaged and forged files."""


class LatentFile:
    """Latents (m, …) in a `.npy` file, or in the tensor "latents" or "vectors", or the only one, of
    a `.safetensors` file.

    Attributes:
        path: the file.
        names: the path, `#` and the number of the row, for each.
        shape: of one latent.

    Raises:
        OptionError: for a file that cannot be read, holds several tensors, something else than
            floating point numbers, or no rows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            shape, kind = self._open()
        except _FAULTS as error:
            if isinstance(error, OptionError):
                raise
            raise OptionError(
                f"{str(path)!r} cannot be read as latents: {' '.join(str(error).split())}"
            ) from error
        if "float" not in kind.lower() or len(shape) < 2 or 0 in shape:
            raise OptionError(
                f"{str(path)!r} holds {kind} of shape {tuple(shape)}; allowed: floating point "
                "numbers (m, …), m at least 1"
            )
        self.shape = tuple(shape[1:])
        self.names: Sequence[str] = [f"{path.as_posix()}#{i}" for i in range(shape[0])]

    def _open(self) -> tuple[Sequence[int], str]:
        if self.path.suffix.lower() == ".npy":
            self._array = np.load(self.path, mmap_mode="r", allow_pickle=False)
            return self._array.shape, self._array.dtype.name
        self._array = None
        with safe_open(self.path, framework="pt") as file:
            tensors = list(file.keys())
            self._tensor = next(
                (name for name in _TENSORS if name in tensors),
                tensors[0] if len(tensors) == 1 else "",
            )
            if not self._tensor:
                raise OptionError(
                    f"{str(self.path)!r} has the tensors {', '.join(tensors)}; call that of the "
                    f"latents {_TENSORS[0]!r}"
                )
            part = file.get_slice(self._tensor)
            kind = str(part.get_dtype())
            return part.get_shape(), "float" if kind.startswith(("F", "BF")) else kind

    def batches(self, wanted: Set[str]) -> Iterator[tuple[list[str], Tensor]]:
        """The latents of these names with their names, in order and some at a time."""
        size = max(1, _VALUES // int(np.prod(self.shape)))
        left = [i for i, name in enumerate(self.names) if name in wanted]
        for start in range(0, len(left), size):
            rows = left[start : start + size]
            yield [self.names[i] for i in rows], self._rows(rows)

    def _rows(self, rows: Sequence[int]) -> Tensor:
        first, last = rows[0], rows[-1] + 1
        chosen = [i - first for i in rows]
        if self._array is not None:
            return torch.from_numpy(self._array[first:last][chosen].astype(np.float64, copy=True))
        with safe_open(self.path, framework="pt") as file:
            return file.get_slice(self._tensor)[first:last][chosen].double()
