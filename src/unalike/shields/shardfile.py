"""Write a file of vectors row by row, and close it as a safetensors file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from unalike.files import sync_folder
from unalike.shields import disk
from unalike.shields.manifest import Shard
from unalike.shields.vectors import DTYPES, TENSOR

SHARD_BYTES = 1 << 28
"""The length that no shard exceeds."""
_HEADER = 256  # room for any header, so that rows can be written before their number is known


class ShardFile:
    """A shard that is being written.

    Args:
        path: the file.
        dimension: d.
        dtype: "float16" or "float32".
        count: rows that are in it already; what is behind them is cut off.
        limit: bytes that it may have.

    Raises:
        StoreError: when it cannot be written, or has fewer rows than `count`.
    """

    def __init__(
        self, path: Path, dimension: int, dtype: str, *, count: int = 0, limit: int = SHARD_BYTES
    ) -> None:
        self.path = path
        self.count = count
        self._dimension = dimension
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._row = dimension * self._dtype.itemsize
        self.capacity = max(1, (limit - _HEADER) // self._row)
        end = _HEADER + count * self._row
        try:
            size = path.stat().st_size if path.exists() else 0
            if count and size < end:
                raise disk.damaged_build(path, f"it has {size} bytes, and {end} were written")
            self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        except OSError as error:
            raise disk.unwritten(path, error, end) from error
        try:
            if not count:
                self._write(0, b"\0" * _HEADER)
            self._file.truncate(end)
            sync_folder(path.parent)
        except OSError as error:
            self._file.close()
            raise disk.unwritten(path, error, end) from error

    @property
    def room(self) -> int:
        """Number of rows that still fit."""
        return self.capacity - self.count

    def rows(self) -> np.ndarray:
        """Read what was written, (m, d)."""
        with self.path.open("rb") as file:
            file.seek(_HEADER)
            return np.frombuffer(file.read(self.count * self._row), dtype=self._dtype).reshape(
                self.count, -1
            )

    def append(self, rows: np.ndarray, needed: int) -> None:
        """Write rows (m, d) of the shard's precision to the disk.

        Args:
            rows: to be written; no more than there is room for.
            needed: bytes that the rest of the work takes, for the message where there is no room.

        Raises:
            StoreError: when they cannot be written.
        """
        try:
            self._write(
                _HEADER + self.count * self._row,
                np.ascontiguousarray(rows, dtype=self._dtype).tobytes(),
            )
        except OSError as error:
            raise disk.unwritten(self.path, error, needed) from error
        self.count += len(rows)

    def seal(self) -> Shard:
        """Write the header, so that the file is complete, and close it."""
        shape = [self.count, self._dimension]
        header = {
            TENSOR: {
                "dtype": DTYPES[self._dtype.name],
                "shape": shape,
                "data_offsets": [0, self.count * self._row],
            }
        }
        text = (
            json.dumps(header).encode().ljust(_HEADER - 8)
        )  # safetensors lets a header end in spaces
        try:
            self._write(0, len(text).to_bytes(8, "little") + text)
            self._file.close()
            sync_folder(self.path.parent)
            return Shard(
                self.path.name, self.path.stat().st_size, disk.sha256(self.path), self.count
            )
        except OSError as error:
            raise disk.unwritten(self.path, error, _HEADER) from error

    def close(self) -> None:
        """Close the file as it is."""
        self._file.close()

    def _write(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        self._file.seek(offset)
        while view:
            view = view[self._file.write(view) :]
        os.fsync(self._file.fileno())
