"""`unalike memory`: files of earlier generations from the command line."""

import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from unalike import tensorfile
from unalike.memory import Memory


def webp(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(buffer, "WEBP")
    return buffer.getvalue()


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    with Memory.open(tmp_path / "bank", create=True, capacity=4) as memory:
        memory.add("old/3", torch.ones(1, 3), texts=["pushed out"])
        with memory.marked("monday", ["m0", "m1", "m2"]):
            memory.add(
                "s/2x2",
                torch.arange(12.0).view(3, 2, 2),
                prompts=torch.ones(3, 5),
                texts=["a black cat", "Ein schwarzer KÄFER", "a <b>cat</b>, black"],
                seeds=[1, 2, 2**64 - 1],
            )
        memory.add("t/1", torch.ones(1, 1))
        memory.add_thumbnails({"m0": webp("red"), "m2": webp("blue")})
    return tmp_path / "bank"


def test_inspect_says_what_is_there(unalike, bank) -> None:
    found = json.loads(unalike("memory", "inspect", bank, "--json").out)
    assert found["spaces"] == {
        "s/2x2": {"samples": 3, "shape": [2, 2], "prompt_size": 5},
        "t/1": {"samples": 1, "shape": [1], "prompt_size": 0},
    }
    assert (found["samples"], found["spare"], found["runs"]) == (4, 1, {"monday": 3})
    assert (found["thumbnails"], found["format"], found["bytes"]) == (
        2,
        "sqlite",
        bank.stat().st_size,
    )
    code, out, err = unalike("memory", "inspect", "bank")
    assert (code, err) == (0, "")
    assert "4 of at most 4, in float32" in out
    assert "s/2x2: 3 samples of 2 × 2, prompts as 5 numbers" in out


def test_search_finds_samples_by_words(unalike, bank) -> None:
    out = unalike("memory", "search", bank, "BLACK cat").out
    assert out.splitlines()[0].endswith(f"seed {2**64 - 1}  a <b>cat</b>, black")
    assert out.endswith("2 samples found\n")
    assert "run monday, item m0, space s/2x2" in out
    assert "1 sample found" in unalike("memory", "search", bank, "käfer").out
    assert "0 samples found" in unalike("memory", "search", bank, "pushed").out
    one = json.loads(unalike("memory", "search", bank, "cat", "-n", 1, "--json").out)
    assert one["found"] == 2
    (sample,) = one["samples"]
    assert (sample["item"], sample["seed"], sample["run"]) == ("m2", 2**64 - 1, "monday")
    assert sample["thumbnail"].startswith("data:image/webp;base64,")


def test_remove_removes_what_fits_all_that_is_given(unalike, bank) -> None:
    assert unalike("memory", "remove", bank, "--seed", 1, "--run", "tuesday").out == (
        "0 samples removed\n"
    )
    assert unalike("memory", "remove", bank, "--seed", 1, "--seed", 2, "--run", "monday").out == (
        "2 samples removed\n"
    )
    found = unalike("memory", "remove", bank, "--item", "m2", "--json").out
    assert json.loads(found) == {"removed": 1}
    with Memory.open(bank) as memory:  # what was pushed out is back
        assert memory.spaces() == {"old/3": 1, "t/1": 1}
    code, out, err = unalike("memory", "remove", bank)
    assert (code, out) == (2, "")
    assert "give --text cat, --seed 7, --run RUN or --item ITEM" in err


def test_merge_writes_a_new_memory(unalike, bank) -> None:
    assert unalike("memory", "merge", "all", "bank", "bank").out == "4 samples in all\n"
    assert json.loads(unalike("memory", "merge", "more", "all", "bank", "--json").out) == {
        "out": "more",
        "samples": 4,
    }
    code, _, err = unalike("memory", "merge", "bank", "all", "bank")
    assert (code, "is one of the files" in err) == (2, True)


def test_export_writes_tables_and_a_page(unalike, bank, tmp_path) -> None:
    told = json.loads(
        unalike("memory", "export", bank, "--out", "out", "--thumbnails", "--json").out
    )
    assert told["files"] == ["out/samples-1.parquet", "out/samples-2.parquet", "out/index.html"]
    table = pq.read_table(tmp_path / "out" / "samples-1.parquet")
    rows = table.to_pylist()
    assert [row["seed"] for row in rows] == ["1", "2", str(2**64 - 1)]
    assert [row["latent"] for row in rows] == torch.arange(12.0).view(3, 4).tolist()
    assert (rows[0]["shape"], rows[0]["prompt"], rows[0]["run"]) == ([2, 2], [1.0] * 5, "monday")
    assert table.schema.field("latent").type.list_size == 4
    assert rows[0]["time"].tzinfo is not None
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert page.count("<img") == 2
    assert "a &lt;b&gt;cat&lt;/b&gt;, black" in page
    assert {p.suffix for p in (tmp_path / "out" / "thumbnails").iterdir()} == {".webp"}
    unalike("memory", "remove", bank, "--item", "m2")
    assert unalike("memory", "remove", bank, "--run", "monday").out == "2 samples removed\n"
    unalike("memory", "remove", bank, "--text", "pushed out")
    assert unalike("memory", "export", bank, "--out", "one.parquet").out == "one.parquet\n"
    assert pq.read_table(tmp_path / "one.parquet")["seed"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "gone"], "there is no memory at"),
        (["inspect", "."], "is a folder"),
        (["search", "text", "cat"], "is damaged or not a memory"),
        (["remove", "gone", "--seed", "1"], "there is no memory at"),
        (["merge", "all", "text"], "is damaged or not a memory"),
        (["export", "bank", "--out", "text"], "--out is 'text', which is there already"),
        (["export", "bank", "--out", "x.parquet"], "--out is one file, and the memory has samples"),
        (["export", "bank", "--out", "x.parquet", "--thumbnails"], "--thumbnails needs a folder"),
        (["export", "bank", "--out", "no/x"], "--out is 'no/x', which cannot be written"),
        (["export", "bank", "--out", "no/x.parquet"], "--out is one file"),
    ],
)
def test_one_sentence_says_what_is_wrong(unalike, bank, tmp_path, arguments, message) -> None:
    (tmp_path / "text").write_text("hello")
    before = sorted(p.name for p in tmp_path.iterdir())
    code, out, err = unalike("memory", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_old_memories_are_read_and_become_databases_when_something_is_removed(
    unalike, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = {"space": "s", "shape": [2], "texts": ["cat", "dog"], "seeds": [1, 2]}
    tensorfile.write(
        tmp_path / "old",
        "unalike.memory",
        1,
        {"capacity": 9, "dtype": "float32", "spaces": [own]},
        {
            "0.latents": torch.eye(2),
            "0.prompts": torch.zeros(2, 0),
            "0.order": torch.arange(2),
        },
    )
    before = (tmp_path / "old").read_bytes()
    assert json.loads(unalike("memory", "inspect", "old", "--json").out)["format"] == "safetensors"
    assert "1 sample found" in unalike("memory", "search", "old", "dog").out
    assert unalike("memory", "merge", "new", "old").out == "2 samples in new\n"
    assert unalike("memory", "remove", "old", "--text", "owl").out == "0 samples removed\n"
    assert (tmp_path / "old").read_bytes() == before
    assert unalike("memory", "remove", "old", "--text", "dog").out == "1 sample removed\n"
    assert (tmp_path / "old.safetensors-backup").read_bytes() == before
    with Memory.open(tmp_path / "old") as memory:
        assert memory.texts("s") == ["cat"]
