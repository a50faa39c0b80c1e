"""Read and write one safetensors file with a JSON manifest in its header."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from unalike.errors import StoreError
from unalike.files import parse_json, replacing

_KEY = "unalike"


def write(
    path: Path, kind: str, version: int, manifest: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    """Write the file, replacing an earlier one in one go or not at all.

    Args:
        path: the file; its folder must exist.
        kind: names the sort of thing, which `read` asks for.
        version: of the format.
        manifest: JSON-ready description of the contents.
        tensors: the contents, on the CPU.

    Raises:
        StoreError: when the file cannot be written.
    """
    data = to_bytes({**manifest, "kind": kind, "version": version}, tensors)
    try:
        with replacing(path) as (temporary,):
            temporary.write_bytes(data)
    except (OSError, ValueError) as error:  # a path may be none: empty, or with a NUL
        raise StoreError(
            f"cannot write {str(path)!r} ({getattr(error, 'strerror', None) or error}); "
            "what was there is unchanged. Give a "
            f"path in an existing folder that you may write to, with room for {len(data)} bytes"
        ) from error


def to_bytes(manifest: dict[str, Any], tensors: dict[str, Tensor]) -> bytes:
    """A manifest and tensors as the bytes of such a file; `from_bytes` reads them."""
    header = {**manifest, "checksum": _checksum(tensors)}
    contents = {name: t.contiguous() for name, t in tensors.items()}
    return save(contents, metadata={_KEY: json.dumps(header)})


def from_bytes(data: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The manifest and the tensors that `to_bytes` was given.

    Raises:
        ValueError: for other or damaged bytes.

    Example:
        >>> from_bytes(to_bytes({"a": 1}, {"b": torch.ones(2)}))[1]
        {'b': tensor([1., 1.])}
    """
    try:
        length = int.from_bytes(data[:8], "little")
        header = parse_json(parse_json(data[8 : 8 + length])["__metadata__"][_KEY])
        tensors = load(data)
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"they are no such file ({error})") from error
    if header.get("checksum") != _checksum(tensors):
        raise ValueError("their checksum does not fit their contents")
    return header, tensors


def read(path: Path, kind: str, version: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the manifest and the tensors of a file that `write` wrote.

    Raises:
        StoreError: when there is no such file, it is of another kind or a later version, or it is
            damaged.
    """
    what = kind.removeprefix("unalike.")
    if not path.is_file():
        raise StoreError(
            f"there is no {what} at {str(path)!r}; check the path, or begin a new one and save it "
            "there"
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = parse_json((file.metadata() or {}).get(_KEY, "{}"))
            if not isinstance(header, dict):
                raise ValueError("its manifest is no JSON object")
            if header.get("kind") != kind:
                raise StoreError(
                    f"{str(path)!r} is not a {what}"
                    + (f" but a {header['kind']}" if "kind" in header else "")
                )
            found = header.get("version", 0)
            if type(found) is not int:
                raise ValueError(f"its format is {found!r}")
            if found > version:
                raise StoreError(
                    f"the {what} {str(path)!r} was written by a later release (format {found}); "
                    "upgrade unalike"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, ValueError, OSError) as error:
        raise StoreError(
            f"{str(path)!r} is damaged or not a {what} ({error}); use a backup"
        ) from error
    if header.get("checksum") != _checksum(tensors):
        raise StoreError(
            f"the {what} {str(path)!r} is damaged: its checksum does not fit its contents; use a "
            "backup"
        )
    return header, tensors


def _checksum(tensors: dict[str, Tensor]) -> int:
    value = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        if tensor.numel():
            value = zlib.crc32(
                tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data, value
            )
    return value
