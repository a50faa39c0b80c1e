import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unalike.errors import OptionError, StoreError
from unalike.runs.score.prompts import matched, read_prompts, read_run

EXPECTED = {"a.png": "a cat", "sub/b.png": "dog, running"}


def parquet(path, columns):
    pq.write_table(pa.table(columns), path)


def written(path, kind):
    if kind == ".csv":
        path.write_text('file,seed,prompt\na.png,1,a cat\nsub/b.png,2,"dog, running"\n', "utf-8")
    elif kind == ".tsv":
        path.write_text("prompt\tfile\na cat\ta.png\ndog, running\tsub/b.png\n", "utf-8")
    elif kind == ".parquet":
        parquet(path, {"file": list(EXPECTED), "prompt": list(EXPECTED.values()), "other": [1, 2]})
    elif kind == "object.json":
        path.write_text(json.dumps(EXPECTED), "utf-8")
    elif kind == "list.json":
        path.write_text(
            json.dumps([{"file_name": f, "text": p} for f, p in EXPECTED.items()]), "utf-8-sig"
        )
    elif kind == ".jsonl":
        rows = [json.dumps({"file": f, "prompt": p}) for f, p in EXPECTED.items()]
        path.write_text("\n".join(rows), "utf-8-sig")
    elif kind == "windows.csv":
        path.write_bytes(b'\xef\xbb\xbffile,prompt\r\na.png,a cat\r\nsub/b.png,"dog, running"\r\n')
    else:
        path.write_text("./a.png\ta cat\n\nsub\\b.png\tdog, running\n", "utf-8")
    return path


@pytest.mark.parametrize(
    "kind",
    [".csv", ".tsv", ".parquet", "object.json", "list.json", ".jsonl", ".txt", "windows.csv"],
)
def test_files_are_mapped_to_prompts_when_read_from_any_format(tmp_path, kind):
    assert read_prompts(written(tmp_path / f"prompts{kind}", kind)) == EXPECTED


BAD = {
    "missing": ("prompts.csv", None, "it is not there"),
    "other format": ("prompts.xlsx", "x", "allowed: a .csv"),
    "other columns": (
        "prompts.csv",
        "name,words\na,b\n",
        "columns name, words; it needs file and prompt",
    ),
    "no rows": ("prompts.csv", "file,prompt\n", "has no entry"),
    "short row": ("prompts.csv", "file,prompt\na.png\n", "line 2 has 1 field and the header has 2"),
    "empty prompt": ("prompts.txt", "a.png\t \n", "whose prompt is empty"),
    "no tab": ("prompts.txt", "a.png\tcat\nb.png dog\n", "line 2 has 0 tabs"),
    "two prompts": ("prompts.txt", "a.png\tcat\n./a.png\tdog\n", "two prompts for 'a.png'"),
    "not JSON": ("prompts.json", "{", "cannot be read"),
    "commas without quotes": (
        "prompts.csv",
        "file,prompt\na.png,cat\nb.png,a cat, black, asleep\n",
        'line 3 has 4 fields and the header has 2; quote text .*"one, two"',
    ),
    "a tab too many": ("prompts.tsv", "file\tprompt\na.png\tcat\tdog\n", "line 2 has 3 fields"),
    "two tabs": ("prompts.txt", "a.png\tcat\tdog\n", "line 1 has 2 tabs"),
    "a column twice": ("prompts.csv", "file,prompt,prompt\na,b,c\n", "two columns of the same"),
    "a key twice": ("prompts.json", '{"a.png": "x", "a.png": "y"}', "'a.png' is there twice"),
    "a field twice": (
        "prompts.jsonl",
        '{"file": "a", "prompt": "x", "prompt": "y"}\n',
        "line 1 .*'prompt' is there twice",
    ),
    "a field too few": (
        "prompts.jsonl",
        '{"file": "a", "prompt": "x"}\n{"file": "b"}\n',
        "have to be text",
    ),
    "no object in a line": (
        "prompts.jsonl",
        '{"file": "a", "prompt": "x"}\n5\n',
        "line 2 is 5, which is no JSON object",
    ),
    "a NUL": ("prompts.csv", "file,prompt\na.png,c\0t\n", "line 2 has a NUL"),
    "an escaped NUL": ("prompts.json", '{"a.png": "c\\u0000t"}', "whose prompt has a NUL"),
    "half a character": ("prompts.json", '{"a.png": "\\ud800"}', "no UTF-8 text"),
    "deep": ("prompts.json", "[" * 100_000, "nested too deep"),
    "an open quote": ("prompts.csv", 'file,prompt\na.png,"cat\n', "cannot be read"),
    "a number": ("prompts.json", "3", "neither an object nor a list"),
    "a list of texts": ("prompts.json", '["a"]', "entry 1 is .a., which is no JSON object"),
    "numbers as prompts": ("prompts.json", '{"a.png": 3}', "have to be text"),
    "not Parquet": ("prompts.parquet", "x", "cannot be read"),
    "not text": ("prompts.csv", b"file,prompt\n\xff\xfe,x\n", "line 2 has bytes that are no UTF-8"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD.values(), ids=BAD)
def test_file_is_refused_when_it_says_no_prompts(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(OptionError, match=message):
        read_prompts(tmp_path / name)


def test_parquet_is_refused_when_its_columns_are_others(tmp_path):
    parquet(tmp_path / "prompts.parquet", {"id": [1], "words": ["x"]})
    with pytest.raises(OptionError, match="columns id, words; it needs file and prompt"):
        read_prompts(tmp_path / "prompts.parquet")


def test_images_without_a_prompt_are_named_when_files_are_matched():
    with pytest.raises(
        OptionError,
        match=r"7 of 8 images have no prompt in p.csv: 1.png, 2.png, 3.png, 4.png, 5.png, …; .* "
        "such as '0.png'",
    ):
        matched([f"{i}.png" for i in range(8)], {"0.png": "cat"}, "p.csv")


@pytest.fixture
def run(tmp_path):
    """An output folder of `unalike generate` without its pictures."""
    folder = tmp_path / "run"
    for name in ("images", "unguided"):
        (folder / name).mkdir(parents=True)
    (folder / "run.json").write_text('{"tool": "unalike"}')
    images = [f"images/0000{i}.png" for i in range(2)]
    parquet(
        folder / "samples.parquet",
        {"image": images, "unguided_image": ["unguided/00000.png", None], "prompt": ["cat", "dog"]},
    )
    return folder


def test_prompts_are_those_of_the_samples_when_the_folder_is_a_run(run):
    assert read_run(run) == {"images/00000.png": "cat", "images/00001.png": "dog"}


def test_prompts_are_those_of_the_run_when_one_of_its_folders_is_scored(run, monkeypatch):
    assert read_run(run / "images") == {"00000.png": "cat", "00001.png": "dog"}
    monkeypatch.chdir(run / "unguided")
    assert read_run(run.__class__(".")) == {"00000.png": "cat"}


def test_other_folders_are_no_runs(run, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("[")
    (run / "other").mkdir()
    assert [
        read_run(p) for p in (tmp_path, tmp_path / "images", tmp_path / "broken", run / "other")
    ] == [None] * 4


def test_run_is_refused_when_its_table_is_damaged(run):
    (run / "samples.parquet").write_bytes(b"x")
    with pytest.raises(
        StoreError,
        match=r"run' is an output folder of unalike whose samples.parquet cannot be read",
    ):
        read_run(run / "images")
