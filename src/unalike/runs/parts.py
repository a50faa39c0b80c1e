"""The parts of a run that several jobs draw, each into a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unalike.errors import OptionError, StoreError, named
from unalike.memory import Memory
from unalike.runs.folder import LEDGER, PART, only_one
from unalike.runs.ledger import Ledger
from unalike.runs.plan import batches
from unalike.runs.samples import Planned

MEMORY = ".memory"


def part_name(number: int, count: int) -> str:
    """The name of the folder of a part.

    Example:
        >>> part_name(2, 8)
        'shard-2-of-8'
    """
    return f"shard-{number}-of-{count}"


def part_of(plan: Sequence[Planned], size: int, number: int, count: int) -> list[Planned]:
    """The images of a part: those of every `count`-th batch.

    Args:
        plan: all images of the run.
        size: of a batch.
        number, count: of the part and of the parts.

    Raises:
        OptionError: where there are none.

    Example:
        >>> from unalike.runs.plan import planned_images
        >>> plan = planned_images(["cat"], 6, 0)
        >>> [p.index for p in part_of(plan, 2, 1, 2)]
        [2, 3]
    """
    found = [planned for batch in batches(plan, size)[number::count] for planned in batch]
    if not found:
        raise OptionError(
            named(
                "{shard} is '{}/{}', and there are {} batches of {batch_size}; ask for as many "
                "parts at most",
                number,
                count,
                len(batches(plan, size)),
            )
        )
    return found


def part_memory(out: Path, number: int, count: int, memory: Path) -> Path:
    """The file of the memory of a part, which begins as a copy of that of the run.

    Args:
        out: the folder of all parts.
        number, count: of the part and of the parts.
        memory: of the run; it need not be there.

    Raises:
        StoreError: where it cannot be read or written.
    """
    path = out / f"{part_name(number, count)}{MEMORY}"
    out.mkdir(parents=True, exist_ok=True)
    if not path.exists() and memory.exists() and memory.resolve() != path.resolve():
        with Memory.open(memory) as whole:
            whole.save(path)
    return path


@dataclass(frozen=True)
class Part:
    """A part that is there.

    Attributes:
        path: of its folder.
        number, count: of the part and of the parts.
        ledger: of the part.
        settings: that its run depends on.
    """

    path: Path
    number: int
    count: int
    ledger: Ledger
    settings: dict[str, Any]

    @property
    def memory(self) -> Path:
        """The file of its memory, which is there where the run has one."""
        return self.path.with_name(f"{self.path.name}{MEMORY}")


@contextmanager
def opened_parts(out: Path) -> Iterator[list[Part]]:
    """Within the block no other process draws into the parts of a folder.

    Args:
        out: the folder of all parts.

    Raises:
        StoreError: where there is none, they are not of one run, or a process draws into one.
    """
    found = sorted(
        (int(match[1]), int(match[2]), path)
        for path in (out.iterdir() if out.is_dir() else ())
        if (match := PART.fullmatch(path.name)) and path.is_dir() and not path.is_symlink()
    )
    found = [entry for entry in found if (entry[2] / LEDGER).is_file()]
    if not found:
        raise StoreError(
            named(
                "there is no part in {!r}, such as {}; draw them first, as in {shard='0/4'}",
                str(out),
                part_name(0, 4),
            )
        )
    counts = sorted({count for _, count, _ in found})
    if len(counts) > 1:
        raise StoreError(
            f"{str(out)!r} has parts of {counts[0]} and of {counts[1]}; move those of another run "
            "away"
        )
    with ExitStack() as stack:
        parts = []
        for number, count, path in found:
            stack.enter_context(only_one(path))
            ledger = Ledger.open(path / LEDGER)
            stack.callback(ledger.close)
            parts.append(Part(path, number, count, ledger, ledger.get("settings")))
        yield parts
