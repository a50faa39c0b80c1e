"""Serialize the state that a guided pipeline keeps between calls, for a later process.

Values are plain ones, tensors, tuples, lists, dicts and methods. The bytes are a safetensors file
with the structure as JSON in its header.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from torch import Tensor

from unalike import tensorfile
from unalike.errors import StoreError
from unalike.guidance.method import Method
from unalike.guidance.methods import build, described


def to_bytes(streams: Sequence[Mapping[str, Any]], calibrations: Mapping[str, Method]) -> bytes:
    """Storage of the methods and calibrated methods as bytes; `from_bytes` reads them.

    Args:
        streams: what each method stored.
        calibrations: by `digest` of their key.
    """
    tensors: dict[str, Tensor] = {}
    methods = {key: described(method) for key, method in calibrations.items()}
    structure = {"streams": _encoded(list(streams), tensors), "calibrations": methods}
    return tensorfile.to_bytes(structure, tensors)


def from_bytes(data: bytes) -> tuple[list[dict[str, Any]], dict[str, Method]]:
    """Read the storage and the calibrated methods that `to_bytes` wrote.

    Raises:
        StoreError: for damaged bytes.

    Example:
        >>> streams, calibrations = from_bytes(to_bytes([{"prompts": ((1, "a"),)}], {}))
        >>> streams
        [{'prompts': ((1, 'a'),)}]
    """
    try:
        structure, tensors = tensorfile.from_bytes(data)
        streams = _decoded(structure["streams"], tensors)
        methods = {
            key: build(entry["name"], **entry["options"])
            for key, entry in structure["calibrations"].items()
        }
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"what the guidance carries from batch to batch is damaged ({error}); begin the run "
            "anew"
        ) from error
    return streams, methods


def digest(key: Hashable) -> str:
    """A text for the key of a calibration that is the same in every process."""
    return hashlib.sha256(repr(key).encode()).hexdigest()


def _encoded(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_encoded(v, tensors) for v in value]}
    if isinstance(value, Mapping):
        return {"dict": [[_encoded(k, tensors), _encoded(v, tensors)] for k, v in value.items()]}
    return {"plain": value}


def _decoded(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return tensors[inner]
    if kind in ("tuple", "list"):
        found = [_decoded(v, tensors) for v in inner]
        return tuple(found) if kind == "tuple" else found
    if kind == "dict":
        return {_decoded(k, tensors): _decoded(v, tensors) for k, v in inner}
    return inner
