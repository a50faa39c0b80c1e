"""Digests of files and folders."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unalike.errors import StoreError
from unalike.pipelines.identity import file_digest, folder_digest, hub_commit

MIB = 1 << 20


def changed(path: Path, place: int) -> str:
    """The digest after one byte was changed, which is put back."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    digest = file_digest(path)
    data[place] ^= 1
    path.write_bytes(data)
    return digest


def test_digest_changes_when_a_byte_of_the_ends_does(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(os.urandom(5 * MIB))
    own = file_digest(path)
    ends = [0, MIB - 1, 4 * MIB, 5 * MIB - 1]
    assert own not in {changed(path, place) for place in ends}
    assert changed(path, 2 * MIB) == own, "only the ends are read"


@pytest.mark.parametrize("size", [0, 1, MIB, 2 * MIB, 2 * MIB + 1])
def test_every_byte_counts_when_the_file_is_short(tmp_path, size):
    path = tmp_path / "config.json"
    path.write_bytes(os.urandom(size))
    own = file_digest(path)
    for place in {size // 2 - 1, size - 1} if size > 2 else range(size):
        assert changed(path, place) != own
    path.write_bytes(path.read_bytes() + b"x")
    assert file_digest(path) != own


def test_whole_header_counts_when_it_is_long(tmp_path):
    path = tmp_path / "long.safetensors"
    tensors = {f"{i:06}.{'name' * 20}": torch.zeros(64) for i in range(20_000)}
    save_file(tensors, path)
    own, header = file_digest(path), int.from_bytes(path.read_bytes()[:8], "little")
    assert header > 2 * MIB
    assert changed(path, header // 2 + MIB // 2) != own


def test_folder_is_the_same_when_it_lies_elsewhere(tiny_sd_folder, tmp_path):
    shutil.copytree(tiny_sd_folder, tmp_path / "copy")
    (tmp_path / "copy" / "notes.txt").write_text("mine")
    (tmp_path / "copy" / "images").mkdir()
    (tmp_path / "copy" / "images" / "run.json").write_text("{}")
    assert folder_digest(tmp_path / "copy") == folder_digest(tiny_sd_folder)


@pytest.mark.parametrize(
    "file", ["unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"]
)
def test_folder_is_another_when_a_component_changes(tiny_sd_folder, tmp_path, file):
    shutil.copytree(tiny_sd_folder, tmp_path / "copy")
    path = tmp_path / "copy" / file
    path.write_bytes(path.read_bytes() + b" ")
    assert folder_digest(tmp_path / "copy") != folder_digest(tiny_sd_folder)


def test_files_are_refused_when_they_are_not_there(tmp_path):
    with pytest.raises(StoreError, match="cannot be read"):
        file_digest(tmp_path / "none")
    with pytest.raises(StoreError, match="cannot be read"):
        folder_digest(tmp_path)
    with pytest.raises(StoreError, match="not among the models that were downloaded"):
        hub_commit("nobody/nothing")
