"""The progress bar of long commands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from unalike.runs.progress import Progress, silent

_LONGEST = 60


@contextmanager
def progress_bar(description: str, *, hidden: bool) -> Iterator[Progress]:
    """One bar on the standard error stream, gone when the work is done.

    The libraries below print no hints and no bars of their own meanwhile.

    Args:
        description: what is being done, such as "drawing".
        hidden: show nothing; neither is anything shown where the stream is no terminal.
    """
    for library in ("TRANSFORMERS", "DIFFUSERS"):  # read when they are imported
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    from rich.console import Console

    console = Console(stderr=True)
    if hidden or not console.is_terminal:
        yield silent
        return
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("loading", total=None, note="")

        def tell(share: float, note: str = "") -> None:
            bar.update(task, description=description, total=1.0, completed=share)
            if note:
                bar.update(task, note=note if len(note) <= _LONGEST else f"{note[:_LONGEST]}…")

        yield tell
