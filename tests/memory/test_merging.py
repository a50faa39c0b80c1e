"""Several memories in one."""

from pathlib import Path

import pytest
import torch

from unalike.errors import StoreError
from unalike.memory import Memory
from unalike.memory.merging import merge

WEBP = b"RIFF\x00\x00\x00\x00WEBPVP8 "


def add(memory: Memory, seed: int, item: str, space: str = "s/2") -> None:
    memory.add(space, torch.full((1, 2), float(seed)), texts=["cat"], seeds=[seed], items=[item])


def test_samples_come_in_the_order_of_time_and_once_when_merged(tmp_path: Path) -> None:
    a = Memory.open(tmp_path / "a", create=True, capacity=3)
    b = Memory.open(tmp_path / "b", create=True, capacity=5, dtype="float16")
    for seed, memory in enumerate([a, b, b, a, a, b, a]):  # the first of a is pushed out
        add(memory, seed, f"item {seed}")
    add(b, 6, "item 6")
    b.add_thumbnails({"item 2": WEBP})
    before = [(tmp_path / name).read_bytes() for name in "ab"]
    assert merge(tmp_path / "all", [tmp_path / "a", tmp_path / "b"]) == 6
    assert before == [(tmp_path / name).read_bytes() for name in "ab"]
    for memory in (a, b):
        memory.close()
    with Memory.open(tmp_path / "all") as merged:
        assert merged.seeds("s/2") == [1, 2, 3, 4, 5, 6]
        assert (merged.capacity, merged.dtype) == (6, "float32")
        view = merged.view("s/2")
        assert view is not None
        assert view.latents[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
        assert merged.add_thumbnails({"item 2": WEBP}) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "all", "b"]


def test_files_are_refused_when_they_do_not_fit(tmp_path: Path) -> None:
    for name, size in (("a", 2), ("b", 3)):
        with Memory.open(tmp_path / name, create=True) as memory:
            memory.add("s", torch.ones(1, size))
    with pytest.raises(StoreError, match=r"'s' have shape \(2,\) .*'.*a', and shape \(3,\)"):
        merge(tmp_path / "all", [tmp_path / "a", tmp_path / "b"])
    with pytest.raises(StoreError, match="is one of the files to merge"):
        merge(tmp_path / "a", [tmp_path / "b", tmp_path / "a"])
    with pytest.raises(StoreError, match="is there already"):
        merge(tmp_path / "a", [tmp_path / "b"])
    with pytest.raises(StoreError, match=r"there is no memory at .*gone"):
        merge(tmp_path / "all", [tmp_path / "gone"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]
