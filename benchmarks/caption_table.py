"""Reading a table of images and their captions, `url TAB caption`, in memory that its repeated
captions set, not its rows.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unalike.errors import StoreError

HOST = re.compile(r"https?://(?:[^/?#\s@]*@)?([^/?#\s:@]+)", re.IGNORECASE)
_STRIDE = 2**16  # rows between two calls of progress

Progress = Callable[[float], None]


@dataclass
class Group:
    """The images of one caption: their rows in the table, from 1, and URLs; how many there are, and
    no more of them, beyond `most`.
    """

    images: int = 0
    rows: list[int] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)


class Table:
    """The rows of a table, and those that are none."""

    def __init__(self, path: Path, skipped: Path | None) -> None:
        self.path, self.skipped = path, skipped
        self.good = 0
        self.bad: Counter[str] = Counter()
        self.first: list[str] = []

    def read(self, progress: Progress) -> Iterator[tuple[int, str, str]]:
        """Row, URL and caption of each row that has them; the others are counted at the first
        time.
        """
        again, good, done, size = (
            self.good > 0 or bool(self.bad),
            0,
            0,
            max(1, self.path.stat().st_size),
        )
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                done += len(line)
                if number % _STRIDE == 0:
                    progress(done / size)
                url, caption, reason = _parsed(line)
                if not reason:
                    good += 1
                    yield number, url, caption
                elif not again:
                    self._count(number, reason)
        if not again:
            self.good = good
        progress(1.0)

    def _count(self, number: int, reason: str) -> None:
        if self.skipped is not None:
            with self.skipped.open("a", encoding="utf-8") as file:
                file.write(f"{number}\t{reason}\n")
        if len(self.first) < 5:
            self.first.append(f"row {number} has {reason}")
        self.bad[reason] += 1

    def check(self) -> None:
        """Raise where there are rows that are none and they are not to be skipped."""
        if self.bad and self.skipped is None:
            raise StoreError(
                f"{self.bad.total()} of {self.good + self.bad.total()} rows of {str(self.path)!r} "
                "are not url TAB caption: "
                f"{'; '.join(self.first)}{' …' if self.bad.total() > len(self.first) else ''}; "
                "mend them, or leave them out with skip_bad=True (--skip-bad)"
            )


def _parsed(line: bytes) -> tuple[str, str, str]:
    """URL, caption, and what is wrong, which is nothing for most."""
    try:
        parts = line.decode("utf-8").rstrip("\r\n").split("\t")
    except UnicodeDecodeError:
        return "", "", "bytes that are not UTF-8"
    if len(parts) != 2:
        return "", "", f"{len(parts)} fields in place of 2"
    if not HOST.match(parts[0]):
        return "", "", "no http URL in its first field"
    url, caption = parts
    return (url, caption, "") if caption.strip() else ("", "", "an empty caption")


def _digest(caption: str) -> bytes:
    return hashlib.blake2b(caption.encode(), digest_size=8).digest()


def repeated_captions(
    rows: Iterator[tuple[int, str, str]], least: int
) -> tuple[frozenset[bytes], int]:
    """The digests of captions that occur `least` times or more, and the number of different
    captions, in 9 bytes a row.
    """
    digests = bytearray()
    for _, _, caption in rows:
        digests += _digest(caption)
    found = np.frombuffer(digests, dtype=np.uint64)
    found.sort()
    last = found[least - 1 :]
    often = np.unique(last[last == found[: len(last)]])
    return frozenset(digest.tobytes() for digest in often), len(found) - int(
        np.count_nonzero(found[1:] == found[:-1])
    )


def grouped(
    rows: Iterator[tuple[int, str, str]], repeated: frozenset[bytes], most: int
) -> dict[str, Group]:
    """The images of captions whose digest is among those; two captions of one digest stay two."""
    groups: dict[str, Group] = {}
    for number, url, caption in rows:
        if _digest(caption) not in repeated:
            continue
        group = groups.setdefault(caption, Group())
        group.images += 1
        if group.images > most:
            group.rows, group.urls = [], []
        else:
            group.rows.append(number)
            group.urls.append(url)
    return groups
