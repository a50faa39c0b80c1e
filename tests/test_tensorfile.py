from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unalike import tensorfile
from unalike.errors import StoreError

KIND = "unalike.memory"


def test_contents_come_back_when_written(tmp_path: Path) -> None:
    tensors = {
        "a": torch.arange(6.0).view(2, 3),
        "half": torch.ones(2, dtype=torch.float16),
        "none": torch.zeros(3, 0),
    }
    tensorfile.write(tmp_path / "x", KIND, 1, {"note": "ü"}, tensors)
    header, read = tensorfile.read(tmp_path / "x", KIND, 1)
    assert header["note"] == "ü"
    assert read.keys() == tensors.keys()
    assert all(
        torch.equal(read[name], tensors[name]) and read[name].dtype == tensors[name].dtype
        for name in tensors
    )
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_old_file_stays_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    tensorfile.write(path, KIND, 1, {}, {"a": torch.zeros(2)})
    before = path.read_bytes()

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match="No space left on device"):
        tensorfile.write(path, KIND, 1, {}, {"a": torch.ones(2)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_folder_is_asked_for_when_it_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"No such file.*existing folder"):
        tensorfile.write(tmp_path / "no" / "x", KIND, 1, {}, {})


def test_missing_file_is_reported_when_read(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no memory at '.*x'"):
        tensorfile.read(tmp_path / "x", KIND, 1)


@pytest.mark.parametrize("change", ["cut", "flip", "text", "empty"])
def test_damage_is_reported_when_read(tmp_path: Path, change: str) -> None:
    path = tmp_path / "x"
    tensorfile.write(path, KIND, 1, {}, {"a": torch.arange(64.0)})
    data = bytearray(path.read_bytes())
    if change == "flip":
        data[-5] ^= 1
    path.write_bytes(
        {"cut": data[:-9], "flip": data, "text": b"hello, world", "empty": b""}[change]
    )
    with pytest.raises(StoreError, match="damaged"):
        tensorfile.read(path, KIND, 1)


def test_other_kinds_are_refused_when_read(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "weights")
    with pytest.raises(StoreError, match=r"weights' is not a memory$"):
        tensorfile.read(tmp_path / "weights", KIND, 1)
    tensorfile.write(tmp_path / "s", "unalike.shield", 1, {}, {})
    with pytest.raises(StoreError, match=r"not a memory but a unalike\.shield"):
        tensorfile.read(tmp_path / "s", KIND, 1)


def test_later_format_is_refused_when_read(tmp_path: Path) -> None:
    tensorfile.write(tmp_path / "x", KIND, 2, {}, {})
    with pytest.raises(StoreError, match=r"later release \(format 2\)"):
        tensorfile.read(tmp_path / "x", KIND, 1)


def forged(path: Path, manifest: str, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """A safetensors file with this text where the manifest belongs."""
    save_file(tensors or {"a": torch.zeros(2)}, path, metadata={"unalike": manifest})
    return path


@pytest.mark.parametrize(
    "manifest",
    [
        "[]",
        "5",
        '"text"',
        "{",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"kind": "unalike.memory", "version": "1"}',
        '{"kind": "unalike.memory", "version": [1]}',
        '{"kind": "unalike.memory", "version": true}',
        '{"kind": "unalike.memory", "version": ' + "9" * 5000 + "}",
        '{"kind": "unalike.memory", "version": 1}',
        '{"kind": ["unalike.memory"], "version": 1}',
        "{}",
    ],
)
def test_forged_manifest_is_refused_when_read(tmp_path: Path, manifest: str) -> None:
    with pytest.raises(StoreError, match=r"damaged|not a memory"):
        tensorfile.read(forged(tmp_path / "x", manifest), KIND, 1)


@pytest.mark.parametrize("length", [0, 8, 2**20, 2**40, 2**63, 2**64 - 1])
def test_forged_length_of_the_header_is_refused_when_read(tmp_path: Path, length: int) -> None:
    (tmp_path / "x").write_bytes(length.to_bytes(8, "little") + b"{}" * 50)
    with pytest.raises(StoreError, match="damaged"):
        tensorfile.read(tmp_path / "x", KIND, 1)


def test_bytes_come_back_when_they_are_whole_and_are_refused_when_they_are_not():
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.int64)}
    data = tensorfile.to_bytes({"what": ["x", 1]}, tensors)
    header, found = tensorfile.from_bytes(data)
    assert header["what"] == ["x", 1]
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    changed = bytearray(data)
    changed[-1] ^= 1
    for damaged in (b"", data[:-8], data[:20], bytes(changed), b"x" * 100):
        with pytest.raises(ValueError, match=r".+"):
            tensorfile.from_bytes(damaged)
