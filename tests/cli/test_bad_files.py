"""Files of the wrong kind: one sentence that names them, no traceback, no wait."""

import io
import json
import os
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unalike.memory import Memory
from unalike.runs.shield.build import build
from unalike.runs.shield.settings import BuildSettings

DEEP = b"[" * 100_000
TEXTS = {
    "empty": b"",
    "zeros": b"\0" * 99,
    "text": b"hello",
    "not UTF-8": b"\xff\xfe\x00\x01",
    "a number": b"5",
    "a list": b"[]",
    "null": b"null",
    "a string": b'"x"',
    "an object": b"{}",
    "half an object": b'{"a": ',
    "deep": DEEP,
    "NaN": b"NaN",
    "a long number": b"9" * 5000,
    "a key twice": b'{"kind": 1, "kind": 2}',
    "a surrogate": b'{"kind": "\\ud800"}',
    "a mark": b"\xef\xbb\xbf{}",
}
OTHERS = ("pipe", "folder")


def put(path: Path, content: bytes | str) -> None:
    path.unlink(missing_ok=True)
    if content == "pipe":
        os.mkfifo(path)
    elif content == "folder":
        path.mkdir()
    else:
        assert isinstance(content, bytes)
        path.write_bytes(content)


def png(width: int, height: int) -> bytes:
    """The head of an image of this size, and no pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + crc


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def npy(value: object, **options: bool) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(value), **options)
    return file.getvalue()


def tar(*names: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 5
            archive.addfile(info, io.BytesIO(b"hello"))
    return file.getvalue()


FORGED_NPY = npy(np.zeros((2, 4))).replace(b"(2, 4)", b"(9, 4)")
IMAGES = {
    **{name: TEXTS[name] for name in ("empty", "zeros", "text", "deep")},
    "pipe": "pipe",
    "a head": png(8, 8),
    "huge": png(60_000, 60_000),
    "no width": png(0, 8),
    "cut": png(8, 8)[:20],
}
LATENTS = {
    **{f"npy {name}": (".npy", TEXTS[name]) for name in ("empty", "zeros", "text", "deep")},
    "npy pipe": (".npy", "pipe"),
    "npy folder": (".npy", "folder"),
    "npy 0-d": (".npy", npy(1.0)),
    "npy 1-d": (".npy", npy([1.0])),
    "npy whole numbers": (".npy", npy([[1]])),
    "npy of objects": (".npy", npy([[{}]], allow_pickle=True)),
    "npy forged": (".npy", FORGED_NPY),
    "npy no rows": (".npy", npy(np.zeros((0, 4)))),
    "npy cut": (".npy", npy(np.zeros((99, 4)))[:-9]),
    "npy deep header": (".npy", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535),
    "npy negative": (".npy", FORGED_NPY.replace(b"(9, 4)", b"(-9,4)")),
    **{f"st {name}": (".safetensors", TEXTS[name]) for name in ("empty", "zeros", "text", "deep")},
    "st pipe": (".safetensors", "pipe"),
    "st long header": (".safetensors", safetensors({}, length=1 << 60)),
    "st deep header": (".safetensors", safetensors(DEEP)),
    "st no tensors": (".safetensors", safetensors({})),
    "st 0-d": (
        ".safetensors",
        safetensors({"x": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}, b"\0" * 4),
    ),
    "st whole numbers": (
        ".safetensors",
        safetensors({"x": {"dtype": "I32", "shape": [1, 1], "data_offsets": [0, 4]}}, b"\0" * 4),
    ),
    "st forged": (
        ".safetensors",
        safetensors({"x": {"dtype": "F32", "shape": [9, 9], "data_offsets": [0, 4]}}, b"\0" * 4),
    ),
    **{f"tar {name}": (".tar", TEXTS[name]) for name in ("empty", "zeros", "text", "deep")},
    "tar pipe": (".tar", "pipe"),
    "tar no image": (".tar", tar("a.txt")),
    "tar no pixels": (".tar", tar("a.png")),
    "tar cut": (".tar", tar("a.png")[:514]),
    "tar gzip": (".tar", b"\x1f\x8b\x08" + b"x" * 50),
    **{f"parquet {name}": (".parquet", TEXTS[name]) for name in ("empty", "zeros", "text")},
    "parquet pipe": (".parquet", "pipe"),
    "parquet forged": (".parquet", b"PAR1" + b"x" * 50 + struct.pack("<I", 40) + b"PAR1"),
    "other": (".gif", b"GIF89a"),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A protected set of one image, by its pixels."""
    folder = tmp_path_factory.mktemp("built")
    Image.new("RGB", (8, 8), "green").save(folder / "green.png")
    asked = BuildSettings(
        images=(str(folder / "green.png"),), out=folder / "set", space="pixels", radius=0.1
    )
    return build(asked).folder


@pytest.fixture
def refused(
    unalike: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Runs a command that has to refuse in one sentence and to write nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "images").mkdir()
    for i, colour in enumerate(("red", "blue")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / "images" / f"{i}.png")

    def run(*arguments: object, code: int = 2) -> str:
        before = sorted(p for p in tmp_path.rglob("*"))
        ended = unalike(*arguments)
        assert (ended.code, ended.out) == (code, "")
        assert ended.err.startswith("unalike: ")
        assert len(ended.err.splitlines()) == 1
        assert "Traceback" not in ended.err
        assert sorted(p for p in tmp_path.rglob("*")) == before
        return ended.err

    return run


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".txt", ".parquet", ".xlsx"])
@pytest.mark.parametrize("content", [*TEXTS.values(), *OTHERS], ids=[*TEXTS, *OTHERS])
def test_file_of_prompts_is_refused(refused, tmp_path, suffix, content):
    put(tmp_path / f"p{suffix}", content)
    message = refused("score", "images", "--prompts", f"p{suffix}")
    assert f"p{suffix}" in message or "have no prompt" in message


@pytest.mark.parametrize("content", [*TEXTS.values(), *OTHERS], ids=[*TEXTS, *OTHERS])
def test_memory_is_refused_before_anything_is_loaded(refused, tmp_path, content):
    put(tmp_path / "bank", content)
    assert "bank" in refused("generate", "cat", "--memory", "bank")


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"__metadata__": {}},
        {"__metadata__": {"unalike": "5"}},
        {"__metadata__": {"unalike": "[]"}},
        {"__metadata__": {"unalike": "null"}},
        {"__metadata__": {"unalike": DEEP.decode()}},
        {"__metadata__": {"unalike": '{"kind": "unalike.memory"}'}},
        {"__metadata__": {"unalike": '{"kind": "unalike.memory", "version": "x"}'}},
        {"__metadata__": {"unalike": '{"kind": "unalike.memory", "version": null}'}},
        {"__metadata__": {"unalike": '{"kind": 5, "version": 1}'}},
        {"x": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}},
    ],
    ids=lambda header: str(header)[:50],
)
def test_memory_is_refused_when_its_header_is_forged(refused, tmp_path, header):
    (tmp_path / "bank").write_bytes(safetensors(header, b"\0" * 4 if "x" in header else b""))
    assert "bank" in refused("generate", "cat", "--memory", "bank")


@pytest.mark.parametrize("content", [*TEXTS.values(), *OTHERS], ids=[*TEXTS, *OTHERS])
def test_model_folder_is_refused_when_its_index_is_not_one(refused, tmp_path, content):
    (tmp_path / "model").mkdir()
    put(tmp_path / "model" / "model_index.json", content)
    assert "model" in refused("generate", "cat", "--model", "model")


@pytest.mark.parametrize(
    "name", ["Wonder", "AutoencoderKL", "UNet2DConditionModel", "utils", "", 5, None, [], "a b"]
)
def test_model_folder_is_refused_when_its_class_is_no_pipeline(refused, tmp_path, name):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text(json.dumps({"_class_name": name}))
    assert "'model'" in refused("generate", "cat", "--model", "model")


@pytest.mark.parametrize(
    "index",
    [
        {},
        {"unet": 5},
        {"unet": ["diffusers", "Nothing"]},
        {"unet": ["no_such_package", "X"]},
        {"unet": ["diffusers", "UNet2DConditionModel"]},
        {"unet": []},
        {"unet": [None, None]},
        {"scheduler": ["diffusers", "DDIMScheduler"]},
    ],
    ids=str,
)
def test_model_folder_is_refused_when_parts_are_missing(refused, tmp_path, index):
    (tmp_path / "model").mkdir()
    content = {"_class_name": "StableDiffusionPipeline", **index}
    (tmp_path / "model" / "model_index.json").write_text(json.dumps(content))
    assert "'model'" in refused("generate", "cat", "--model", "model")


@pytest.mark.parametrize("content", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_image_is_refused(refused, tmp_path, content, suffix):
    put(tmp_path / "images" / f"x{suffix}", content)
    if content != "pipe":  # in a folder, pipes are not looked at
        assert f"x{suffix}" in refused("score", "images")
    message = refused(
        "shield", "build", f"images/x{suffix}", "--out", "set", "--space", "pixels", "-q"
    )
    assert f"x{suffix}" in message


@pytest.mark.parametrize(("suffix", "content"), LATENTS.values(), ids=LATENTS)
def test_other_inputs_of_a_set_are_refused(refused, tmp_path, suffix, content):
    put(tmp_path / f"x{suffix}", content)
    assert f"x{suffix}" in refused(
        "shield", "build", f"x{suffix}", "--out", "set", "--space", "pixels", "--radius", 1
    )


@pytest.mark.parametrize("content", [*TEXTS.values(), *OTHERS], ids=[*TEXTS, *OTHERS])
@pytest.mark.parametrize("command", ["inspect", "add", "check"])
def test_set_is_refused_when_its_manifest_is_not_one(refused, tmp_path, command, content):
    (tmp_path / "set").mkdir()
    put(tmp_path / "set" / "manifest.json", content)
    arguments = [] if command == "inspect" else ["images"]
    assert "set" in refused("shield", command, "set", *arguments)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("count", "x"),
        ("count", -1),
        ("shape", 5),
        ("shape", []),
        ("shape", [0]),
        ("radius", "x"),
        ("radius", None),
        ("radius", -1),
        ("shards", 5),
        ("shards", [5]),
        ("shards", [{"file": "../x", "bytes": 1, "sha256": "", "count": 1}]),
        ("names", None),
        ("space", 5),
        ("dtype", "int8"),
        ("size", "big"),
        ("version", "2"),
        ("version", 99),
        ("checksum", None),
    ],
)
def test_set_is_refused_when_its_manifest_is_forged(refused, built, tmp_path, field, value):
    manifest = json.loads((built / "manifest.json").read_text("utf-8"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "manifest.json").write_text(json.dumps({**manifest, field: value}))
    assert "set" in refused("shield", "inspect", "set")


@pytest.mark.parametrize(
    "lines",
    ["5", "[]", "null", '"x"', "{}", "x", '{"kind": 5}', "NaN", DEEP.decode(), "\xff"],
    ids=lambda lines: lines[:20].encode("ascii", "backslashreplace").decode(),
)
def test_work_that_was_begun_is_refused_when_its_journal_is_damaged(refused, tmp_path, lines):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "building.jsonl").write_bytes(lines.encode("latin-1") + b"\n")
    for arguments in (
        ("build", "images", "--out", "set", "--space", "pixels"),
        ("add", "set", "images"),
    ):
        assert "set" in refused("shield", *arguments)


@pytest.mark.parametrize("content", [*TEXTS.values(), *OTHERS], ids=[*TEXTS, *OTHERS])
def test_run_is_refused_when_its_record_is_not_one(refused, tmp_path, content):
    (tmp_path / "run").mkdir()
    put(tmp_path / "run" / "run.json", content)
    assert "run" in refused("shield", "verify", "run")
    assert "run" in refused("generate", "cat", "--out", "run", "--overwrite")


@pytest.mark.parametrize("content", [TEXTS["empty"], TEXTS["text"], TEXTS["zeros"], *OTHERS])
def test_run_is_refused_when_its_table_is_not_one(refused, tmp_path, content):
    (tmp_path / "run").mkdir()
    record = {"tool": "unalike", "shield": {"name": "set"}, "model": {"name": "emoji"}}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    put(tmp_path / "run" / "samples.parquet", content)
    assert "run" in refused("score", "run")
    assert "run" in refused("shield", "verify", "run", "--shield", "images")


@pytest.mark.parametrize("record", [{"shield": 5}, {"shield": {}}, {"shield": {"name": 5}}, {}])
def test_run_is_refused_when_its_record_has_no_set(refused, tmp_path, record):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"tool": "unalike", **record}))
    assert "run" in refused("shield", "verify", "run")


def test_memory_of_another_kind_is_not_replaced(refused, tmp_path):
    Memory().save(tmp_path / "bank")
    damaged = (tmp_path / "bank").read_bytes()[:-1]
    (tmp_path / "bank").write_bytes(damaged)
    assert "bank" in refused("generate", "cat", "--memory", "bank")
    assert (tmp_path / "bank").read_bytes() == damaged
