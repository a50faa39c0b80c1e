"""The emoji data set: images, names, captions, and the exact set of right images for a
prompt.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unalike.errors import OptionError, close_to

SIDE = 64


@dataclass(frozen=True)
class Entry:
    """One emoji.

    Attributes:
        text: the emoji itself.
        name: its CLDR name, such as `woman running: dark skin tone`.
        group, subgroup: of Unicode's emoji-test.
        toneless: the name without skin tones.
        base: the name without skin tones and gender, such as `person running`.
        gender: `female`, `male`, `neutral`, or None where the name does not set genders apart.
        tones: skin tones named, at most two.
        hair: hair named, or None.
        keywords: CLDR keywords.
        image: index of its image in `load_images()`; some emoji share one (the flags of France
            and Clipperton Island).
    """

    text: str
    name: str
    group: str
    subgroup: str
    toneless: str
    base: str
    gender: str | None
    tones: tuple[str, ...]
    hair: str | None
    keywords: tuple[str, ...]
    image: int


@dataclass(frozen=True)
class Captions:
    """The captions of one emoji, by kind; each kind may be empty.

    `full` names this very image: the CLDR name, with `yellow skin tone` added where the name
    without it also stands for all tones.
    """

    full: str
    toneless: tuple[str, ...]
    neutral: tuple[str, ...]
    concepts: tuple[str, ...]
    keywords: tuple[str, ...]


def normalised(prompt: str) -> str:
    """A prompt in the form in which captions are compared: lower case, words and digits (and `#`,
    `*`) parted by single spaces.
    """
    return " ".join(re.findall(r"[\w#*']+", prompt.lower()))


@cache
def load_images() -> Tensor:
    """All distinct images as uint8 (3650, 3, 64, 64), in the order of `Entry.image`."""
    with (
        resources.files("unalike.models.emoji").joinpath("dataset/images.webp").open("rb") as f,
        Image.open(f) as sheet,
    ):
        pixels = np.asarray(sheet.convert("RGB"))
    rows, columns = pixels.shape[0] // SIDE, pixels.shape[1] // SIDE
    tiles = (
        pixels.reshape(rows, SIDE, columns, SIDE, 3)
        .transpose(0, 2, 4, 1, 3)
        .reshape(-1, 3, SIDE, SIDE)
    )
    count = 1 + max(entry.image for entry in entries())
    return torch.from_numpy(np.ascontiguousarray(tiles[:count]))


@cache
def entries() -> tuple[Entry, ...]:
    """The records of all 3,664 emoji, in Unicode's order."""
    records: list[dict[str, Any]] = json.loads(
        resources.files("unalike.models.emoji")
        .joinpath("dataset/entries.json")
        .read_text(encoding="utf-8")
    )
    for record in records:
        record |= {"tones": tuple(record["tones"]), "keywords": tuple(record["keywords"])}
    return tuple(Entry(**record) for record in records)


@cache
def concepts() -> dict[str, frozenset[str]]:
    """Head words such as `heart` or `clock`, each with the toneless names that it stands for.

    The table `concepts.json` lists names, subgroups (`@food-fruit`), beginnings of names
    (`@@family: `) and exceptions (`-feather`).

    Raises:
        OptionError: where the table names something that does not exist.
    """
    table: dict[str, list[str]] = json.loads(
        resources.files("unalike.models.emoji")
        .joinpath("concepts.json")
        .read_text(encoding="utf-8")
    )
    names = {entry.toneless for entry in entries()}
    found: dict[str, frozenset[str]] = {}
    for word, rules in table.items():
        members: set[str] = set()
        for rule in rules:
            if rule.startswith("@@"):
                matched = {n for n in names if n.startswith(rule[2:])}
            elif rule.startswith("@"):
                matched = {e.toneless for e in entries() if e.subgroup == rule[1:]}
            else:
                matched = names & {rule.removeprefix("-")}
            if not matched:
                raise OptionError(
                    f"concepts.json: {word!r} lists {rule!r}, which matches no emoji name or "
                    "subgroup"
                )
            members = members - matched if rule.startswith("-") else members | matched
        found[word] = frozenset(members)
    return found


@cache
def captions() -> tuple[Captions, ...]:
    """The captions of each of `entries()`, in the same order."""
    tones: dict[str, int] = {}
    for entry in entries():
        tones[entry.toneless] = tones.get(entry.toneless, 0) + 1
    by_name: dict[str, list[str]] = {}
    for word, members in concepts().items():
        for name in members:
            by_name.setdefault(name, []).append(word)
    reserved = {
        normalised(text) for entry in entries() for text in (entry.name, entry.toneless, entry.base)
    }
    reserved |= {normalised(word) for word in concepts()}
    result = []
    for entry in entries():
        varied = tones[entry.toneless] > 1
        keywords = (
            k for k in entry.keywords if "skin tone" not in k and normalised(k) not in reserved
        )
        result.append(
            Captions(
                full=f"{entry.name}{',' if ': ' in entry.name else ':'} yellow skin tone"
                if varied and not entry.tones
                else entry.name,
                toneless=(entry.toneless,) if varied else (),
                neutral=(entry.base,) if entry.gender and entry.base != entry.toneless else (),
                concepts=tuple(word for word in by_name.get(entry.toneless, ())),
                keywords=tuple(keywords),
            )
        )
    return tuple(result)


@cache
def _images_by_caption() -> dict[str, frozenset[int]]:
    """Normalised caption → images. Keywords stand apart in their own captions: they never equal a
    name or a head word.
    """
    found: dict[str, set[int]] = {}
    for entry, own in zip(entries(), captions(), strict=True):
        for text in (
            entry.name,
            own.full,
            *own.toneless,
            *own.neutral,
            *own.concepts,
            *own.keywords,
        ):
            found.setdefault(normalised(text), set()).add(entry.image)
        if entry.gender == "neutral" and own.toneless:
            found.setdefault(normalised(entry.base), set()).add(entry.image)
    return {caption: frozenset(images) for caption, images in found.items()}


def truth(prompt: str) -> Tensor:
    """The indices (k,) int64, ascending, of all images in `load_images()` that are right for a
    prompt.

    A full name has one, `woman running` six (skin tones), `person running` eighteen, `flag`
    260-odd. Case and punctuation do not matter.

    Raises:
        OptionError: for a prompt that is no name, head word or keyword of the data set; the message
            lists the closest.

    Example:
        >>> truth("woman running").shape
        torch.Size([6])
    """
    known = _images_by_caption()
    images = known.get(normalised(prompt))
    if images is None:
        near = close_to(normalised(prompt), known, 5)
        hint = (
            f"closest: {', '.join(near)}"
            if near
            else "examples: heart, clock, person running, flag: France"
        )
        raise OptionError(f"prompt {prompt!r} is no emoji name, head word or keyword; {hint}")
    return torch.tensor(sorted(images))
