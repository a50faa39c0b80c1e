"""Files that take the place of others, and JSON from anywhere."""

from pathlib import Path

import pytest

from unalike.files import parse_json, read_text, replacing


def test_all_files_take_their_places_when_all_are_written(tmp_path: Path):
    (tmp_path / "a").write_text("old")
    with replacing(tmp_path / "a", tmp_path / "b") as (a, b):
        a.write_text("new")
        b.write_text("more")
        assert (tmp_path / "a").read_text() == "old"
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "new", "b": "more"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_earlier_files_stay_when_one_cannot_be_written(tmp_path: Path, error: type[BaseException]):
    (tmp_path / "a").write_text("old")

    def fail() -> None:
        with replacing(tmp_path / "a", tmp_path / "b") as (a, _):
            a.write_text("new")
            raise error

    with pytest.raises(error):
        fail()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "old"}
    with (
        pytest.raises(FileNotFoundError),
        replacing(tmp_path / "a", tmp_path / "b") as (a, _),
    ):
        a.write_text("new")  # and nothing for b
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "old"}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "", "nul", b"\xff", "1" * 5000])
def test_json_is_refused_by_one_error_when_it_cannot_be_read(text: str | bytes):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_text_is_refused_when_it_is_of_another_encoding(tmp_path: Path, encoding: str):
    (tmp_path / "a.txt").write_bytes("\ufeffcat".encode(encoding))
    with pytest.raises(ValueError, match="it is UTF-16 text; save it as UTF-8 text"):
        read_text(tmp_path / "a.txt")
