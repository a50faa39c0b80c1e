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

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from unalike.errors import Option, OptionError, StoreError, named, shown
from unalike.files import parse_json, read_json, read_text, require_regular
from unalike.options import fault_of_text
from unalike.runs.folder import RECORD

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
    except (OSError, ValueError, csv.Error) as error:
        reason = f"it cannot be read ({' '.join(str(error).split())})"
        if isinstance(error, FileNotFoundError):
            reason = "it is not there"
        elif type(error) is ValueError:
            reason = str(error)
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
        rows = _parquet(run / "samples.parquet")
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{str(run)!r} is an output folder of unalike whose samples.parquet cannot be read "
            f"({' '.join(str(error).split())}); "
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


def _of_csv(path: Path, delimiter: str = ",") -> Iterable[tuple[Any, Any]]:
    """The rows of a table of text, each with as many fields as there are columns."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    rows = [(reader.line_num, row) for row in reader if row]
    header = rows[0][1] if rows else []
    if len(set(header)) < len(header):
        raise ValueError(f"it has two columns of the same name ({', '.join(header)})")
    named_rows = []
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise ValueError(
                f"line {line} has {len(row)} field{'s' * (len(row) != 1)} and the header has "
                f"{len(header)}; quote text "
                f'that has a delimiter, as in "one{delimiter} two"'
            )
        named_rows.append(dict(zip(header, row, strict=True)))
    return _of_rows(named_rows)


def _of_json(path: Path) -> Iterable[tuple[Any, Any]]:
    content = read_json(path)
    return content.items() if isinstance(content, dict) else _of_rows(content)


def _of_lines(path: Path) -> Iterable[tuple[Any, Any]]:
    """An object a line."""
    rows = []
    for number, line in _lines(path):
        try:
            rows.append(parse_json(line))
        except ValueError as error:
            raise ValueError(f"line {number} is no JSON object: {error}") from error
    return _of_rows(rows)


def _of_text(path: Path) -> Iterable[tuple[str, str]]:
    """A file, a tab and a prompt in each line."""
    for number, line in _lines(path):
        fields = line.split("\t")
        if len(fields) != 2:
            raise ValueError(
                f"line {number} has {len(fields) - 1} tabs, {shown(line)}; it needs one, between a "
                "file and its prompt"
            )
        yield fields[0], fields[1]


def _lines(path: Path) -> Iterable[tuple[int, str]]:
    """The lines that are not blank, with their numbers."""
    lines = enumerate(io.StringIO(read_text(path), newline=None), 1)
    return ((number, line.rstrip("\n")) for number, line in lines if line.strip())


def _of_rows(rows: Any) -> list[tuple[Any, Any]]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("it is neither an object nor a list of objects")
    names = {str(name) for row in rows for name in row}
    chosen = [
        next((c for c in columns if c in names), None) for columns in (FILE_COLUMNS, PROMPT_COLUMNS)
    ]
    if rows and None in chosen:
        raise ValueError(
            f"it has the columns {', '.join(sorted(names)) or 'none'}; it needs file and prompt"
        )
    return [(row.get(chosen[0]), row.get(chosen[1])) for row in rows]


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    names = {*FILE_COLUMNS, *PROMPT_COLUMNS, "unguided_image"}
    require_regular(path)
    own = [name for name in pq.read_schema(path.absolute()).names if name in names]
    if len(set(own)) < len(own):
        raise ValueError(f"it has two columns of the same name ({', '.join(own)})")
    return (
        pq.read_table(path.absolute(), columns=own).to_pylist()
        if own
        else [dict.fromkeys(pq.read_schema(path.absolute()).names)]
    )


def _is_run(folder: Path) -> bool:
    try:
        record = read_json(folder / RECORD)
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("tool") == "unalike"


def _normalised(file: str) -> str:
    return PurePosixPath(file.strip().replace("\\", "/")).as_posix()


_READERS = {
    ".csv": _of_csv,
    ".tsv": partial(_of_csv, delimiter="\t"),
    ".parquet": lambda path: _of_rows(_parquet(path)),
    ".json": _of_json,
    ".jsonl": _of_lines,
    ".txt": _of_text,
}
