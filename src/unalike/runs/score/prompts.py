"""Prompts of images, from a file or from an output folder of `unalike generate`.

A file maps names to prompts, each name relative to the folder of images, with `/` between folders:

    .csv .tsv .parquet   columns `file` and `prompt`; other columns are ignored
    .json                {"a.png": "a cat", …}, or [{"file": "a.png", "prompt": "a cat"}, …]
    .jsonl               {"file": "a.png", "prompt": "a cat"} in each line
    .txt                 a line an image: the file, a tab, the prompt

In place of `file` a column may be called `file_name` or `image`, in place of `prompt` `caption` or
`text`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from unalike.errors import Option, OptionError, StoreError, named, shown
from unalike.files import fault_of_reading, read_json, read_text_bytes, require_regular
from unalike.options import fault_of_text
from unalike.runs.folder import RECORD
from unalike.runs.tables import (
    TableRow,
    csv_rows,
    json_line_rows,
    json_rows,
    parquet_columns,
    parquet_rows,
    text_lines,
)

FILE_COLUMNS = ("file", "file_name", "image")
PROMPT_COLUMNS = ("prompt", "caption", "text")
_SHOWN = 5
_FORMATS = (
    "a .csv, .tsv, .jsonl or .parquet with file and prompt; a .json of file → prompt; or a .txt of "
    "lines FILE, tab, PROMPT"
)


def read_prompts(path: Path, *, option: str = "prompts") -> dict[str, str]:
    """File → prompt, as the file says.

    Args:
        path: of the file.
        option: the name of the option that gave it, for messages.

    Raises:
        OptionError: for a file that is not there, of another form, empty, with more or fewer fields
            than columns, or with two prompts for one image.
    """
    try:
        pairs = list(_pairs(path))
        if not pairs:
            raise ValueError("it has no entry")
        return _checked(pairs)
    except (OSError, ValueError) as error:
        reason = fault_of_reading(error)
        raise OptionError(
            named("{} is {!r}: {}; allowed: {}", Option(option), str(path), reason, _FORMATS)
        ) from error


def _checked(pairs: Iterable[tuple[Any, Any]]) -> dict[str, str]:
    """The pairs by their files, each checked."""
    found: dict[str, str] = {}
    for file, prompt in pairs:
        if not isinstance(file, str) or not isinstance(prompt, str):
            raise ValueError(
                f"it has the entry {shown(file)}: {shown(prompt)}; a file and a prompt have to be "
                "text"
            )
        for what, text in (("file", file), ("prompt", prompt)):
            fault = fault_of_text(text)
            if fault:
                raise ValueError(
                    f"it has the entry {shown(file)}: {shown(prompt)}, whose {what} {fault}"
                )
        name = _normalised(file)
        if found.setdefault(name, prompt.strip()) != prompt.strip():
            raise ValueError(f"it has two prompts for {shown(name)}; keep one of them")
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
        rows = list(parquet_rows(run / "samples.parquet", {*names.values(), "prompt"}))
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{str(run)!r} is an output folder of unalike whose samples.parquet cannot be read "
            f"({' '.join(str(error).split())}); "
            "copy its images into another folder to score them by themselves"
        ) from error
    found = {
        row.values[column]: row.values["prompt"]
        for row in rows
        for column in columns
        if row.values.get(column)
    }
    return {
        name.partition("/")[2] if run != folder else name: prompt for name, prompt in found.items()
    }


def matched(files: Sequence[str], prompts: Mapping[str, str], source: str) -> list[str]:
    """The prompt of each file, in order; entries for other files are ignored.

    Raises:
        OptionError: where a file has none.

    Example:
        >>> prompts = {"2.png": "dog", "b/1.png": "cat", "3.png": "bird"}
        >>> matched(["b/1.png", "2.png"], prompts, "prompts.csv")
        ['cat', 'dog']
    """
    missing = [file for file in files if file not in prompts]
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
        raise OptionError(
            f"{len(missing)} of {len(files)} images have no prompt in {source}: {shown}; it has "
            f"entries such as {next(iter(prompts))!r}. "
            "Add those images by their names relative to the folder, or take them out of it"
        )
    return [prompts[file] for file in files]


def _pairs(path: Path) -> Iterable[tuple[Any, Any]]:
    kind = path.suffix.lower()
    if kind not in _READERS:
        raise ValueError("it is of another kind")
    require_regular(path)
    return _READERS[kind](path)


def _of_json(path: Path) -> Iterable[tuple[Any, Any]]:
    content = read_json(path)
    if isinstance(content, dict):
        return content.items()
    if not isinstance(content, list):
        raise ValueError("it is neither an object nor a list of objects")
    return _of_rows(json_rows(content), unit="entry")


def _of_text(path: Path) -> Iterable[tuple[str, str]]:
    """A file, a tab and a prompt in each line."""
    for number, line in text_lines(read_text_bytes(path)):
        fields = line.split("\t")
        if len(fields) != 2:
            raise ValueError(
                f"line {number} has {len(fields) - 1} tabs, {shown(line)}; it needs one, between a "
                "file and its prompt"
            )
        yield fields[0], fields[1]


def _of_rows(rows: Iterable[TableRow], unit: str = "line") -> list[tuple[Any, Any]]:
    found = []
    for row in rows:
        if row.fault:
            raise ValueError(f"{unit} {row.number} {row.fault}")
        found.append(row.values)
    if not found:
        return []
    file, prompt = _chosen({str(name) for values in found for name in values})
    return [(values.get(file), values.get(prompt)) for values in found]


def _chosen(names: Collection[str]) -> tuple[str, str]:
    """The columns of files and of prompts among these."""
    file, prompt = (
        next((c for c in columns if c in names), None) for columns in (FILE_COLUMNS, PROMPT_COLUMNS)
    )
    if file is None or prompt is None:
        raise ValueError(
            f"it has the columns {', '.join(sorted(names)) or 'none'}; it needs file and prompt"
        )
    return file, prompt


def _of_parquet(path: Path) -> list[tuple[Any, Any]]:
    columns = _chosen(parquet_columns(path))
    return [(row.values[columns[0]], row.values[columns[1]]) for row in parquet_rows(path, columns)]


def _is_run(folder: Path) -> bool:
    try:
        record = read_json(folder / RECORD)
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("tool") == "unalike"


def _normalised(file: str) -> str:
    return PurePosixPath(file.strip().replace("\\", "/")).as_posix()


_READERS = {
    ".csv": lambda path: _of_rows(csv_rows(read_text_bytes(path))),
    ".tsv": lambda path: _of_rows(csv_rows(read_text_bytes(path), delimiter="\t")),
    ".parquet": _of_parquet,
    ".json": _of_json,
    ".jsonl": lambda path: _of_rows(json_line_rows(read_text_bytes(path))),
    ".txt": _of_text,
}
