"""`unalike memory export`: write a memory as tables, and its thumbnails as a page."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from unalike.errors import OptionError, StoreError, named
from unalike.files import replacing, sync_folder
from unalike.memory.reading import opened_rows
from unalike.memory.rows import Rows, SpaceRow
from unalike.memory.samples import Batch
from unalike.runs.html import Shown, document, figure, file_url, gallery, note, paragraph
from unalike.runs.memory.inspection import time_text
from unalike.runs.memory.settings import ExportSettings
from unalike.runs.numbers import counted

THUMBNAILS, PAGE = "thumbnails", "index.html"
MOST_SHOWN = 10_000
_SIZE = (128, 128)
_LARGEST = 2**63 - 1


def export(settings: ExportSettings) -> list[Path]:
    """Write the samples of each space as a Parquet table, and return the files.

    Columns: text, seed, space, run, item, time, shape, latent and, where there are any, prompt;
    the last two are lists of one length, in float32. Seeds that no 64-bit integer holds make that
    column one of text. With thumbnails, their files and a page of them are written too.

    Args:
        settings: what to write where.

    Raises:
        StoreError: where there is no memory, it is damaged, or the files cannot be written.
        OptionError: for one file and samples of several spaces.

    Cost: one pass over the file.
    """
    if settings.out.exists() or settings.out.is_symlink():
        raise StoreError(
            named("{out} is {!r}, which is there already; give a new path", str(settings.out))
        )
    with opened_rows(settings.file) as rows:
        after = rows.pushed_out()
        used = {space for _, space, _ in rows.labels(after=after)}
        spaces = [space for space in rows.spaces() if space.name in used]
        try:
            if settings.to_file:
                return _one_file(settings.out, rows, spaces, after)
            with _new_folder(settings.out) as folder:
                names = [
                    "samples.parquet" if len(spaces) == 1 else f"samples-{i}.parquet"
                    for i in range(1, len(spaces) + 1)
                ]
                paths = [folder / name for name in names]
                _write_tables(paths, rows, spaces, after)
                if settings.thumbnails:
                    (folder / PAGE).write_text(
                        _page(folder, settings.file.name, rows, after), "utf-8"
                    )
                    names.append(PAGE)
        except OSError as error:
            raise StoreError(
                named(
                    "{out} is {!r}, which cannot be written ({}); give a path in a folder that "
                    "you may write to, with room",
                    str(settings.out),
                    error.strerror,
                )
            ) from error
    return [settings.out / name for name in names]


def _one_file(path: Path, rows: Rows, spaces: list[SpaceRow], after: int) -> list[Path]:
    if len(spaces) > 1:
        raise OptionError(
            named(
                "{out} is one file, and the memory has samples of {} spaces, a table each; give a "
                "folder, as in {out=DIR}",
                len(spaces),
            )
        )
    if not spaces:
        raise StoreError("the memory has no samples, so there is nothing to export")
    with replacing(path.absolute()) as (temporary,):
        _write_tables([temporary], rows, spaces, after)
    return [path]


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """A folder that gets its name at the end of the block, and is gone after an error."""
    parent = path.absolute().parent
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.rename(path)
        sync_folder(parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_tables(paths: list[Path], rows: Rows, spaces: list[SpaceRow], after: int) -> None:
    """Write a table for each space."""
    digits = any(
        label.seed is not None and abs(label.seed) > _LARGEST
        for _, _, label in rows.labels(after=after)
    )
    schemas = {space.name: _schema(space, digits) for space in spaces}
    writers = {
        space.name: pq.ParquetWriter(path.absolute(), schemas[space.name], compression="zstd")
        for space, path in zip(spaces, paths, strict=True)
    }
    try:
        for batch, _ in rows.batches(rows.header().dtype, after=after):
            writers[batch.space].write_table(_table(batch, schemas[batch.space], digits))
    finally:
        for writer in writers.values():
            writer.close()


def _schema(space: SpaceRow, digits: bool) -> pa.Schema:
    size = 1
    for n in space.shape:
        size *= n
    fields = [
        ("text", pa.string()),
        ("seed", pa.string() if digits else pa.int64()),
        ("space", pa.string()),
        ("run", pa.string()),
        ("item", pa.string()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("shape", pa.list_(pa.int32())),
        ("latent", pa.list_(pa.float32(), size)),
    ]
    if space.prompt_size:
        fields.append(("prompt", pa.list_(pa.float32(), space.prompt_size)))
    return pa.schema(fields)


def _table(batch: Batch, schema: pa.Schema, digits: bool) -> pa.Table:
    seeds = [label.seed for label in batch.labels]
    columns: dict[str, Any] = {
        "text": [label.text for label in batch.labels],
        "seed": [None if s is None else str(s) for s in seeds] if digits else seeds,
        "space": [batch.space] * len(batch),
        "run": [label.run for label in batch.labels],
        "item": [label.item for label in batch.labels],
        "time": [round(1e6 * label.created) for label in batch.labels],
        "shape": [list(batch.shape)] * len(batch),
        "latent": _lists(batch.latents),
    }
    if "prompt" in schema.names:
        columns["prompt"] = _lists(batch.prompts)
    arrays = [
        own if isinstance(own, pa.Array) else pa.array(own, schema.field(name).type)
        for name, own in columns.items()
    ]
    return pa.table(arrays, schema=schema)


def _lists(rows: Tensor) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(
        pa.array(rows.float().flatten().numpy()), rows.shape[1]
    )


def _page(folder: Path, name: str, rows: Rows, after: int) -> str:
    """Write the thumbnails, and return a page of them, the newest first."""
    (folder / THUMBNAILS).mkdir()
    shown: list[str] = []
    found = 0
    for key, _, label in rows.labels(after=after, newest_first=True):
        image = rows.thumbnail(key)
        if image is None:
            continue
        found += 1
        path = f"{THUMBNAILS}/{key}.webp"
        (folder / path).write_bytes(image)
        if len(shown) < MOST_SHOWN:
            text = label.text or "no prompt"
            seed = "" if label.seed is None else f", seed {label.seed}"
            run = "" if label.run is None else f", run {label.run}"
            place = Shown(file_url(path), _SIZE, f"{text}{seed}", linked=True)
            shown.append(figure([place], f"{text}{seed}{run}, {time_text(label.created)}"))
    lead = paragraph(f"{counted(found, 'sample')} with a thumbnail, the newest first.")
    rest = (
        note(f"The newest {MOST_SHOWN:,} are shown; all are in the folder {THUMBNAILS}.")
        if found > len(shown)
        else ""
    )
    return document(f"Memory {name}", [lead, rest, gallery(shown) if shown else ""])
