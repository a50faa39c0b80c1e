"""Rows of tables of text and Parquet, with the numbers of their lines.

A row that cannot be read does not end the reading: it comes back with its fault, so that a caller
may report all of them. A file without a usable header does, with a `ValueError`.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from unalike.errors import shown
from unalike.files import (
    LARGEST_TEXT,
    parse_json,
    read_json,
    read_text_bytes,
    require_regular,
    require_text,
)

STDIN = "-"
"""The path that stands for standard input."""
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of a table.

    Args:
        number: of its first line, or of the row where a file has no lines; the first is 1.
        values: column → value; text where the format has no types.
        fault: why the row cannot be read; None where it can.
    """

    number: int
    values: Mapping[str, Any] = field(default_factory=dict)
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a file, as its format has them.

    Args:
        rows: in order.
        unit: what their numbers count: "line", "row" or "entry".
        typed: whether the format has numbers; without, every value is text.
        header: whether all rows have the same columns.
    """

    rows: Iterable[TableRow]
    unit: str = "line"
    typed: bool = True
    header: bool = False


def prompt_table(path: Path | str, stdin: BinaryIO | None = None) -> Table:
    """The rows of a file of prompts; plain text has one column, `prompt`.

    Args:
        path: a .txt, .csv, .tsv, .jsonl, .json or .parquet; `-` for standard input: objects where
            one of its lines is an object, so that a damaged line is no prompt, else plain text.
        stdin: read in place of the process's own standard input.

    Raises:
        OSError: for a file that cannot be read.
        ValueError: for one of another kind, not of UTF-8 text, or without rows.
    """
    if str(path) == STDIN:
        return _of_stream(stdin or sys.stdin.buffer)
    path = Path(path)
    kind = path.suffix.lower()
    if kind == ".parquet":
        return Table(parquet_rows(path), unit="row", header=True)
    if kind == ".json":
        content = read_json(path)
        if not isinstance(content, list):
            raise ValueError("it is no list")
        entries = ({"prompt": v} if isinstance(v, str) else v for v in content)
        return Table(json_rows(entries), unit="entry")
    if kind in (".csv", ".tsv"):
        delimiter = "," if kind == ".csv" else "\t"
        return Table(csv_rows(read_text_bytes(path), delimiter), typed=False, header=True)
    if kind == ".jsonl":
        return Table(json_line_rows(read_text_bytes(path)))
    if kind == ".txt":
        return Table(_prompts(read_text_bytes(path)))
    raise ValueError("it is of another kind")


def text_lines(data: bytes) -> Iterator[tuple[int, str]]:
    r"""The lines that are not blank, with their numbers; lines end in LF, CRLF or CR.

    Args:
        data: UTF-8 text, with or without a byte order mark.

    Example:
        >>> list(text_lines(b"cat\r\n\r\ndog"))
        [(1, 'cat'), (3, 'dog')]
    """
    for number, line in enumerate(_decoded(data, newline=None), 1):
        if line.strip():
            yield number, line.rstrip("\n")


def csv_rows(data: bytes, delimiter: str = ",") -> Iterator[TableRow]:
    r"""The rows of a table of text below its header; empty rows are left out.

    Args:
        data: UTF-8 text, with or without a byte order mark.
        delimiter: between the fields. A field in double quotes may have it, and line ends.

    Raises:
        ValueError: for a header that cannot be read, or has a column twice or without a name.

    Example:
        >>> [(row.number, row.values) for row in csv_rows(b'prompt,n\n"red, round",2\n\ncat,3')]
        [(2, {'prompt': 'red, round', 'n': '2'}), (4, {'prompt': 'cat', 'n': '3'})]
    """
    records = _records(data, delimiter)
    header = _header(next(records, (0, [])))
    for line, record in records:
        if isinstance(record, str):
            yield TableRow(line, fault=f"cannot be read ({record})")
        elif len(record) == len(header):
            yield TableRow(line, dict(zip(header, record, strict=True)))
        else:
            yield TableRow(
                line,
                fault=f"has {len(record)} field{'s' * (len(record) != 1)} and the header has "
                f'{len(header)}; quote text that has a delimiter, as in "one{delimiter} two"',
            )


def json_line_rows(data: bytes) -> Iterator[TableRow]:
    r"""An object a line.

    Example:
        >>> rows = list(json_line_rows(b'{"prompt": "cat"}\n5'))
        >>> rows[0].values, rows[1].fault
        ({'prompt': 'cat'}, 'is 5, which is no JSON object')
    """
    for number, line in text_lines(data):
        try:
            value = parse_json(line)
        except ValueError as error:
            yield TableRow(number, fault=f"is no JSON object: {error}")
        else:
            yield _object(number, value)


def json_rows(values: Iterable[Any]) -> Iterator[TableRow]:
    """The rows of a list of objects, numbered from 1."""
    return (_object(number, value) for number, value in enumerate(values, 1))


def parquet_columns(path: Path) -> list[str]:
    """The names of the columns of a Parquet file.

    Raises:
        OSError: for a file that cannot be read.
        ValueError: for one that is not Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    require_regular(path)
    try:
        names = pq.read_schema(path.absolute()).names
    except pa.ArrowException as error:
        raise ValueError(_unreadable(error)) from error
    return [name for name in names if not _PANDAS_INDEX.fullmatch(name)]


def parquet_rows(path: Path, columns: Collection[str] | None = None) -> Iterator[TableRow]:
    """The rows of a Parquet file, numbered from 1.

    Args:
        path: of the file.
        columns: that are read; None for all but the index that pandas writes.

    Raises:
        OSError: for a file that cannot be read.
        ValueError: for one that is not Parquet, or has one of the columns twice.

    Cost: one batch of the file is in memory at a time.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    own = [name for name in parquet_columns(path) if columns is None or name in columns]
    _require_distinct(own)
    number = 0
    try:
        with pq.ParquetFile(path.absolute()) as file:
            for batch in file.iter_batches(columns=own):
                for values in batch.to_pylist():
                    number += 1
                    yield TableRow(number, values)
    except pa.ArrowException as error:
        raise ValueError(_unreadable(error)) from error


def _of_stream(stream: BinaryIO) -> Table:
    data = stream.read(LARGEST_TEXT + 1)
    if len(data) > LARGEST_TEXT:
        raise ValueError(f"it has more than {LARGEST_TEXT:,} bytes")
    require_text(data)
    objects = any(_is_object(line.strip()) for _, line in text_lines(data))
    return Table(json_line_rows(data) if objects else _prompts(data))


def _is_object(line: str) -> bool:
    if line[0] + line[-1] != "{}":
        return False
    try:
        return isinstance(parse_json(line), dict)
    except ValueError:
        return False


def _prompts(data: bytes) -> Iterator[TableRow]:
    return (TableRow(number, {"prompt": line}) for number, line in text_lines(data))


def _records(data: bytes, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """The number of the first line of each record, with its fields or why it cannot be read.

    Records without any text are left out.
    """
    reader = csv.reader(_decoded(data, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
            if any(cell.strip() for cell in record):
                yield line, record
        except csv.Error as error:
            what = str(error)
            if what == "unexpected end of data":
                what = "a quotation mark is not closed"
            yield line, what
        except StopIteration:
            return


def _header(first: tuple[int, list[str] | str]) -> list[str]:
    if isinstance(first[1], str):
        raise ValueError(f"its header cannot be read ({first[1]})")
    header = [name.strip() for name in first[1]]
    _require_distinct(header)
    if "" in header:
        raise ValueError(
            f"column {header.index('') + 1} has no name; name it in the first line, or delete it"
        )
    return header


def _object(number: int, value: Any) -> TableRow:
    if isinstance(value, dict):
        return TableRow(number, value)
    return TableRow(number, fault=f"is {shown(value)}, which is no JSON object")


def _decoded(data: bytes, newline: str | None) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline=newline)


def _require_distinct(names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"it has two columns of the same name ({', '.join(names)})")


def _unreadable(error: Exception) -> str:
    return f"it cannot be read ({' '.join(str(error).split())})"
