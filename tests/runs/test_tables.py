import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unalike.runs.tables import (
    csv_rows,
    json_line_rows,
    parquet_columns,
    parquet_rows,
    prompt_table,
    text_lines,
)

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
CELLS = st.lists(st.lists(TEXT, min_size=2, max_size=2), max_size=8)
BOM = st.sampled_from([b"", b"\xef\xbb\xbf"])


@settings(max_examples=150, deadline=None)
@given(
    cells=CELLS,
    delimiter=st.sampled_from([",", "\t"]),
    bom=BOM,
    end=st.sampled_from(["\r\n", "\n", "\r"]),
)
def test_cells_and_lines_are_those_written_when_a_table_is_read_back(cells, delimiter, bom, end):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    expected = []
    for i, row in enumerate([["a", "b"], *cells]):
        before = stream.getvalue().replace("\r\n", "\n").replace("\r", "\n")
        writer.writerow(row)
        if i and any(cell.strip() for cell in row):
            expected.append((before.count("\n") + 1, dict(zip("ab", row, strict=True))))
    found = list(csv_rows(bom + stream.getvalue().encode(), delimiter))
    assert [(row.number, row.values) for row in found] == expected
    assert not any(row.fault for row in found)


@settings(max_examples=100, deadline=None)
@given(
    cells=CELLS,
    blank=st.lists(st.integers(0, 2), min_size=8, max_size=8),
    bom=BOM,
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    ascii=st.booleans(),
)
def test_objects_and_lines_are_those_written_when_lines_of_json_are_read_back(
    cells, blank, bom, end, ascii
):
    lines, expected = [], []
    for row, empty in zip(cells, blank, strict=False):
        lines += [b" "] * empty
        values = dict(zip("ab", row, strict=True))
        lines.append(json.dumps(values, ensure_ascii=ascii).encode())
        expected.append((len(lines), values))
    found = json_line_rows(bom + end.join(lines))
    assert [(row.number, row.values) for row in found] == expected


@settings(max_examples=100, deadline=None)
@given(
    lines=st.lists(TEXT.map(lambda t: t.replace("\n", "").replace("\r", ""))),
    bom=BOM,
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_lines_are_those_written_when_text_is_read_back(lines, bom, end):
    expected = [(n, line) for n, line in enumerate(lines, 1) if line.strip()]
    assert list(text_lines(bom + end.join(lines).encode())) == expected


def test_other_rows_are_read_when_some_cannot_be():
    rows = list(csv_rows(b'a,b\n1,2\n3\n"x"y,1\n4,5,6\n7,8\n"open,9\n'))
    assert [(row.number, row.fault is None) for row in rows] == [
        (2, True), (3, False), (4, False), (5, False), (6, True), (7, False),
    ]  # fmt: skip
    assert "not closed" in str(rows[-1].fault)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a,a\n1,2\n", "two columns of the same name"),
        (b"a, a\n1,2\n", "two columns of the same name"),
        (b",a\n0,1\n", "column 1 has no name"),
        (b'"a,b\n', "header cannot be read"),
    ],
)
def test_table_is_refused_when_its_header_is_unusable(data, message):
    with pytest.raises(ValueError, match=message):
        list(csv_rows(data))


def test_parquet_is_read_without_the_index_of_pandas(tmp_path):
    table = pa.table({"a": [1, None], "b": ["x", "y"], "__index_level_0__": [5, 6]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert parquet_columns(tmp_path / "t.parquet") == ["a", "b"]
    rows = list(parquet_rows(tmp_path / "t.parquet"))
    assert [(r.number, r.values) for r in rows] == [
        (1, {"a": 1, "b": "x"}),
        (2, {"a": None, "b": "y"}),
    ]
    assert [r.values for r in parquet_rows(tmp_path / "t.parquet", ["b"])] == [
        {"b": "x"},
        {"b": "y"},
    ]


def test_damaged_parquet_is_refused_with_a_sentence(tmp_path):
    pq.write_table(pa.table({"a": list(range(1000))}), tmp_path / "t.parquet")
    data = bytearray((tmp_path / "t.parquet").read_bytes())
    data[4:200] = bytes(196)
    (tmp_path / "t.parquet").write_bytes(data)
    with pytest.raises((ValueError, OSError)):
        list(parquet_rows(tmp_path / "t.parquet"))


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        (b"cat\n{red|blue} heart\n", ["cat", "{red|blue} heart"]),
        (b'{"prompt": "cat"}\r\n\r\n{"prompt": "dog"}', ["cat", "dog"]),
        (b"{}|{}\n[1]\n5\n", ["{}|{}", "[1]", "5"]),
        (b'\xef\xbb\xbf{"prompt": "cat"}\nbroken\n', ["cat", None]),
    ],
)
def test_format_of_a_stream_is_seen_when_it_is_read(data, rows):
    assert [r.values.get("prompt") for r in prompt_table("-", io.BytesIO(data)).rows] == rows


def test_stream_is_refused_when_it_is_no_text():
    with pytest.raises(ValueError, match="line 2 has bytes that are no UTF-8"):
        prompt_table("-", io.BytesIO(b"a\n\xff\n"))
    with pytest.raises(ValueError, match="UTF-16"):
        prompt_table("-", io.BytesIO("cat".encode("utf-16")))
