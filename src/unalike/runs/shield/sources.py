"""Sources of images: folders, files, patterns, Parquet and tar files; of latents: `.npy` and
`.safetensors`.

Every input has a name of its own, by which an interrupted build knows what is done: the path as it
was given, and for what is inside a file also `#` and its own name or number there.
"""

from __future__ import annotations

import glob
import io
import lzma
import tarfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from unalike.errors import OptionError, StoreError, named
from unalike.files import require_regular
from unalike.images import UNREADABLE, read_image
from unalike.runs.images import SUFFIXES, find_images, reason
from unalike.runs.score.prompts import read_run
from unalike.runs.shield.latents import SUFFIXES as LATENTS
from unalike.runs.shield.latents import LatentFile

_NAME_COLUMNS = ("name", "file", "file_name", "filename", "path", "id", "key", "__key__")
_IMAGE_COLUMNS = ("image", "img", "jpg", "png", "webp", "bytes")
_ROWS = 64
_LARGEST_IMAGE = 1 << 29
_TAR_FAULTS = (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)
_PATTERN = set("*?[")


@dataclass(frozen=True)
class Read:
    """An image that was read, or why it could not be."""

    name: str
    image: Image.Image | None
    reason: str = ""


class Source(ABC):
    """Images of one place.

    Attributes:
        names: of all of them, in order.
    """

    names: Sequence[str]

    @abstractmethod
    def read(self, wanted: Set[str]) -> Iterator[Read]:
        """Those of these names, in order."""


class Files(Source):
    """Image files, named by their paths."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def read(self, wanted: Set[str]) -> Iterator[Read]:
        """Those of these names, in order."""
        for name in self.names:
            if name in wanted:
                try:
                    found = Read(name, read_image(Path(name)))
                except UNREADABLE as error:
                    found = Read(name, None, reason(error, Path(name)))
                yield found


class TarImages(Source):
    """The images of a tar file, as WebDataset packs them.

    Raises:
        OptionError: for a file that is no tar file, or has no image.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with tarfile.open(path) as tar:
                members = [
                    m.name for m in tar if m.isfile() and Path(m.name).suffix.lower() in SUFFIXES
                ]
        except _TAR_FAULTS as error:
            raise _unreadable(path, "a tar file", error) from error
        if not members:
            raise OptionError(
                f"{str(path)!r} has no image; allowed are {', '.join(SUFFIXES)} in a tar file"
            )
        self.names = _distinct(path, members)

    def read(self, wanted: Set[str]) -> Iterator[Read]:
        """Those of these names, in order."""
        if wanted.isdisjoint(self.names):
            return
        try:
            yield from self._read(wanted)
        except _TAR_FAULTS as error:
            raise StoreError(
                f"{str(self.path)!r} is damaged: {reason(error, self.path)}"
            ) from error

    def _read(self, wanted: Set[str]) -> Iterator[Read]:
        with tarfile.open(self.path) as tar:
            members = (m for m in tar if m.isfile() and Path(m.name).suffix.lower() in SUFFIXES)
            for name, member in zip(self.names, members, strict=True):
                if name in wanted:
                    if member.size > _LARGEST_IMAGE:
                        yield Read(name, None, f"it has more than {_LARGEST_IMAGE:,} bytes")
                        continue
                    file = tar.extractfile(member)
                    yield _decoded(name, file.read() if file else None)


class ParquetImages(Source):
    """The images of a Parquet file, in a column of bytes or of the form `{"bytes", "path"}`; named
    by a column of names, if there is one.

    Raises:
        OptionError: for a file that is no Parquet file, or has no such column, or several.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = pq.ParquetFile(path.absolute())
            schema = self._file.schema_arrow
            self._column = _image_column(path, schema)
            own = self._own_names(schema)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, "Parquet", error) from error
        if not own:
            raise OptionError(f"{str(path)!r} has no rows; give a file that has images")
        self.names = _distinct(path, own)

    def _own_names(self, schema: pa.Schema) -> list[Any]:
        column = next(
            (name for name in _NAME_COLUMNS if name in schema.names and name != self._column), None
        )
        kind = schema.field(self._column).type
        if column is not None:
            return self._file.read(columns=[column])[column].to_pylist()
        if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
            table = self._file.read(columns=[f"{self._column}.path"])
            return [value and value["path"] for value in table[self._column].to_pylist()]
        return [None] * self._file.metadata.num_rows

    def read(self, wanted: Set[str]) -> Iterator[Read]:
        """Those of these names, in order; parts of the file without any of them are not read."""
        try:
            yield from self._read(wanted)
        except (pa.ArrowException, OSError) as error:
            raise StoreError(
                f"{str(self.path)!r} is damaged: {reason(error, self.path)}"
            ) from error

    def _read(self, wanted: Set[str]) -> Iterator[Read]:
        first = 0
        for group in range(self._file.num_row_groups):
            names = self.names[first : first + self._file.metadata.row_group(group).num_rows]
            first += len(names)
            if not wanted.isdisjoint(names):
                batches = self._file.iter_batches(
                    batch_size=_ROWS, row_groups=[group], columns=[self._column]
                )
                values = (value for batch in batches for value in batch.column(0))
                for name, value in zip(names, values, strict=True):
                    if name in wanted:
                        yield _decoded(name, _bytes(value.as_py()))


def find_sources(images: Iterable[str]) -> list[Source | LatentFile]:
    """The sources of all images given, each image in one of them alone.

    Args:
        images: folders (with all below them; of an output folder of `unalike generate` the images
            that it drew), files, and patterns.

    Raises:
        OptionError: for what is not there, has no image or is of an unknown kind.
    """
    files: dict[str, None] = {}
    others: dict[Path, None] = {}
    for given in images:
        for path in _paths(given):
            if path.is_dir():
                run = read_run(path)
                inside = sorted(run) if run is not None else find_images(path)
                files.update(dict.fromkeys((path / name).as_posix() for name in inside))
            elif path.suffix.lower() in SUFFIXES:
                files[path.as_posix()] = None
            else:
                others[path] = None
    return [*([Files(list(files))] if files else []), *(_container(path) for path in others)]


def read_images(names: Sequence[str]) -> dict[str, Image.Image]:
    """The images of these names, as far as they can still be read from here."""
    plain = [
        name for name in names if Path(name).suffix.lower() in SUFFIXES and Path(name).is_file()
    ]
    sources: dict[Path, Source] = {}
    for name in set(names) - set(plain):
        path = next(
            (Path(name[:i]) for i, c in enumerate(name) if c == "#" and Path(name[:i]).is_file()),
            None,
        )
        if path is not None and path not in sources:
            try:
                found = _container(path)
            except OptionError:
                continue  # it was replaced by something else
            if isinstance(found, Source):
                sources[path] = found
    read = (
        item for source in (Files(plain), *sources.values()) for item in source.read(set(names))
    )
    return {item.name: item.image for item in read if item.image is not None}


def _paths(given: str) -> list[Path]:
    try:
        if Path(given).exists():
            return [Path(given)]
    except OSError as error:  # a name that is too long
        raise OptionError(
            named("{images} is {!r}: {}; give the name of a file or folder", given, error.strerror)
        ) from error
    if not _PATTERN & set(given):
        raise OptionError(
            named(
                "{images} is {!r}, which is not there; give folders, files or patterns of images",
                given,
            )
        )
    found = sorted(glob.glob(given, recursive=True))  # noqa: PTH207 - pathlib's has no absolute patterns
    if not found:
        raise OptionError(
            named(
                "{images} is the pattern {!r}, which fits no file; give folders, files or "
                "patterns of images",
                given,
            )
        )
    return [Path(path) for path in found]


def _container(path: Path) -> Source | LatentFile:
    suffix = path.suffix.lower()
    try:
        require_regular(path)
    except (OSError, ValueError) as error:
        raise OptionError(f"{str(path)!r} cannot be read: {error}; give a file") from error
    if suffix == ".parquet":
        return ParquetImages(path)
    if suffix == ".tar":
        return TarImages(path)
    if suffix in LATENTS:
        return LatentFile(path)
    raise OptionError(
        f"{str(path)!r} is of no kind that can be read; allowed: folders, {', '.join(SUFFIXES)}, "
        ".parquet and .tar of images, "
        f"{' and '.join(LATENTS)} of latents"
    )


def _image_column(path: Path, schema: pa.Schema) -> str:
    def holds_bytes(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0 and holds_bytes(kind.field("bytes").type)
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    found = [field.name for field in schema if holds_bytes(field.type)]
    chosen = (
        next((name for name in _IMAGE_COLUMNS if name in found), None)
        if len(found) > 1
        else next(iter(found), None)
    )
    if chosen is None:
        state = (
            f"several columns of bytes ({', '.join(found)})"
            if found
            else f"no column of bytes but {', '.join(schema.names)}"
        )
        raise OptionError(
            f"{str(path)!r} has {state}; name the one of the images {_IMAGE_COLUMNS[0]!r}"
        )
    return chosen


def _distinct(path: Path, own: Sequence[Any]) -> list[str]:
    """`PATH#NAME`, with the number of the row where there is no name or it is not the only one."""
    times = Counter(own)
    names = [
        f"{path.as_posix()}#{i}" if name in (None, "") else f"{path.as_posix()}#{name}"
        for i, name in enumerate(own)
    ]
    names = [
        f"{name}#{i}" if own[i] not in (None, "") and times[own[i]] > 1 else name
        for i, name in enumerate(names)
    ]
    if len(set(names)) < len(names):
        raise OptionError(
            f"{str(path)!r} has images whose names cannot be told apart; give each row a name of "
            "its own"
        )
    return names


def _bytes(value: Any) -> bytes | None:
    return value.get("bytes") if isinstance(value, dict) else value


def _decoded(name: str, data: bytes | None) -> Read:
    if not data:
        return Read(name, None, "there is no image")
    try:
        return Read(name, read_image(io.BytesIO(data)))
    except UNREADABLE as error:
        text = reason(error)
        return Read(name, None, "it is no image" if "BytesIO" in text else text)


def _unreadable(path: Path, kind: str, error: Exception) -> OptionError:
    return OptionError(f"{str(path)!r} cannot be read as {kind}: {reason(error, path)}")
