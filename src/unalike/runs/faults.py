"""What is wrong with the rows of a file, told all at once."""

from __future__ import annotations

from unalike.errors import Message, RowsError, named
from unalike.runs.numbers import counted

SHOWN = 20
"""The most faults that a message lists."""


class Faults:
    """Collects what is wrong with the rows of a file, each a clause after the row's number.

    Args:
        unit: what the numbers count: "line", "row" or "entry".

    Example:
        >>> faults = Faults("line")
        >>> faults.add(3, "has no prompt")
        >>> faults.refuse(named("{prompts} has"))
        Traceback (most recent call last):
            ...
        unalike.errors.RowsError: prompts has 1 fault:
          line 3 has no prompt
    """

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.found: list[tuple[int, str | Message]] = []

    def add(self, number: int, clause: str | Message) -> None:
        """Keep what is wrong with the row of this number."""
        self.found.append((number, clause))

    def refuse(self, head: Message) -> None:
        """Raise where there is a fault.

        Args:
            head: the beginning of the message, which goes on with the number of faults.

        Raises:
            RowsError: listing the first faults in order.
        """
        if not self.found:
            return
        found = sorted(self.found, key=lambda fault: fault[0])
        lines = [
            named("\n  {} {} {}", self.unit, number, clause) for number, clause in found[:SHOWN]
        ]
        more = len(found) - len(lines)
        end = f"\n  … and {more:,} more" if more else ""
        template = "{} {}:" + "{}" * len(lines) + "{}"
        raise RowsError(named(template, head, counted(len(found), "fault"), *lines, end), found)
