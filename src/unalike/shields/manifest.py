"""Describe a protected set on disk in `manifest.json`, with the digests of its files."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Self

from unalike.errors import OptionError, StoreError
from unalike.files import read_json
from unalike.shields import disk
from unalike.shields.vectors import DTYPES, FARTHEST

KIND = "unalike.shield"
VERSION = 2


@dataclass(frozen=True)
class File:
    """A file of the set: its name, length and SHA-256."""

    file: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Describe a file that is complete."""
        return cls(path.name, path.stat().st_size, disk.sha256(path))

    def check(self, folder: Path, *, contents: bool = True) -> None:
        """Refuse a file that is missing, has another length or, with `contents`, another digest.

        Raises:
            StoreError: naming the file.
        """
        path = folder / self.file
        size = path.stat().st_size if path.is_file() else None
        if size != self.bytes:
            state = (
                "missing"
                if size is None
                else f"damaged: it has {size} bytes and should have {self.bytes}"
            )
            raise StoreError(
                f"the protected set {str(folder)!r} cannot be used: {self.file!r} is {state}; use "
                "a backup or build it again"
            )
        if contents and disk.sha256(path) != self.sha256:
            raise StoreError(
                f"the protected set {str(folder)!r} cannot be used: {self.file!r} is damaged, its "
                "checksum does not fit its contents; use a backup or build it again"
            )


@dataclass(frozen=True)
class Shard(File):
    """A file of vectors, and their number."""

    count: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Description of a protected set.

    Attributes:
        count: n, how many different vectors.
        shape: of one of them, as the model has it.
        space: names the space that they live in.
        dtype: how they are stored, "float16" or "float32".
        radius: of the balls.
        radius_source: how the radius was found where it was measured; None where it was given.
        rounding: the largest Euclidean distance between a vector and what is stored of it.
        embedding: the spelling of the features, such as "clip"; None in a latent space.
        size: height and width that images are resized to before they are encoded; None where they
            are not.
        model: the name or the hub id of the model whose latents they are; None where it has none.
        generation: 0 as built, one more with each addition.
        shards, names, index: the files.
    """

    count: int
    shape: tuple[int, ...]
    space: str
    dtype: str
    radius: float
    radius_source: dict[str, Any] | None
    rounding: float
    embedding: str | None
    size: tuple[int, int] | None
    generation: int
    shards: tuple[Shard, ...]
    names: File
    index: File
    model: str | None = None

    @property
    def dimension(self) -> int:
        """d, the product of the shape."""
        return math.prod(self.shape)

    @property
    def checksum(self) -> str:
        """SHA-256 of all entries, with the digests of all files; equal for equal sets alone."""
        return hashlib.sha256(json.dumps(self._entries(), sort_keys=True).encode()).hexdigest()

    @property
    def files(self) -> set[str]:
        """Names of the files of the set."""
        return {entry.file for entry in (*self.shards, self.names, self.index)}

    def to_dict(self) -> dict[str, Any]:
        """The manifest as a dictionary for JSON."""
        return {"kind": KIND, "version": VERSION, **self._entries(), "checksum": self.checksum}

    def _entries(self) -> dict[str, Any]:
        entries = asdict(self)
        entries["shape"], entries["size"] = (
            list(self.shape),
            None if self.size is None else list(self.size),
        )
        entries["shards"] = list(entries["shards"])
        if self.model is None:  # sets of earlier releases do not say it
            del entries["model"]
        return {"dimension": self.dimension, **entries}

    def write(self, folder: Path) -> None:
        """Write the manifest, replacing an earlier one in one go."""
        data = (
            json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False).encode()
            + b"\n"
        )
        disk.place(folder / disk.MANIFEST, lambda path: path.write_bytes(data), len(data))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest in a folder; its files are not looked at.

        Raises:
            StoreError: when there is none, it is of another kind or version, or it is damaged.
        """
        path = folder / disk.MANIFEST
        if not path.is_file():
            raise StoreError(
                f"there is no protected set in {str(folder)!r}; build one with `unalike shield "
                "build IMAGES --out DIR`"
            )
        try:
            content = read_json(path)
        except (OSError, ValueError) as error:
            raise _damaged(folder, f"its manifest cannot be read ({error})") from error
        if not isinstance(content, dict) or content.get("kind") != KIND:
            raise StoreError(
                f"{str(folder)!r} holds no protected set but another manifest; give a folder of "
                "`unalike shield build`"
            )
        version = content.get("version")
        if version != VERSION:
            later = isinstance(version, int) and version > VERSION
            hint = "upgrade unalike" if later else "build it again with `unalike shield build`"
            raise StoreError(
                f"the protected set {str(folder)!r} has format {version}, and this release reads "
                f"{VERSION}; {hint}"
            )
        try:
            manifest = cls._parsed(content)
            checksum = manifest.checksum
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise _damaged(folder, f"its manifest is incomplete or wrong ({error})") from error
        if checksum != content.get("checksum"):
            raise _damaged(folder, "the checksum of its manifest does not fit")
        if sum(shard.count for shard in manifest.shards) != manifest.count:
            raise _damaged(
                folder,
                f"its manifest says {manifest.count} vectors and lists files of another number",
            )
        return manifest

    @classmethod
    def _parsed(cls, content: dict[str, Any]) -> Self:
        fields = [name for name in cls.__dataclass_fields__ if name != "model"]
        entries = {name: content[name] for name in fields}
        model = content.get("model")
        entries["model"] = model if isinstance(model, str) else None
        entries["shape"] = _whole_numbers("shape", content["shape"])
        size = content["size"]
        entries["size"] = None if size is None else _whole_numbers("size", size)
        entries["shards"] = tuple(Shard(**shard) for shard in content["shards"])
        entries["names"], entries["index"] = File(**content["names"]), File(**content["index"])
        manifest = cls(**entries)
        manifest._require_types()
        require_settings(manifest.space, manifest.shape, manifest.dtype)
        require_radius(manifest.radius)
        return manifest

    def _require_types(self) -> None:
        files = (*self.shards, self.names, self.index)
        for file in files:
            if not isinstance(file.file, str) or Path(file.file).name != file.file:
                raise ValueError(f"{file.file!r} is no file of the folder")
            _whole_numbers("bytes", [file.bytes])
        _whole_numbers(
            "counts", [self.count, self.generation, *(shard.count for shard in self.shards)]
        )
        texts = [self.space, self.dtype, *(file.sha256 for file in files)]
        if self.embedding is not None:
            texts.append(self.embedding)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a name is no text")
        if self.size is not None and len(self.size) != 2:
            raise ValueError(f"size is {list(self.size)}")
        if self.radius_source is not None and not isinstance(self.radius_source, dict):
            raise ValueError("radius_source is no JSON object")
        if type(self.rounding) not in (int, float) or not 0 <= self.rounding < math.inf:
            raise ValueError(f"rounding is {self.rounding!r}")


def _whole_numbers(name: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(n) is int and n >= 0 for n in values):
        raise ValueError(f"{name} is {values!r}")
    return tuple(values)


def require_radius(radius: Any) -> float:
    """Check a radius and return it as a float.

    Raises:
        OptionError: for anything but a number above 0, not beyond what float64 can square.

    Example:
        >>> require_radius(-1)
        Traceback (most recent call last):
            ...
        unalike.errors.OptionError: radius is -1; allowed: a finite number above 0, as in ...
    """
    number = isinstance(radius, Real) and not isinstance(radius, bool)
    try:
        value = float(radius) if number else math.nan
    except OverflowError:  # an integer that no float can hold
        value = math.inf
    if not (0 < value < math.inf):
        raise OptionError(
            f"radius is {radius!r}; allowed: a finite number above 0, as in radius=20.0"
        )
    if not 1 / FARTHEST <= value <= FARTHEST:
        raise OptionError(
            f"radius is {value:g}; allowed: {1 / FARTHEST:g} to {FARTHEST:g}, as in radius=20.0"
        )
    return value


def require_settings(space: str, shape: tuple[int, ...], dtype: str) -> None:
    """Refuse a space, shape or precision that no set can have.

    Raises:
        OptionError: otherwise.
    """
    if not space:
        raise OptionError(
            "space is empty; name the space of the vectors, as latent_space(latent_model(pipe), "
            "shape) does"
        )
    if not shape or any(n < 1 for n in shape):
        raise OptionError(f"shape is {shape}; allowed: the shape of one vector, as in (4, 64, 64)")
    if dtype not in DTYPES:
        raise OptionError(f"dtype is {dtype!r}; allowed: {', '.join(DTYPES)}")


def _damaged(folder: Path, reason: str) -> StoreError:
    return StoreError(
        f"the protected set {str(folder)!r} is damaged: {reason}; use a backup or build it again"
    )
