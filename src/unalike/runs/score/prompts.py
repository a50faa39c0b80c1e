"""Which prompt an image was drawn for: from a file, or from an output folder of `unalike generate`.

A file maps names to prompts, each name relative to the folder of images, with `/` between folders:

    .csv .tsv .parquet   columns `file` and `prompt`; other columns are ignored
    .json                {"a.png": "a cat", …}, or [{"file": "a.png", "prompt": "a cat"}, …]
    .txt                 a line an image: the file, a tab, the prompt

In place of `file` a column may be called `file_name` or `image`, in place of `prompt` `caption` or
`text`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from unalike.errors import OptionError, StoreError
from unalike.runs.folder import RECORD

FILE_COLUMNS = ("file", "file_name", "image")
PROMPT_COLUMNS = ("prompt", "caption", "text")
_SHOWN = 5
_FORMATS = "a .csv, .tsv or .parquet with columns file and prompt; a .json of file → prompt; or a .txt of lines FILE, tab, PROMPT"


def read_prompts(path: Path) -> dict[str, str]:
    """File → prompt, as the file says.

    Raises:
        OptionError: for a file that is not there, of another form, empty, or with two prompts for
            one image.
    """
    try:
        pairs = list(_pairs(path))
    except (OSError, ValueError, csv.Error) as error:
        if isinstance(error, OptionError):
            raise
        reason = (
            f"it is not there ({path})"
            if isinstance(error, FileNotFoundError)
            else " ".join(str(error).split())
        )
        raise OptionError(
            f"prompts is {str(path)!r}, which cannot be read: {reason}; allowed: {_FORMATS}"
        ) from error
    found: dict[str, str] = {}
    for file, prompt in pairs:
        if not (
            isinstance(file, str) and isinstance(prompt, str) and file.strip() and prompt.strip()
        ):
            raise OptionError(
                f"prompts is {str(path)!r}, which has the entry {file!r}: {prompt!r}; each needs a file and a prompt, both text"
            )
        name = _normalised(file)
        if found.setdefault(name, prompt.strip()) != prompt.strip():
            raise OptionError(
                f"prompts is {str(path)!r}, which has two prompts for {name!r}; keep one of them"
            )
    if not found:
        raise OptionError(f"prompts is {str(path)!r}, which has no entry; allowed: {_FORMATS}")
    return found


def read_run(folder: Path) -> dict[str, str] | None:
    """File → prompt of the images that `unalike generate` drew into a folder, or of those in its
    images/ or unguided/.

    Returns:
        None where the folder is no output folder, nor one of those two in one.

    Raises:
        StoreError: for an output folder whose samples.parquet is missing or damaged.
    """
    columns, names = ("image",), {"images": "image", "unguided": "unguided_image"}
    run = folder
    if not _is_run(run):
        run = folder.resolve().parent
        if folder.resolve().name not in names or not _is_run(run):
            return None
        columns = (names[folder.resolve().name],)
    try:
        rows = _parquet(run / "samples.parquet")
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{str(run)!r} is an output folder of unalike whose samples.parquet cannot be read ({' '.join(str(error).split())}); "
            "copy its images into another folder to score them by themselves"
        ) from error
    found = {row[column]: row["prompt"] for row in rows for column in columns if row.get(column)}
    return {
        name.partition("/")[2] if run != folder else name: prompt for name, prompt in found.items()
    }


def matched(files: Sequence[str], prompts: Mapping[str, str], source: str) -> list[str]:
    """The prompt of each file, in order; entries for other files are ignored.

    Raises:
        OptionError: where a file has none.

    Example:
        >>> matched(["b/1.png", "2.png"], {"2.png": "dog", "b/1.png": "cat", "3.png": "bird"}, "prompts.csv")
        ['cat', 'dog']
    """
    missing = [file for file in files if file not in prompts]
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
        raise OptionError(
            f"{len(missing)} of {len(files)} images have no prompt in {source}: {shown}; it has entries such as {next(iter(prompts))!r}. "
            "Add those images by their names relative to the folder, or take them out of it"
        )
    return [prompts[file] for file in files]


def _pairs(path: Path) -> Iterable[tuple[Any, Any]]:
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv"):
        with path.open(encoding="utf-8-sig", newline="") as f:
            return _of_rows(
                list(csv.DictReader(f, delimiter="," if kind == ".csv" else "\t")), path
            )
    if kind == ".parquet":
        return _of_rows(_parquet(path), path)
    if kind == ".json":
        content = json.loads(path.read_text("utf-8-sig"))
        return content.items() if isinstance(content, dict) else _of_rows(content, path)
    if kind == ".txt":
        return [
            _line(line, i, path)
            for i, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1)
            if line.strip()
        ]
    raise OptionError(f"prompts is {str(path)!r}; allowed: {_FORMATS}")


def _of_rows(rows: Any, path: Path) -> list[tuple[Any, Any]]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise OptionError(
            f"prompts is {str(path)!r}, which is neither an object nor a list of objects; allowed: {_FORMATS}"
        )
    names = {str(name) for row in rows for name in row}
    chosen = [
        next((c for c in columns if c in names), None) for columns in (FILE_COLUMNS, PROMPT_COLUMNS)
    ]
    if rows and None in chosen:
        raise OptionError(
            f"prompts is {str(path)!r}, which has the columns {', '.join(sorted(names))}; it needs file and prompt"
        )
    return [(row.get(chosen[0]), row.get(chosen[1])) for row in rows]


def _line(line: str, number: int, path: Path) -> tuple[str, str]:
    file, tab, prompt = line.partition("\t")
    if not tab:
        raise OptionError(
            f"prompts is {str(path)!r}, whose line {number} has no tab between a file and a prompt: {line[:60]!r}"
        )
    return file, prompt


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    names = {*FILE_COLUMNS, *PROMPT_COLUMNS, "unguided_image"}
    own = [name for name in pq.read_schema(path).names if name in names]
    return (
        pq.read_table(path, columns=own).to_pylist()
        if own
        else [dict.fromkeys(pq.read_schema(path).names)]
    )


def _is_run(folder: Path) -> bool:
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("tool") == "unalike"


def _normalised(file: str) -> str:
    return PurePosixPath(file.strip().replace("\\", "/")).as_posix()
