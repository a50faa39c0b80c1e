"""Decide which folders a build or an addition may write to."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from unalike.errors import StoreError
from unalike.shields import disk, journal
from unalike.shields.manifest import Manifest
from unalike.shields.store import unfinished


def require_free(folder: Path) -> None:
    """Refuse folders that a build may not begin or go on in.

    Raises:
        StoreError: for one that holds something else, or a set that is finished.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise StoreError(
            f"{str(folder)!r} is a file; give a folder of its own to the protected set"
        )
    foreign = disk.foreign_files(folder)
    if foreign:
        raise StoreError(
            f"the folder {str(folder)!r} holds other files ({foreign[0]}); give one of its own to "
            "the protected set"
        )
    tidy(folder)
    if (folder / disk.MANIFEST).is_file():
        count = Manifest.read(folder).count
        raise StoreError(
            f"the folder {str(folder)!r} holds a protected set of {count} vectors already; add to "
            f"it with `unalike shield add {shlex.quote(str(folder))} IMAGES`, or give another "
            "folder"
        )
    stray = disk.own_files(folder)
    if stray and not (folder / disk.JOURNAL).exists():
        raise StoreError(
            f"the folder {str(folder)!r} holds parts of a set that lacks its manifest "
            f"({min(stray)}); give another folder"
        )


def tidy(folder: Path) -> None:
    """Remove files that a finished build or addition left over."""
    entries = journal.read(folder)
    if entries is None or not (folder / disk.MANIFEST).is_file():
        return
    manifest = Manifest.read(folder)
    if not unfinished(entries, manifest):
        held = journal.Journal.hold(folder)
        disk.remove(folder, disk.own_files(folder) - manifest.files)
        held.remove()


def other_settings(folder: Path, begun: dict[str, Any], asked: dict[str, Any]) -> str:
    """Explain how a journal differs from what is asked for now."""
    if begun.get("base") != asked["base"] or begun.get("version") != asked["version"]:
        return (
            f"what was begun in {str(folder)!r} is of another set or release; discard it with "
            f"`unalike shield add {shlex.quote(str(folder))} --discard`"
        )
    before, now = begun.get("settings"), asked["settings"]
    if not isinstance(before, dict):
        return (
            f"the journal of {str(folder)!r} does not begin with its settings; discard it with "
            f"`unalike shield add {folder} --discard`"
        )
    differing = [
        f"{name} {before.get(name)!r}, now {value!r}"
        for name, value in now.items()
        if before.get(name) != value
    ]
    return (
        f"an interrupted build in {str(folder)!r} has other settings ({'; '.join(differing)}); "
        "give the same, or another folder"
    )
