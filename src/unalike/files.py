"""Write files whole or not at all; read text and JSON files that come from outside, and refuse what
is no such file.

Give pyarrow absolute paths alone: it takes a relative one that begins with ~ for a home folder.

Every fault in reading is a `ValueError` or an `OSError` with one sentence; the reader that knows
what the file is for puts it into its own message.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LARGEST_TEXT = 1 << 30
"""The most bytes that a file of text may have."""
_LARGEST_HEADER = 100_000_000  # bytes; the limit of safetensors itself


@contextmanager
def replacing(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Temporary paths to write to, one beside each of these; at the end of the block the files are
    on the disk and take the places of the earlier ones, or, after any error, none does.

    The temporary files are there already, with names that nobody can guess, so that no link that
    was planted is followed. A file keeps the permissions of the one that it replaces; a link is
    replaced itself.

    Raises:
        OSError: where the files cannot be put in place.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "note.txt"
        ...     with replacing(path) as (temporary,):
        ...         _ = temporary.write_text("done")
        ...     path.read_text(), [p.name for p in Path(folder).iterdir()]
        ('done', ['note.txt'])
    """
    temporary: tuple[Path, ...] = ()
    try:
        for path in paths:
            temporary = (*temporary, _reserved(path))
        yield temporary
        for path in temporary:
            if path.stat().st_mtime_ns == 0:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        for new, path in zip(temporary, paths, strict=True):
            new.replace(path)
        for folder in {path.parent for path in paths}:
            sync_folder(folder)
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)


def _reserved(path: Path) -> Path:
    """A new empty file beside a path, with the permissions of what is there."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    os.utime(new, ns=(0, 0))  # tells whether it was written
    if path.is_file() and not path.is_symlink():
        new.chmod(path.stat().st_mode & 0o777)
    return new


def sync_folder(folder: Path) -> None:
    """Have the names of a folder's files on the disk, on systems where a folder can be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def require_regular(path: Path, *, largest: int | None = None) -> None:
    """Make sure that opening a file cannot wait for ever: pipes and devices are refused.

    Args:
        path: of the file.
        largest: the most bytes that it may have.

    Raises:
        FileNotFoundError: where there is nothing.
        ValueError: for something else than a file, and for one that is too large.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no {str(path)!r}")
    if not path.is_file():
        raise ValueError("it is not a regular file")
    size = path.stat().st_size
    if largest is not None and size > largest:
        raise ValueError(f"it has {size:,} bytes; allowed: at most {largest:,}")


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark; line ends stay as they are.

    Raises:
        OSError: for a file that cannot be read.
        ValueError: for one that is not text.
    """
    return read_text_bytes(path).decode("utf-8-sig")


def read_text_bytes(path: Path) -> bytes:
    """The bytes of a UTF-8 file, for readers that decode them line by line.

    Raises:
        OSError: for a file that cannot be read.
        ValueError: for one that is not text.
    """
    require_regular(path, largest=LARGEST_TEXT)
    data = path.read_bytes()
    require_text(data)
    return data


def require_text(data: bytes) -> None:
    """Refuse bytes that are no UTF-8 text, with or without a byte order mark.

    Raises:
        ValueError: naming the line of the fault.

    Example:
        >>> require_text("a cat".encode("utf-16"))
        Traceback (most recent call last):
            ...
        ValueError: it is UTF-16 text; save it as UTF-8 text
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError("it is UTF-16 text; save it as UTF-8 text")
    for fault, place in ((b"\0", data.find(b"\0")), (b"", _undecodable(data))):
        if place >= 0:
            line = data.count(b"\n", 0, place) + 1
            what = "a NUL character" if fault else "bytes that are no UTF-8 text"
            raise ValueError(f"line {line} has {what}; save the file as UTF-8 text")


def read_json(path: Path) -> Any:
    """The contents of a JSON file.

    Raises:
        OSError: for a file that cannot be read.
        ValueError: for one that is not JSON, has a key twice, or is nested too deep.
    """
    return parse_json(read_text(path))


def read_tensor_names(path: Path) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the tensors of a safetensors file; no tensor is read.

    Raises:
        OSError: for a file that cannot be read.
        ValueError: for one that is no safetensors file, or is cut off.
    """
    require_regular(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= _LARGEST_HEADER:
            raise ValueError("it is no safetensors file")
        text = file.read(length)
    try:
        header = parse_json(text)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in entries.items()}
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise ValueError("it is no safetensors file") from error
    if path.stat().st_size != 8 + length + end:
        raise ValueError("it is cut off, or has bytes too many; download it again")
    return shapes


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: for text that is not JSON, has a key twice, or is nested too deep.

    Example:
        >>> parse_json('{"a": 1, "a": 2}')
        Traceback (most recent call last):
            ...
        ValueError: the key 'a' is there twice; keep one of them
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is there twice; keep one of them")
    return found


def fault_of_reading(error: Exception) -> str:
    """Say in a clause why a file could not be read, after an error of these readers.

    Example:
        >>> fault_of_reading(FileNotFoundError()), fault_of_reading(ValueError("it is empty"))
        ('it is not there', 'it is empty')
    """
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if type(error) is ValueError:
        return str(error)
    return f"it cannot be read ({' '.join(str(error).split())})"


def _undecodable(data: bytes) -> int:
    """The position of the first bytes that are no UTF-8; -1 where there are none."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start
    return -1
