"""Writes the files of a run: each image by itself, or all into WebDataset shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from unalike.runs.about import About
from unalike.runs.folder import SHARDS, RunFolder
from unalike.runs.ledger import Entry
from unalike.runs.shards import ShardWriter


class Output(Protocol):
    """Where the images of a run go."""

    @property
    def state(self) -> Any:
        """What the ledger keeps, ready for JSON, so that a later process goes on here."""
        ...

    def write(self, entries: Sequence[Entry], files: Mapping[str, bytes]) -> list[Entry]:
        """Write the files of a batch, so that a power cut leaves them whole.

        Args:
            entries: of the batch.
            files: path in the output folder → contents.

        Returns:
            The entries, with the places where their images are.

        Raises:
            StoreError: where they cannot be written.
        """
        ...

    def close(self, *, finished: bool) -> None:
        """End the output.

        Args:
            finished: whether all is written; false where a later process goes on.
        """
        ...


class Files:
    """A file an image.

    Args:
        folder: the output folder.
    """

    state = None

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def write(self, entries: Sequence[Entry], files: Mapping[str, bytes]) -> list[Entry]:
        """Write the files, each whole or not at all."""
        self._folder.place_all(files)
        return list(entries)

    def close(self, *, finished: bool) -> None:
        """Nothing is open."""


class Shards:
    """All images in tar files that `webdataset` reads, see `unalike.runs.shards`.

    Args:
        folder: the output folder.
        about: what the images have in common.
        suffix: of the images, such as ".png".
        size: the most bytes of a shard.
        state: of an earlier process; None for a new run.
    """

    def __init__(self, folder: Path, about: About, suffix: str, size: int, state: Any) -> None:
        position = (0, 0) if state is None else (int(state[0]), int(state[1]))
        self._writer = ShardWriter(folder / SHARDS, size=size, resume_at=position)
        self._about, self._suffix = about, suffix
        self.state = position

    def write(self, entries: Sequence[Entry], files: Mapping[str, bytes]) -> list[Entry]:
        """Append the images to the shard; those that were refused are not there."""
        result = [self._appended(entry, files) for entry in entries]
        self.state = tuple(self._writer.flush())
        return result

    def _appended(self, entry: Entry, files: Mapping[str, bytes]) -> Entry:
        planned, image = entry.sample.planned, entry.sample.image
        if image is None:
            return entry
        about = self._about.info(planned, image.size).to_dict()
        key = f"{planned.index:08}"
        place = self._writer.write(key, files[image.path], self._suffix, about, planned.prompt)
        stored = replace(image, path=f"{SHARDS}/{place}")
        return replace(entry, sample=replace(entry.sample, image=stored))

    def close(self, *, finished: bool) -> None:
        """Finish the last shard where the run is; else it is left for the next process."""
        self._writer.close() if finished else self._writer.stop()
