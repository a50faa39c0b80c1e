"""The output folder of a run: images as they are finished, then the tables and pages about them.

```
OUT/
  images/00000.png …     the images, in the order of the prompts and seeds
  unguided/00000.png …   the same without guidance, where both were asked for
  shards/shard-000000.tar …  in place of both, where shards were asked for
  run.json               everything needed to repeat the run, and its scores
  samples.parquet        a row an image
  latents.safetensors    with a protected set: the final latents
  grid.png  report.html  to look at
  ledger.sqlite          which images are done, so that the run can be gone on with
  memory.sqlite          until the run is complete: what its later images differ from
```
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock, Timeout

from unalike.errors import Option, OptionError, StoreError, named
from unalike.files import read_json, replacing
from unalike.runs.settings import SUFFIXES

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL.Image import Image
    from torch import Tensor

RECORD = "run.json"
_TOOL = "unalike"
IMAGES, UNGUIDED = "images", "unguided"
SAMPLES, LATENTS = "samples.parquet", "latents.safetensors"
METADATA = "metadata.parquet"
LATENTS_KIND, LATENTS_VERSION = "unalike.latents", 1
LEDGER, OWN_MEMORY, SHARDS = "ledger.sqlite", "memory.sqlite", "shards"
LOCK = "ledger.lock"
_DATABASES = tuple(f"{name}{end}" for name in (LEDGER, OWN_MEMORY) for end in ("", "-wal", "-shm"))
_SINGLE_FILES = (SAMPLES, LATENTS, "grid.png", "report.html", *_DATABASES)
_IMAGE_FOLDERS = (IMAGES, UNGUIDED)
PART = re.compile(r"shard-(\d+)-of-(\d+)(?=$|\.memory)")
"""What the folders of the parts of a run, and their memories, are called."""
_SHOWN, _LONGEST, _MOST = 3, 48, 10_000_000


@dataclass(frozen=True)
class RunFolder:
    """A folder that this run may write to. Made by `claim`.

    Args:
        path: the folder.
        created: whether this run made it.
    """

    path: Path
    created: bool

    @classmethod
    def claim(cls, path: Path, *, overwrite: bool = False, resume: bool = False) -> Self:
        """Make sure that the folder is there and may be written to; nothing in it is touched yet.

        Args:
            path: made with its parents if it is not there.
            overwrite: allow a folder that holds an earlier run.
            resume: allow a folder that has a ledger.

        Raises:
            StoreError: when there is something else at `path`, it cannot be written, it has files
                and `overwrite` is false, or it has files and none of them says that an earlier run
                wrote them.
        """
        try:
            created = not path.exists()
            path.mkdir(parents=True, exist_ok=True)
            require_room(path)
            filled = any(map(_counts, path.iterdir()))
        except OSError as error:
            raise StoreError(
                named(
                    "output folder {!r} cannot be written: {}; choose another, as in {out=DIR}",
                    str(path),
                    error.strerror or error,
                )
            ) from error
        folder = cls(path, created)
        if filled and resume and (folder.ledger.exists() or folder.begun):
            return folder
        if filled and not overwrite:
            more = ", or go on with that: {resume=True}" if folder.ledger.exists() else ""
            raise StoreError(
                named(
                    "output folder {!r} is not empty; choose another, as in {out=DIR}, or replace "
                    "the run in it: {overwrite=True}" + more,
                    str(path),
                )
            )
        if filled and folder.earlier_record() is None:
            raise StoreError(
                named(
                    "output folder {!r} has files that no run of {} wrote; choose another, as in "
                    "{out=DIR}",
                    str(path),
                    _TOOL,
                )
            )
        return folder

    @property
    def ledger(self) -> Path:
        """The path of the run's ledger."""
        return self.path / LEDGER

    @property
    def begun(self) -> bool:
        """Whether a run ended here before it had a ledger, and so before its first image."""
        record = self.earlier_record()
        return (
            record is not None
            and not record.get("finished")
            and not (
                self.ledger.exists()
                or any((self.path / name).exists() for name in (IMAGES, SHARDS))
            )
        )

    def remove_partial_files(self) -> None:
        """Remove what a process that was killed had not finished to write."""
        for folder in (self.path, *(self.path / name for name in _IMAGE_FOLDERS)):
            for path in folder.glob(".*.tmp*"):
                path.unlink(missing_ok=True)

    def remove_own_memory(self) -> None:
        """Remove the memory of a run that is complete and was given none."""
        for end in ("", "-wal", "-shm"):
            (self.path / f"{OWN_MEMORY}{end}").unlink(missing_ok=True)

    def earlier_record(self) -> dict[str, Any] | None:
        """The `run.json` of an earlier run.

        None where there is none or another program wrote it.
        """
        try:
            record = read_json(self.path / RECORD)
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) and record.get("tool") == _TOOL else None

    def abandon(self) -> None:
        """Remove the folder again if this run made it and has written nothing."""
        if self.created and not any(self.path.iterdir()):
            self.path.rmdir()

    def start(self, record: Mapping[str, Any]) -> None:
        """Remove the files of an earlier run, and those alone, and write the first record of this
        one in place of its record.
        """
        for path in self._files_of(self.earlier_record()):
            path.unlink(missing_ok=True)
        for name in (*_IMAGE_FOLDERS, SHARDS):
            folder = self.path / name
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        self.write_record(record)

    def _files_of(self, record: Mapping[str, Any] | None) -> Iterable[Path]:
        if record is None:
            return
        for name in _SINGLE_FILES:
            yield self.path / name
        yield from (self.path / SHARDS).glob("shard-*.tar*")
        planned, kind = record.get("images"), record.get("format") or "png"
        count = planned.get("planned") if isinstance(planned, dict) else 0
        rows = record.get("rows")
        count = rows.get("images", count) if isinstance(rows, dict) else count  # a part has some
        for guided in (True, False) if kind in SUFFIXES else ():
            for index in range(count if isinstance(count, int) and count <= _MOST else 0):
                yield self.path / image_path(index, kind, guided=guided)
            yield self.path / (IMAGES if guided else UNGUIDED) / METADATA

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write `run.json`."""
        text = json.dumps({"tool": _TOOL, **record}, indent=2, ensure_ascii=False, allow_nan=False)
        self.place(RECORD, lambda path: path.write_text(text + "\n", "utf-8"))

    def place_all(self, files: Mapping[str, bytes]) -> None:
        """Write files, each whole or not at all; at the end they are on the disk.

        Args:
            files: path relative to the folder → contents.

        Raises:
            StoreError: when one cannot be written.
        """
        paths = [self.path / name for name in files]
        with self._telling(paths[0] if paths else self.path):
            for parent in {path.parent for path in paths}:
                parent.mkdir(exist_ok=True)
            with replacing(*paths) as partial:
                for path, data in zip(partial, files.values(), strict=True):
                    path.write_bytes(data)

    def write_samples(self, table: pa.Table) -> None:
        """Write `samples.parquet`."""
        import pyarrow.parquet as pq

        self.place(SAMPLES, lambda path: pq.write_table(table, path.absolute()))

    def write_latents(self, latents: Tensor, index: Sequence[int], space: str) -> None:
        """Write `latents.safetensors`.

        Args:
            latents: final latents (m, …), as the pipeline decoded them.
            index: the number of the image of each row.
            space: the latent space.

        Raises:
            StoreError: when it cannot be written.
        """
        import torch

        from unalike import tensorfile

        tensors = {"latents": latents, "index": torch.tensor(list(index), dtype=torch.int64)}
        tensorfile.write(
            self.path / LATENTS, LATENTS_KIND, LATENTS_VERSION, {"space": space}, tensors
        )

    def write_grid(self, image: Image) -> None:
        """Write `grid.png`."""
        self.place("grid.png", lambda path: image.save(path, "PNG"))

    def write_report(self, html: str) -> None:
        """Write `report.html`."""
        self.place("report.html", lambda path: path.write_text(html, "utf-8"))

    def place(self, name: str | Path, write: Callable[[Path], object]) -> None:
        """Have a file of the folder written, whole or not at all.

        Args:
            name: relative to the folder.
            write: writes to the path that it is given.

        Raises:
            StoreError: when it cannot be written; what is complete stays.
        """
        path = self.path / name
        with self._telling(path):
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as (partial,):
                write(partial)

    @contextmanager
    def _telling(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                named(
                    "cannot write {!r}: {}; the images that are finished are kept: make room, or "
                    "choose another folder, as in {out=DIR}",
                    str(path),
                    error.strerror or " ".join(str(error).split()),
                )
            ) from error


def _counts(path: Path) -> bool:
    """Whether a path makes an output folder one that is not empty."""
    return path.name != LOCK and not path.name.startswith(".") and not PART.match(path.name)


def require_room(folder: Path) -> None:
    """Make sure that a file can be made in a folder.

    Raises:
        OSError: where it cannot.
    """
    probe = folder / f".{_TOOL}-{secrets.token_hex(6)}"
    os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    probe.unlink()


def require_writable(name: str, path: Path) -> None:
    """Make sure, before any work, that a file can be written.

    Args:
        name: of the option.
        path: the file; what is there stays as it is.

    Raises:
        OptionError: where it cannot.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        require_room(path.parent)
    except OSError as error:
        raise OptionError(
            named(
                "{} is {!r}, which cannot be written: {}; give a file in a folder that is there "
                "and that you may write to",
                Option(name),
                str(path),
                error.strerror,
            )
        ) from error


def image_path(index: int, kind: str = "png", *, guided: bool = True) -> str:
    """The path of an image in the output folder.

    Example:
        >>> image_path(7), image_path(7, "jpeg", guided=False)
        ('images/00007.png', 'unguided/00007.jpg')
    """
    return f"{IMAGES if guided else UNGUIDED}/{index:05}{SUFFIXES.get(kind, '.png')}"


def free_folder(names: Sequence[str], parent: Path) -> Path:
    """A folder of `parent` that is not there yet, named after all prompts.

    Letters and digits of any script are kept; of many or long prompts the first words.

    Example:
        >>> free_folder(["Red heart!", "日本の旗"], Path("no/such/place")).name
        'unalike-red-heart-日本の旗'
        >>> free_folder(["a cat"] + [f"dog {i}" for i in range(9)], Path("no/such/place")).name
        'unalike-a-cat-dog-0-dog-1-and-7-more'
    """
    shown = [_slug(name) for name in names[:_SHOWN]]
    rest = len(names) - len(shown)
    words = [_TOOL, *(word for word in shown if word), *([f"and-{rest}-more"] if rest else [])]
    stem = "-".join(words)
    path, number = parent / stem, 2
    while path.exists():
        path, number = parent / f"{stem}-{number}", number + 1
    return path


def _slug(text: str) -> str:
    """The letters and digits of a text as a name of at most `_LONGEST` bytes, by whole words."""
    plain = unicodedata.normalize("NFC", text).lower()
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in plain)
    slug = ""
    for word in kept.split():
        longer = f"{slug}-{word}" if slug else word
        if len(longer.encode()) > _LONGEST:
            cut = longer.encode()[:_LONGEST].decode(errors="ignore")
            return slug or cut
        slug = longer
    return slug


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Within the block no other process can draw into the folder.

    Args:
        path: of an output folder.

    Raises:
        StoreError: where one does.
    """
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise StoreError(
            named(
                "another process draws into {!r}; wait for it, or choose another folder, as in "
                "{out=DIR}",
                str(path),
            )
        ) from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
