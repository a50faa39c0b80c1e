"""Images in tar files that `webdataset` and `datasets` read, written so that a kill loses nothing.

```
shards/shard-000000.tar            finished
shards/shard-000001.tar.partial    being written
```

Each sample is three members of a tar file, one after the other: `KEY.png` (or `.jpg`, `.webp`),
`KEY.json` and `KEY.txt`, the prompt. A run writes samples, calls `flush`, and stores the position
that it returns in its own ledger. Whatever lies after the last stored position was never promised:
`ShardWriter(folder, resume_at=position)` cuts it off and writes on from there.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from unalike.errors import OptionError, StoreError, named, shown
from unalike.files import sync_folder

SIZE = 1_000_000_000
"""Bytes of a shard, where none is given."""
_PARTIAL = ".partial"
_NAME = re.compile(r"shard-(\d{6,})\.tar(\.partial)?")
_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class Position(NamedTuple):
    """A place between two samples.

    Attributes:
        shard: number of the shard.
        offset: bytes of it that lie before the place.
    """

    shard: int
    offset: int


def shard_name(number: int) -> str:
    """The file name of a finished shard.

    Example:
        >>> shard_name(7)
        'shard-000007.tar'
    """
    return f"shard-{number:06}.tar"


class ShardWriter:
    """Writes samples into shards of a folder, one process at a time.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with ShardWriter(Path(folder) / "shards") as writer:
        ...         place = writer.write("00000000", b"file", ".png", {"seed": 7}, "red heart")
        ...         position = writer.flush()
        ...     place, position, [path.name for path in Path(folder).glob("shards/*")]
        ('shard-000000.tar#00000000.png', Position(shard=0, offset=3072), ['shard-000000.tar'])
    """

    def __init__(
        self,
        folder: Path,
        *,
        size: int = SIZE,
        resume_at: tuple[int, int] | None = None,
    ) -> None:
        """Open a folder of shards.

        Args:
            folder: made if it is not there.
            size: the most bytes of a shard; one that holds a single sample may have more.
            resume_at: what the last `flush` returned whose samples count, or (0, 0) where none do:
                whatever is in the shards after it is removed. None for a folder without shards.
                Earlier shards are not looked at, and may have been moved away.

        Raises:
            OptionError: for a size below 1.
            StoreError: for a folder that cannot be written, shards that are in the way, and a shard
                that ends before the position or is not there.
        """
        if type(size) is not int or size < 1:
            raise OptionError(
                named(
                    "{shard_size} is {!r}; allowed: a whole number of bytes at least 1, as in "
                    "{shard_size=1000000000}",
                    size,
                )
            )
        self.folder = folder
        self._size = size
        self._number, self._offset = resume_at or (0, 0)
        self._file: IO[bytes] | None = None
        self._closed = False
        try:
            self._open(resume=resume_at is not None)
        except OSError as error:
            raise self._refusal("cannot be written", error) from error

    def write(self, key: str, image: bytes, suffix: str, info: Mapping[str, Any], text: str) -> str:
        """Add one sample, beginning a new shard where this one would be too large.

        Nothing is promised to be on the disk before `flush`.

        Args:
            key: names the sample, as in "00000012": letters, digits, "-" and "_".
            image: an image file.
            suffix: of its name: ".png", ".jpg" or ".webp".
            info: becomes `KEY.json`. `datasets` makes columns from the first five samples, so give
                all samples of a run the same keys and types.
            text: becomes `KEY.txt`.

        Returns:
            Shard and member, as in "shard-000000.tar#00000012.png".

        Raises:
            OptionError: for a key that is not allowed.
            StoreError: where there is no room; the samples before this one are whole.
            ValueError: after `close` and `stop`.
        """
        if self._closed:
            raise ValueError("the writer of shards is closed; make a new one, with resume_at")
        if not _KEY.fullmatch(key):
            raise OptionError(
                f"the key of a sample is {shown(key)}; allowed: 1 to 80 letters of English, "
                "digits, '-' and '_', as in '00000012'"
            )
        record = json.dumps(info, ensure_ascii=False, allow_nan=False).encode()
        members = {suffix: image, ".json": record, ".txt": text.encode()}
        data = b"".join(_member(f"{key}{end}", content) for end, content in members.items())
        try:
            after = self._offset + len(data)
            if self._offset and after + len(_end(after)) > self._size:
                self._finish()
                self._number, self._offset = self._number + 1, 0
            self._append(data)
        except OSError as error:
            raise self._refusal("cannot be written", error) from error
        return f"{shard_name(self._number)}#{key}{suffix}"

    def flush(self) -> Position:
        """Have all samples on the disk.

        Returns:
            The position after the last one, for the ledger; with it in `resume_at` exactly the
            samples before it are kept.

        Raises:
            StoreError: where the disk refuses them.
        """
        try:
            if self._file is not None:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise self._refusal("cannot be written", error) from error
        return Position(self._number, self._offset)

    def close(self) -> None:
        """Finish the last shard and give it its name; a writer can resume after that too.

        Raises:
            StoreError: where there is no room for the end of the shard, which stays unfinished.
        """
        try:
            if self._file is not None:
                self._finish()
        except OSError as error:
            raise self._refusal("cannot be finished", error) from error
        finally:
            self.stop()

    def stop(self) -> None:
        """Close the file and leave the last shard unfinished, for a writer that resumes."""
        self._closed = True
        self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.stop()

    def _open(self, *, resume: bool) -> None:
        _require_no_link(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        found = list(self._found())
        if found and not resume:
            raise StoreError(
                named(
                    "{!r} has shards of an earlier run; go on with it, as in {resume=True}, or "
                    "choose another folder, as in {out=DIR}",
                    str(self.folder),
                )
            )
        if self._offset:
            self._reopen()
        for number, path in found:
            if number > self._number or (number == self._number and not self._offset):
                path.unlink(missing_ok=True)
        sync_folder(self.folder)

    def _found(self) -> Iterator[tuple[int, Path]]:
        for path in self.folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match:
                yield int(match[1]), path

    def _reopen(self) -> None:
        """Open the shard of the position, finished or not, and cut off what comes after it."""
        finished, partial = self._path, self._partial
        path = partial if os.path.lexists(partial) else finished
        _require_no_link(path)
        try:
            handle = os.open(path, os.O_RDWR | _NO_LINK)
        except FileNotFoundError as error:
            raise StoreError(
                f"there is no shard {str(finished)!r}, and samples of it are in the ledger; put it "
                "back, or begin again in another folder"
            ) from error
        file = os.fdopen(handle, "r+b", buffering=0)
        try:
            self._require_whole(file, path)
            if path == finished:
                path.rename(partial)
            file.truncate(self._offset)
            os.fsync(handle)
        except BaseException:
            file.close()
            raise
        self._file = file

    def _require_whole(self, file: IO[bytes], path: Path) -> None:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size < self._offset:
            raise StoreError(
                f"the shard {str(path)!r} has {status.st_size:,} bytes, and samples in its first "
                f"{self._offset:,} are in the ledger; put it back as it was, or begin again in "
                "another folder"
            )

    def _append(self, data: bytes) -> None:
        if self._file is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINK
            handle = os.open(self._partial, flags, 0o666)
            self._file = os.fdopen(handle, "r+b", buffering=0)
            sync_folder(self.folder)
        self._file.seek(self._offset)
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except BaseException:
            self._file.truncate(self._offset)
            raise
        self._offset += len(data)

    def _finish(self) -> None:
        offset = self._offset
        assert self._file is not None
        self._append(_end(offset))
        self._offset = offset
        os.fsync(self._file.fileno())
        self._let_go()
        self._partial.rename(self._path)
        sync_folder(self.folder)

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def _path(self) -> Path:
        return self.folder / shard_name(self._number)

    @property
    def _partial(self) -> Path:
        return self._path.with_name(self._path.name + _PARTIAL)

    def _refusal(self, what: str, error: OSError) -> StoreError:
        return StoreError(
            f"the shard {str(self._path)!r} {what}: {error.strerror or error}; the samples that "
            "are in the ledger are kept: make room, or give permission, and resume the run"
        )


def _require_no_link(path: Path) -> None:
    if path.is_symlink():
        raise StoreError(
            f"{str(path)!r} is a link, which shards are not written to; remove it, or choose "
            "another output folder"
        )


def _member(name: str, content: bytes) -> bytes:
    """Header and content of a file in a tar file, the same whenever they are written."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    padding = -len(content) % tarfile.BLOCKSIZE
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(padding)


def _end(offset: int) -> bytes:
    """What ends a tar file of so many bytes: two empty blocks, and more for a whole record."""
    least = 2 * tarfile.BLOCKSIZE
    return bytes(least + -(offset + least) % tarfile.RECORDSIZE)
