"""Which model it is: digests of files and folders that are the same wherever they lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unalike.errors import StoreError
from unalike.files import read_json, require_regular

_PART = 1 << 20
_SUFFIXES = (".safetensors", ".bin", ".json", ".txt", ".model")
_INDEX = "model_index.json"


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's length, its first and its last MiB, and all of a safetensors header.

    Cost: 2 MiB and the header are read, whatever the length. Files of up to 2 MiB are read whole.
    A change of weights that keeps the length and leaves both ends alone is not noticed; training
    changes the ends too.

    Raises:
        StoreError: for a file that cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "model.bin"
        ...     _ = path.write_bytes(b"weights")
        ...     file_digest(path)[:8]
        '437917a5'
    """
    try:
        require_regular(path)
        with path.open("rb") as file:
            size = path.stat().st_size
            digest = hashlib.sha256(f"{size}\n".encode())
            first = _PART
            if path.suffix == ".safetensors":
                first = max(first, 8 + min(int.from_bytes(file.read(8), "little"), size))
                file.seek(0)
            digest.update(file.read(first))
            file.seek(max(file.tell(), size - _PART))
            digest.update(file.read())
    except (OSError, ValueError) as error:
        raise StoreError(f"{str(path)!r} cannot be read: {error}") from error
    return digest.hexdigest()


def folder_digest(folder: Path) -> str:
    """The SHA-256 of a pipeline's folder: names and digests of `model_index.json` and of the files
    of the components that it names.

    Whatever else lies in the folder does not count, nor where the folder is.

    Raises:
        StoreError: for a folder that cannot be read.
    """
    try:
        index = read_json(folder / _INDEX)
    except (OSError, ValueError) as error:
        raise StoreError(f"{str(folder / _INDEX)!r} cannot be read: {error}") from error
    names = [name for name, value in index.items() if isinstance(value, list)]
    files = [folder / _INDEX]
    for name in sorted(names):
        files += sorted(p for p in (folder / name).glob("**/*") if p.suffix in _SUFFIXES)
    return digest_of({p.relative_to(folder).as_posix(): file_digest(p) for p in files})


def hub_commit(checkpoint: str) -> str:
    """The commit of a downloaded model of the hub.

    Raises:
        StoreError: where it was not downloaded.
    """
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(checkpoint, _INDEX)
    if not isinstance(cached, str):
        raise StoreError(f"{checkpoint!r} is not among the models that were downloaded")
    return Path(cached).parent.name


def place_digest(places: Iterable[Path | str]) -> str:
    """The digest of files, folders and hub ids together."""
    return digest_of([_of_place(place) for place in places])


def digest_of(facts: Mapping[str, Any] | list[Any]) -> str:
    """The SHA-256 of facts that JSON can write; the order of keys does not count.

    Example:
        >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
        True
    """
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _of_place(place: Path | str) -> str:
    if isinstance(place, str):
        return hub_commit(place)
    return folder_digest(place) if place.is_dir() else file_digest(place)
