"""Keep a copy of a bank on another device, and move only what is new."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_ROOM = 1.25  # how much larger a new buffer is than what it has to hold
_LEAST = 8


class Mirror:
    """The rows of a bank in float32 on another device.

    Args:
        device: where they are.

    Attributes:
        copied: how many rows were copied to the device so far.

    Example:
        >>> mirror, rows = Mirror(torch.device("cpu")), torch.arange(6.0).view(3, 2)
        >>> found = mirror.updated({"latents": rows[:2]}, gone=0)
        >>> found = mirror.updated({"latents": rows[1:]}, gone=1)  # one is new, the oldest gone
        >>> found["latents"].tolist(), mirror.copied
        ([[2.0, 3.0], [4.0, 5.0]], 3)
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.copied = 0
        self._buffers: dict[str, Tensor] = {}
        self._first = self._stop = 0  # which rows of all that ever were the buffers hold

    def updated(self, columns: Mapping[str, Tensor], gone: int) -> dict[str, Tensor]:
        """The living rows on the device. Views that were handed out before stay as they are.

        Args:
            columns: the living rows of each column, oldest first.
            gone: how many rows there were before those.

        Cost: that of the new rows; now and then that of all, on the device.
        """
        end = gone + len(next(iter(columns.values())))
        size = len(next(iter(self._buffers.values()))) if self._buffers else 0
        if not self._buffers or end - self._first > size:
            self._make_room(columns, gone, end)
        self._stop = max(self._stop, gone)  # rows that came and went meanwhile
        if end > self._stop:
            for name, rows in columns.items():
                place = slice(self._stop - self._first, end - self._first)
                self._buffers[name][place].copy_(rows[self._stop - gone :])
            self.copied += end - self._stop
            self._stop = end
        return {
            name: buffer[gone - self._first : end - self._first]
            for name, buffer in self._buffers.items()
        }

    def _make_room(self, columns: Mapping[str, Tensor], gone: int, end: int) -> None:
        size = max(_LEAST, int(_ROOM * (end - gone)))
        begin, stop = max(gone, self._first), max(gone, self._stop)
        for name, rows in columns.items():
            buffer = torch.empty(size, *rows.shape[1:], dtype=torch.float32, device=self.device)
            if stop > begin:
                kept = self._buffers[name][begin - self._first : stop - self._first]
                buffer[: stop - begin].copy_(kept)
            self._buffers[name] = buffer
        self._first, self._stop = gone, stop
