"""Join the parts of a run into one folder, as if one worker had drawn them."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unalike.errors import StoreError, named
from unalike.files import replacing, sync_folder
from unalike.memory import Memory
from unalike.memory.merging import merge as merge_memories
from unalike.runs.about import About
from unalike.runs.finishing import finish
from unalike.runs.folder import SHARDS, RunFolder, only_one
from unalike.runs.identity import identity, plan_settings, whole_settings
from unalike.runs.job import Job, Outcome
from unalike.runs.ledger import Failure, Ledger
from unalike.runs.parameters import ImageInfo
from unalike.runs.parts import Part, opened_parts, part_name
from unalike.runs.plain import from_plain
from unalike.runs.plan import with_items
from unalike.runs.progress import Counter, Progress, silent
from unalike.runs.samples import Planned, Sample
from unalike.runs.shards import shard_name

_OWN = ("images", "prompts and seeds", "memory")
"""Settings of a part that are not those of the whole run."""


def merge(job: Job, progress: Progress | None = None) -> Outcome:
    """Join the parts in the output folder into it; the parts stay as they are.

    Images are linked where the file system can, and copied elsewhere. Parts may be missing or
    unfinished: what is not there is named, and can be drawn into the joined folder by the same
    command without `--merge`. Merging again adds what the parts have drawn since.

    Args:
        job: the whole run, its output folder that of the parts.
        progress: told the share of the work that is done.

    Raises:
        StoreError: where there are no parts, they are not of this run, or something cannot be
            written.
    """
    with opened_parts(job.out) as parts:
        settings = _common_settings(parts)
        plan = with_items(job.plan, identity(settings["image"]))
        _require_planned(parts, plan)
        folder = RunFolder.claim(job.out, resume=True)
        with only_one(folder.path):
            folder.remove_partial_files()
            ledger = _ledger(job, folder, parts[0], settings, plan)
            try:
                _join(folder, ledger, parts, progress or silent)
                if job.settings.memory is not None:
                    _join_memories(job.settings.memory, parts)
                return _finished(folder, ledger, parts, plan)
            finally:
                ledger.close()


def _common_settings(parts: Sequence[Part]) -> dict[str, dict[str, Any]]:
    """What all parts depend on: of their images, and of the run."""
    for part in parts[1:]:
        different = [
            name
            for name in dict.fromkeys([*parts[0].settings, *part.settings])
            if name not in _OWN and part.settings.get(name) != parts[0].settings.get(name)
        ]
        if different:
            raise StoreError(
                f"{part.path.name} and {parts[0].path.name} were drawn with other values of "
                f"{', '.join(different)}, so they are no parts of one run; move one of them away"
            )
    images, run = whole_settings(parts[0].settings)
    return {"image": images, "run": run}


def _require_planned(parts: Sequence[Part], plan: Sequence[Planned]) -> None:
    """Refuse parts that have images which the prompts do not ask for."""
    items = {planned.item for planned in plan}
    for part in parts:
        others = part.ledger.done() - items
        if others:
            raise StoreError(
                named(
                    "{} has {} images that {source} does not ask for; give the file and the "
                    "options that the parts were drawn with",
                    part.path.name,
                    len(others),
                )
            )


def _ledger(
    job: Job,
    folder: RunFolder,
    part: Part,
    settings: Mapping[str, Mapping[str, Any]],
    plan: Sequence[Planned],
) -> Ledger:
    """The ledger of the whole run, that of an earlier merge where there is one."""
    memory = job.settings.memory
    known = {
        **settings["image"],
        **settings["run"],
        "memory": memory.name if memory else None,
        **plan_settings(plan),
    }
    if folder.ledger.exists():
        ledger = Ledger.open(folder.ledger)
        ledger.require_same(known)
        return ledger
    own = part.ledger.get("record")
    record = {
        **own,
        "command": _whole_command(own["command"], memory),
        "memory": {**own["memory"], "name": memory.name} if memory else None,
        "prompts": list(dict.fromkeys(planned.prompt for planned in plan)),
        "images": {**own["images"], "planned": len(plan)},
    }
    folder.start(record)
    return Ledger.create(folder.ledger, known, record, about=part.ledger.get("about"))


def _whole_command(command: str, memory: Path | None) -> str:
    """The command of a part as that of the whole run."""
    words = shlex.split(command)
    place = words.index("--shard")
    del words[place : place + 2]
    if memory is not None and "--memory" in words:
        words[words.index("--memory") + 1] = str(memory.resolve())
    return shlex.join(words)


def _join(folder: RunFolder, ledger: Ledger, parts: Sequence[Part], progress: Progress) -> None:
    """Bring the images of the parts into the folder, then their rows into the ledger."""
    done = ledger.done()
    counter = Counter(progress, len(parts), "parts")
    for part in parts:
        missing = part.ledger.done() - done
        if missing:
            places = _join_shards(folder, ledger, part)
            samples = [s for s in part.ledger.samples() if s.planned.item in missing]
            if places is None:
                _link_all(part.path, folder.path, _files(samples))
            ledger.take(part.ledger, missing, places or {})
        counter.add()


def _files(samples: Iterable[Sample]) -> Iterator[str]:
    for sample in samples:
        for stored in (sample.image, sample.unguided):
            if stored is not None:
                yield stored.path


def _join_shards(folder: RunFolder, ledger: Ledger, part: Part) -> dict[str, str] | None:
    """Link the WebDataset shards of a part under the numbers that come next.

    Returns:
        The names of the part → those in the folder; None where images are files.
    """
    state = part.ledger.get("output")
    if state is None:
        return None
    if not part.ledger.get("finished"):
        raise StoreError(
            f"{part.path.name} is not finished, and shards are joined whole; finish it first"
        )
    first, offset = ledger.get("output") or (0, 0)
    if offset:
        raise StoreError(
            f"the run in {str(folder.path)!r} has images of its own in its last shard; merge parts "
            "before you go on with it"
        )
    own = sorted((part.path / SHARDS).glob("shard-*.tar"))
    places = {path.name: shard_name(first + i) for i, path in enumerate(own)}
    for name, new in places.items():
        _link_all(part.path, folder.path, [f"{SHARDS}/{name}"], f"{SHARDS}/{new}")
    return places


def _link_all(source: Path, target: Path, names: Iterable[str], new: str | None = None) -> None:
    """Link files of one folder into another, or copy them; at the end they are on the disk.

    Args:
        source, target: the folders.
        names: of the files.
        new: the name in the target, of one file; None for the same.

    Raises:
        StoreError: where one cannot be written, or is not there.
    """
    folders: set[Path] = set()
    try:
        for name in names:
            path = target / (new or name)
            path.parent.mkdir(exist_ok=True)
            folders.add(path.parent)
            _link(source / name, path)
        for folder in folders:
            sync_folder(folder)
    except OSError as error:
        raise StoreError(
            f"{str(error.filename or source)!r} cannot be joined: {error.strerror or error}; what "
            "is joined already is kept, and the same command goes on"
        ) from error


def _link(source: Path, path: Path) -> None:
    if source.is_symlink() or not source.is_file():
        raise FileNotFoundError(errno.ENOENT, "it is no file", str(source))
    try:
        path.unlink(missing_ok=True)
        os.link(source, path)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        with replacing(path) as (partial,):
            shutil.copyfile(source, partial)


def _join_memories(memory: Path, parts: Sequence[Part]) -> None:
    """Bring the samples of the parts' memories into that of the run, in the order of time."""
    files = [part.memory for part in parts if part.memory.exists()]
    if not files:
        return
    joined = memory.with_name(f".{memory.name}.joined")
    joined.unlink(missing_ok=True)
    try:
        merge_memories(joined, [*([memory] if memory.exists() else []), *files])
        with Memory.open(joined) as whole:
            whole.save(memory)
    finally:
        for end in ("", "-wal", "-shm"):
            joined.with_name(joined.name + end).unlink(missing_ok=True)


def _finished(
    folder: RunFolder, ledger: Ledger, parts: Sequence[Part], plan: Sequence[Planned]
) -> Outcome:
    """Write the tables and pages, and name what is missing."""
    done = ledger.done()
    absent = set(range(parts[0].count)) - {part.number for part in parts}
    names = ", ".join(part_name(number, parts[0].count) for number in sorted(absent)[:5])
    why = f"not drawn; there is no {names}" if absent else "not drawn yet"
    failures = [
        Failure(planned.item, planned.index, why, 0) for planned in plan if planned.item not in done
    ]
    about = About(from_plain(ImageInfo, ledger.get("about")))
    seconds = sum(float(part.ledger.get("seconds") or 0) for part in parts)
    ledger.put(seconds=seconds, methods_as_used=parts[0].ledger.get("methods_as_used"))
    ledger.put(space=parts[0].ledger.get("space"), workers=_workers(parts))
    record, samples = finish(
        folder, ledger, ledger.get("record"), about, finished=not failures, seconds=seconds
    )
    return Outcome(folder.path, record, samples, failures)


def _workers(parts: Sequence[Part]) -> dict[str, Any]:
    return {"kind": "parts", "parts": parts[0].count, "joined": [part.number for part in parts]}
