"""Writes the files of a run: each image by itself, or all into WebDataset shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from unalike.runs.folder import RunFolder
from unalike.runs.ledger import Entry


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

    def close(self) -> None:
        """End the output, once all is written or the run is stopped."""
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

    def close(self) -> None:
        """Nothing is open."""


class Shards:
    """All images in tar files that `webdataset` reads, see `unalike.runs.shards`.

    Args:
        folder: the output folder.
        suffix: of the images, such as ".png".
        size: bytes of a shard, about.
        state: of an earlier process; None for a new run.
    """

    def __init__(self, folder: Path, suffix: str, size: int, state: Any = None) -> None:
        from unalike.runs.shards import ShardWriter

        at = None if state is None else (state["shard"], state["offset"])
        self._writer = ShardWriter(folder / "shards", size=size, resume_at=at)
        self._suffix = suffix

    @property
    def state(self) -> dict[str, int]:
        """The shard that is written and how many of its bytes are complete."""
        shard, offset = self._writer.place
        return {"shard": shard, "offset": offset}

    def write(self, entries: Sequence[Entry], files: Mapping[str, bytes]) -> list[Entry]:
        """Append the images to the shard."""
        result = []
        for entry in entries:
            image = entry.sample.image
            if image is None:
                result.append(entry)
                continue
            planned = entry.sample.planned
            key = f"{planned.index:08}"
            row = {"prompt": planned.prompt, "seed": planned.seed, "item": planned.item}
            row |= {"id": planned.id, **planned.arguments}
            shard = self._writer.write(
                key, files[image.path], self._suffix, row, planned.prompt
            )
            place = f"shards/{shard}#{key}{self._suffix}"
            sample = replace(entry.sample, image=replace(image, path=place))
            result.append(replace(entry, sample=sample))
        self._writer.flush()
        return result

    def close(self) -> None:
        """Finish the last shard."""
        self._writer.close()
