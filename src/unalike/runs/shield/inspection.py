"""`unalike shield inspect`: describe a protected set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unalike.runs.numbers import counted, number
from unalike.shields.bounds import Index
from unalike.shields.manifest import Manifest
from unalike.shields.store import open_folder

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class Outcome:
    """A protected set whose checksums were all compared.

    Attributes:
        folder: the set.
        manifest: what it holds.
        inputs: how many inputs it was made of.
        index: what the search keeps in memory: `second`, the bound that follows the first;
            `coordinates`, along how many principal directions; `bytes`; `share` of the vectors in
            float16; `excluded`, the share of sampled vectors that each choice excluded.
    """

    folder: Path
    manifest: Manifest
    inputs: int
    index: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The manifest with the folder, ready for JSON."""
        entries = self.manifest.to_dict()
        return {
            "folder": str(self.folder),
            "inputs": self.inputs,
            **entries,
            "index": {**entries["index"], **self.index},
        }


def inspect(folder: Path) -> Outcome:
    """Open a protected set and make sure that it is whole.

    Raises:
        StoreError: when there is none, it is unfinished, or anything of it is missing or damaged.

    Cost: one pass over all of its files.
    """
    opened = open_folder(folder)
    manifest, index = opened.manifest, Index.from_tensors(opened.index)
    about = {
        "second": index.second,
        "coordinates": len(index.contraction.basis),
        "resident_bytes": index.resident_bytes,
        "share": index.resident_bytes / (2 * manifest.count * manifest.dimension),
        "excluded": dict(index.measured),
    }
    return Outcome(folder, manifest, sum(map(len, opened.sources)), about)


def words(outcome: Outcome) -> list[tuple[str, str]]:
    """Headings and sentences that describe a set."""
    m, index = outcome.manifest, outcome.index
    shape = " × ".join(map(str, m.shape))
    stored = sum(shard.bytes for shard in m.shards)
    files = f"{len(m.shards)} file{'s' if len(m.shards) > 1 else ''}"
    again = outcome.inputs - m.count
    lines = [
        ("vectors", f"{m.count:,} of {shape} numbers in {m.dtype}, {size(stored)} in {files}"),
        (
            "inputs",
            f"{outcome.inputs:,}"
            + (f", {again:,} of them duplicates of others" if again else ", no two of them equal"),
        ),
        ("space", f"{m.space}" + ("" if m.embedding is None else f" (features {m.embedding})")),
    ]
    if m.size is not None:
        lines.append(("images", f"resized to {m.size[0]} × {m.size[1]} pixels (height × width)"))
    lines += [("radius", radius_in_words(m.radius, m.radius_source)), ("rounding", _rounding(m))]
    second = {
        "coordinates": "further coordinates one by one",
        "signs": "the signs of all components",
    }[index["second"]]
    excluded = index["excluded"].get(index["second"])
    lines += [
        ("index", f"{index['coordinates']} principal coordinates, then {second}"),
        (
            "memory",
            f"{size(index['resident_bytes'])} stay in memory, {index['share']:.1%} of the vectors "
            "in float16",
        ),
    ]
    if excluded is not None:
        lines.append(("bounds", f"exclude {excluded:.1%} of sampled vectors without reading them"))
    made = (
        "as built"
        if not m.generation
        else f"after {m.generation} addition{'s' if m.generation > 1 else ''}"
    )
    return [*lines, ("checksum", f"{m.checksum} ({made}; all files fit theirs)")]


def radius_in_words(radius: float, source: Mapping[str, Any] | None) -> str:
    """A radius and how it was found.

    Example:
        >>> radius_in_words(20.0, None)
        '20, as given'
    """
    if source is None:
        return f"{number(radius, 6)}, as given"
    if source.get("copy_distance") is not None:
        known = "the distance below which two images are copies in this space"
        errors = f"; {source['errors']}" if source.get("errors") else ""
        return f"{number(radius, 6)}: {known}{errors}{_wrong(source)}"
    found = [
        f"{share} the {source['quantile']:.0%} quantile ({number(own['distance'])}) of how far "
        f"{counted(own['measured'] - own['copies'], noun)} "
        f"{'is' if own['measured'] - own['copies'] == 1 else 'are'} from {what}"
        f"{_left_out(own)}"
        for name, share, noun, what in _MEASURED
        if (own := source.get(name)) and own["distance"] is not None
    ]
    if not found:
        found = ["the largest distance of an image to its nearest, since all are copies"]
    return f"{number(radius, 6)}, measured: {'; '.join(found)}{_wrong(source)}"


def _wrong(source: Mapping[str, Any]) -> str:
    """A clause with the share of unguided images that are no copies and would be refused."""
    own = source.get("generated")
    share = own["others_inside"] if own else None
    if share is None:
        return ""
    return f"; {share:.1%} of unguided images that are no copies are inside"


_MEASURED = (
    ("protected", "half", "protected image", "the nearest other"),
    ("generated", "at most", "unguided image", "the nearest protected one"),
)


def _left_out(measured: Mapping[str, Any]) -> str:
    """The number of copies, which the quantile leaves out."""
    copies = measured["copies"]
    if not copies:
        return ""
    return f" ({copies:,} of {counted(measured['measured'], 'image')} left out as copies)"


def size(count: float) -> str:
    """A number of bytes for people.

    Example:
        >>> size(500), size(3 * 2**20)
        ('500 bytes', '3.0 MiB')
    """
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} {_UNITS[0]}" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"


def _rounding(manifest: Manifest) -> str:
    if manifest.rounding == 0:
        return "none: vectors are stored as they were encoded"
    return (
        f"at most {manifest.rounding:.3g} between a vector and what is stored of it, which the "
        "balls are larger by"
    )
