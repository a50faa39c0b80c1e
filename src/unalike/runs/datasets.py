"""The table beside the images of a run that `datasets` 3.4 or later reads.

```python
from datasets import load_dataset

load_dataset("imagefolder", data_dir="OUT", split="train")
load_dataset("webdataset", data_files={"train": "OUT/shards/*.tar"}, split="train")
```

The table lies in `OUT/images`, so that the first line gives the images of the run alone: not the
unguided images, nor the grid. `data_dir="OUT/images"` gives the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from unalike.errors import StoreError, named
from unalike.files import replacing
from unalike.runs.folder import METADATA
from unalike.runs.parameters import ImageInfo

SCHEMA = pa.schema(
    {
        "file_name": pa.string(),
        "text": pa.string(),
        "negative_prompt": pa.string(),
        "id": pa.string(),
        "seed": pa.int64(),
        "steps": pa.int64(),
        "guidance_scale": pa.float64(),
        "scheduler": pa.string(),
        "width": pa.int64(),
        "height": pa.int64(),
        "model": pa.string(),
        "methods": pa.string(),
    }
)
_ROWS = 10_000


def metadata_row(file_name: str, info: ImageInfo) -> dict[str, Any]:
    """The row of an image, by the columns of `SCHEMA`; `text` is its prompt.

    Example:
        >>> info = ImageInfo(prompt="red heart", seed=7, steps=4, scheduler="LCMScheduler",
        ...     width=64, height=64, model="emoji")
        >>> row = metadata_row("00000.png", info)
        >>> row["file_name"], row["text"], row["seed"]
        ('00000.png', 'red heart', 7)
    """
    own = {name: getattr(info, name) for name in SCHEMA.names if hasattr(info, name)}
    methods = ", ".join(method["name"] for method in info.methods)
    return own | {"file_name": file_name, "text": info.prompt, "methods": methods}


def write_metadata(folder: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write the table of a folder of images, in place of an earlier one or not at all.

    Args:
        folder: of the images, such as OUT/images.
        rows: one an image, as `metadata_row` makes them, with file names relative to the folder; a
            missing column is null.

    Returns:
        The path of the table.

    Raises:
        StoreError: where it cannot be written.
        ValueError: for a column that is not among them.

    Cost: memory for 10,000 rows, however many there are.
    """
    path = folder / METADATA
    try:
        with (
            replacing(path) as (temporary,),
            pq.ParquetWriter(temporary.absolute(), SCHEMA) as writer,
        ):
            rest = iter(rows)
            while some := list(islice(rest, _ROWS)):
                writer.write_table(_table(some))
    except OSError as error:
        raise StoreError(
            named(
                "cannot write {!r}: {}; the images that are finished are kept: make room, or "
                "choose another folder, as in {out=DIR}",
                str(path),
                error.strerror or " ".join(str(error).split()),
            )
        ) from error
    return path


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    for row in rows:
        odd = [name for name in row if name not in SCHEMA.names]
        if odd:
            allowed = ", ".join(SCHEMA.names)
            raise ValueError(f"the table has no column {odd[0]!r}; allowed: {allowed}")
    return pa.Table.from_pylist([dict(row) for row in rows], SCHEMA)
