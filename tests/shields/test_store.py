import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.shields import sets

from unalike.errors import StoreError
from unalike.shields.bounds import Index
from unalike.shields.manifest import Manifest
from unalike.shields.names import Column, Names
from unalike.shields.shield import Shield
from unalike.shields.store import open_folder
from unalike.shields.vectors import Mapped
from unalike.shields.writer import Writer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sets.build(tmp_path / "set", sets.latents(9))
    return tmp_path / "set"


def rewritten(folder: Path, *, checksum: bool = True, **entries) -> None:
    """The manifest with other entries, and a checksum that fits them."""
    path = folder / "manifest.json"
    content = {**json.loads(path.read_text("utf-8")), **entries}
    if checksum:
        content["checksum"] = Manifest._parsed(content).checksum
    path.write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("damage", ["missing", "short", "long", "flipped"])
def test_file_is_named_when_it_is_damaged(folder, number, damage):
    path = sorted(path for path in folder.iterdir() if path.name != "manifest.json")[number]
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        flipped = data[:-3] + bytes([data[-3] ^ 4]) + data[-2:]
        path.write_bytes({"short": data[:-1], "long": data + b"\0", "flipped": flipped}[damage])
    with pytest.raises(
        StoreError, match=rf"'{path.name}' is {'missing' if damage == 'missing' else 'damaged'}"
    ):
        open_folder(folder)


def test_contents_of_vectors_are_not_read_when_no_check_is_wanted(folder):
    path = folder / "vectors-00001.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert len(open_folder(folder, check=False).vectors) == 9
    path.write_bytes(data[:-1])
    with pytest.raises(StoreError, match="vectors-00001"):
        open_folder(folder, check=False)


BAD_MANIFESTS = {
    "another count": ({"count": 10}, "says 10 vectors"),
    "another radius": ({"radius": 2.0, "checksum": None}, "checksum of its manifest"),
    "no radius": ({"radius": 0}, "radius is 0"),
    "another space": ({"space": "other", "checksum": None}, "checksum of its manifest"),
    "another dimension": ({"shape": [7]}, "does not hold 4 × 7 numbers"),
    "another kind": ({"kind": "something"}, "no protected set but another manifest"),
    "an earlier format": ({"version": 1}, "format 1.*build it again"),
    "a later format": ({"version": 9}, "format 9.*upgrade"),
    "no shards": ({"shards": None}, "incomplete or wrong"),
    "a shard of text": ({"shards": ["a", "b"]}, "incomplete or wrong"),
    "a count of text": ({"count": "9"}, "counts is"),
    "half a number": ({"shape": [1.5]}, "shape is"),
    "a shape below 0": ({"shape": [-2, -3]}, "shape is"),
    "a shape of text": ({"shape": "23"}, "shape is"),
    "a huge shape": ({"shape": [2**62, 2**62]}, "does not hold"),
    "a rounding below 0": ({"rounding": -1.0}, "rounding is -1"),
    "no rounding": ({"rounding": None}, "rounding is None"),
    "a size of three": ({"size": [1, 2, 3]}, "size is"),
    "a space of numbers": ({"space": 5}, "a name is no text"),
    "an embedding of numbers": ({"embedding": [5]}, "a name is no text"),
    "a source of text": ({"radius_source": "auto"}, "radius_source is no JSON object"),
    "a true version": ({"version": [2]}, "format"),
    "a file elsewhere": (
        {"names": {"file": "../x", "bytes": 1, "sha256": ""}},
        "no file of the folder",
    ),
}


@pytest.mark.parametrize(("entries", "message"), BAD_MANIFESTS.values(), ids=BAD_MANIFESTS)
def test_manifest_is_refused_when_it_is_not_right(folder, entries, message):
    own = dict(entries)
    keep = "checksum" in own and own.pop("checksum") is None
    try:
        rewritten(folder, checksum=not keep, **own)
    except (ValueError, TypeError):  # entries that no manifest can be made of
        rewritten(folder, checksum=False, **own)
    with pytest.raises(StoreError, match=message):
        open_folder(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"kind": "unalike.shield", "version": 2}',
        "[" * 100_000,
        '{"kind": "unalike.shield", "version": 2, "count": ' + "9" * 5000 + "}",
    ],
)
def test_manifest_is_refused_when_it_cannot_be_read(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match="manifest"):
        open_folder(folder)


def test_manifest_is_refused_when_it_is_nested_too_deeply_to_be_hashed(folder):
    deep: object = 1
    for _ in range(300):
        deep = {"a": deep}
    rewritten(folder, checksum=False, radius_source=deep)
    with pytest.raises(StoreError, match="manifest"):
        open_folder(folder)


@pytest.mark.parametrize("line", ["5", "[]", "null", '"a"', "{}", '{"names": 5}', "[" * 100_000])
@pytest.mark.parametrize("first", [True, False])
def test_journal_is_refused_when_a_line_is_forged(folder, line, first):
    with Writer.append(folder) as writer:
        writer.add(sets.latents(1, seed=9), ["new"])
    path = folder / "building.jsonl"
    head = path.read_text("utf-8").splitlines()[0]
    path.write_text("\n".join([line, head] if first else [head, line]) + "\n", "utf-8")
    with pytest.raises(StoreError), Writer.append(folder) as writer:
        pytest.fail("it went on")
    assert path.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layout", torch.tensor(1)),
        ("layout", torch.tensor([64, 7])),
        ("layout", torch.tensor([1, 0, 10**6])),
        ("layout", torch.tensor([10**9, 0])),
        ("phi", torch.zeros(9)),
        ("phi", torch.zeros(9, 8, dtype=torch.bfloat16)),
        ("mean", torch.zeros(5)),
        ("basis", torch.zeros(())),
        ("errors", torch.zeros(())),
        ("along", torch.zeros(9, 7)),
        ("further", torch.zeros(9, 0)),
    ],
)
def test_index_is_refused_when_it_is_forged(folder, name, value):
    tensors = {**open_folder(folder).index, name: value}
    with pytest.raises(StoreError, match="search index is damaged"):
        Index.from_tensors(tensors)


def test_header_is_refused_when_it_is_longer_than_any(folder):
    path = folder / "vectors-00000.safetensors"
    data = path.read_bytes()
    path.write_bytes((2**17).to_bytes(8, "little") + b" " * 2**17 + data)
    with pytest.raises(StoreError, match="does not hold"):
        Mapped([(path, 4)], 6, "float32")
    path.write_bytes((2**15).to_bytes(8, "little") + b"[" * 2**15 + data)
    with pytest.raises(StoreError, match="nested too deep"):
        Mapped([(path, 4)], 6, "float32")


def test_nan_is_told_when_a_stored_vector_has_it(folder):
    path = folder / "vectors-00000.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:256] + np.float32(np.nan).tobytes() + data[260:])
    shield = Shield.open(folder, check=False)
    with pytest.raises(StoreError, match="a protected vector has NaN"):
        shield.nearest(sets.latents(9))


def test_no_set_is_found_when_there_is_none(tmp_path):
    with pytest.raises(StoreError, match="there is no protected set"):
        open_folder(tmp_path / "none")


def test_names_are_refused_when_they_are_of_another_set(folder, tmp_path):
    sets.build(tmp_path / "other", sets.latents(3))
    other = Manifest.read(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "names-0.parquet", folder / "names-0.parquet")
    rewritten(folder, names=other.to_dict()["names"])
    with pytest.raises(StoreError, match="3 rows for 9 vectors"):
        open_folder(folder)


def test_shards_are_plain_safetensors_when_others_read_them(folder):
    found = torch.cat(
        [load_file(folder / f"vectors-{i:05}.safetensors")["vectors"] for i in range(3)]
    )
    assert torch.equal(found, sets.latents(9).flatten(1))


def test_columns_are_sequences_when_they_come_in_chunks(tmp_path):
    names = Names()
    for i in range(5):
        names.place(f"{i}", bytes([i % 3]) * 32)
    names.write(tmp_path / "names.parquet")
    again = Names.read(tmp_path / "names.parquet")
    assert again.sources == names.sources == [["0", "3"], ["1", "4"], ["2"]]
    assert (again.digests, again.done) == (names.digests, names.done)
    column = Column(__import__("pyarrow").chunked_array([["a"], [], ["b", "c"]]))
    assert (list(column), column[-1], column[1:], len(column)) == (
        ["a", "b", "c"],
        "c",
        ["b", "c"],
        3,
    )
    with pytest.raises(IndexError):
        column[3]
