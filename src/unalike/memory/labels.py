"""Name samples: by text, seed, item and run."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from unalike.errors import OptionError, shown

_LONGEST_NAME = 1000
_LARGEST_THUMBNAIL = 1 << 16


class Label(NamedTuple):
    """What is known of a sample beside its numbers.

    Attributes:
        text: its prompt.
        seed: the seed it can be made from again.
        item: names it; a memory holds a name once.
        run: the run that made it.
        created: when it was added, in seconds since 1970.
    """

    text: str | None
    seed: int | None
    item: str
    run: str | None
    created: float


@dataclass(frozen=True)
class Mark:
    """The run that adds samples, and the items of the images of its call."""

    run: str
    items: tuple[str, ...]

    @classmethod
    def checked(cls, run: Any, items: Any) -> Self:
        """A mark of what was given.

        Raises:
            OptionError: for a run or an item that is no text.
        """
        if isinstance(items, str) or not isinstance(items, Sequence):
            raise OptionError(
                f"items is {shown(items)}; allowed: a list of names, as in ['a', 'b']"
            )
        require_text("run", run)
        return cls(run, tuple(require_text("items", item) for item in items))

    def taken(self, places: Sequence[int]) -> list[str]:
        """The items at these places.

        Raises:
            OptionError: for a place that has none.
        """
        for place in places:
            if not isinstance(place, int) or not 0 <= place < len(self.items):
                raise OptionError(
                    f"places has {shown(place)} and there are {len(self.items)} items; allowed: "
                    "whole numbers from 0 up to their number"
                )
        return [self.items[place] for place in places]


def item_of(space: str, text: str | None, seed: int | None, latent: bytes) -> str:
    """The name of a sample that was given none: a hash of what it is.

    Example:
        >>> item_of("s/2", "cat", 7, b"")[:16]
        'd3701729169ae9a3'
    """
    known = json.dumps([space, text, seed]).encode()
    return hashlib.sha256(known + b"\0" + latent).hexdigest()


def names(
    space: str,
    known: Sequence[tuple[str | None, int | None]],
    latents: Sequence[bytes],
    items: Sequence[str] | None,
    places: Sequence[int] | None,
    mark: Mark | None,
) -> list[Label]:
    """The labels of a batch.

    Args:
        space, items, places: as of `Memory.add`.
        known: text and seed of each sample.
        latents: the numbers of each.
        mark: of the thread, where it has one.

    Raises:
        OptionError: for items and places that are not one for each sample.
    """
    count = len(known)
    require_one_each("items", items, count)
    if items is not None:
        items = [require_text("items", item) for item in items]
    elif mark is not None:
        require_one_each("places", places, count)
        items = mark.taken(range(count) if places is None else places)
    run, created = None if mark is None else mark.run, time.time()
    return [
        Label(
            text, seed, items[i] if items else item_of(space, text, seed, latents[i]), run, created
        )
        for i, (text, seed) in enumerate(known)
    ]


def matching(
    *,
    items: Collection[str] | None,
    texts: Collection[str] | None,
    seeds: Collection[int] | None,
    run: str | None,
) -> Callable[[Label], bool]:
    """A function that tells whether a label fits all that is given.

    Raises:
        OptionError: where nothing is given, and for a single text or number in place of several.
    """
    wanted: dict[str, set[Any]] = {}
    for name, field, values in (("items", "item", items), ("texts", "text", texts),
                                ("seeds", "seed", seeds)):  # fmt: skip
        if values is None:
            continue
        if isinstance(values, str | bytes) or not isinstance(values, Collection):
            raise OptionError(f"{name} is {shown(values)}; allowed: a list, as in {name}=[…]")
        wanted[field] = set(values)
    if run is not None:
        wanted["run"] = {require_text("run", run)}
    if not wanted:
        raise OptionError(
            "nothing says which samples to remove; give items, texts, seeds or run, as in "
            "remove(run='monday')"
        )
    return lambda label: all(getattr(label, field) in own for field, own in wanted.items())


def require_thumbnail(item: Any, image: Any) -> None:
    """Refuse anything but a small WebP image.

    Raises:
        OptionError: that says what is allowed.
    """
    require_text("images", item)
    webp = isinstance(image, bytes) and image[:4] == b"RIFF" and image[8:12] == b"WEBP"
    if not webp or len(image) > _LARGEST_THUMBNAIL:
        got = f"{len(image):,} bytes" if isinstance(image, bytes) else f"a {type(image).__name__}"
        raise OptionError(
            f"images has {got} for {shown(item)}; allowed: a WebP image of at most "
            f"{_LARGEST_THUMBNAIL:,} bytes"
        )


def require_one_each(name: str, values: Any, count: int) -> None:
    """Refuse anything but None and one value for each of `count` samples."""
    if values is None:
        return
    if not hasattr(values, "__len__") or isinstance(values, str | bytes):
        raise OptionError(f"{name} is {shown(values)}; give one for each latent, or None")
    if len(values) != count:
        raise OptionError(
            f"{name} has {len(values)} entries for {count} latents; give one for each, or None"
        )


def require_text(name: str, value: Any, *, empty: bool = False) -> str:
    """Refuse anything but text that a file can hold."""
    long = not empty and isinstance(value, str) and len(value) > _LONGEST_NAME
    if not isinstance(value, str) or long or not (value or empty):
        raise OptionError(
            f"{name} is {shown(value)}; allowed: text of up to {_LONGEST_NAME} characters"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise OptionError(
            f"{name} has {shown(value)}, which is no UTF-8 text; leave out the surrogates"
        ) from None
    return value
