"""The output folder of a run: images as they are finished, then the tables and pages about them.

```
OUT/
  images/00000.png …     the images, in the order of the prompts and seeds
  unguided/00000.png …   the same without guidance, where both were asked for
  run.json               everything needed to repeat the run, and its scores
  samples.parquet        a row an image
  latents.safetensors    with a protected set: the final latents
  grid.png  report.html  to look at
```
"""

from __future__ import annotations

import errno
import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from unalike.errors import Option, OptionError, StoreError, named
from unalike.files import read_json, replacing

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL.Image import Image
    from torch import Tensor

RECORD = "run.json"
_TOOL = "unalike"
IMAGES, UNGUIDED = "images", "unguided"
SAMPLES, LATENTS = "samples.parquet", "latents.safetensors"
LATENTS_KIND, LATENTS_VERSION = "unalike.latents", 1
_SINGLE_FILES = (SAMPLES, LATENTS, "grid.png", "report.html")
_IMAGE_FOLDERS = (IMAGES, UNGUIDED)
_SHOWN, _LONGEST, _MOST = 3, 48, 1_000_000


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
    def claim(cls, path: Path, *, overwrite: bool = False) -> Self:
        """Make sure that the folder is there and may be written to; nothing in it is touched yet.

        Args:
            path: made with its parents if it is not there.
            overwrite: allow a folder that holds an earlier run.

        Raises:
            StoreError: when there is something else at `path`, it cannot be written, it has files
                and `overwrite` is false, or it has files and none of them says that an earlier run
                wrote them.
        """
        try:
            created = not path.exists()
            path.mkdir(parents=True, exist_ok=True)
            probe = path / f".{_TOOL}-probe"
            probe.touch()
            probe.unlink()
            filled = any(path.iterdir())
        except OSError as error:
            raise StoreError(
                named(
                    "output folder {!r} cannot be written: {}; choose another, as in {out=DIR}",
                    str(path),
                    error.strerror or error,
                )
            ) from error
        folder = cls(path, created)
        if filled and not overwrite:
            raise StoreError(
                named(
                    "output folder {!r} is not empty; choose another, as in {out=DIR}, or replace "
                    "the run in it: {overwrite=True}",
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
        for name in _IMAGE_FOLDERS:
            folder = self.path / name
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        self.write_record(record)

    def _files_of(self, record: Mapping[str, Any] | None) -> Iterable[Path]:
        if record is None:
            return
        for name in _SINGLE_FILES:
            yield self.path / name
        for folder in _IMAGE_FOLDERS:
            planned = record.get("images")
            count = planned.get("planned") if isinstance(planned, dict) else 0
            for index in range(count if isinstance(count, int) and count <= _MOST else 0):
                yield self.path / folder / image_name(index)

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write `run.json`."""
        text = json.dumps({"tool": _TOOL, **record}, indent=2, ensure_ascii=False, allow_nan=False)
        self.place(RECORD, lambda path: path.write_text(text + "\n", "utf-8"))

    def write_image(self, index: int, image: Image, *, guided: bool = True) -> Path:
        """Write one image as PNG, and return its path relative to the folder."""
        relative = Path(IMAGES if guided else UNGUIDED) / image_name(index)
        self.place(relative, lambda path: image.save(path, "PNG"))
        return relative

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
        try:
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as (partial,):
                write(partial)
        except OSError as error:
            raise StoreError(
                named(
                    "cannot write {!r}: {}; the images that are finished are kept: make room, or "
                    "choose another folder, as in {out=DIR}",
                    str(path),
                    error.strerror or " ".join(str(error).split()),
                )
            ) from error


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
        probe = path.with_name(f".{_TOOL}-probe")
        probe.touch()
        probe.unlink()
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


def image_name(index: int) -> str:
    """The file name of an image.

    Example:
        >>> image_name(7)
        '00007.png'
    """
    return f"{index:05}.png"


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
