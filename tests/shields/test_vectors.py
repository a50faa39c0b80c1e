"""Vectors in memory and in mapped files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unalike.errors import OptionError, StoreError
from unalike.shields.vectors import Mapped, Resident

ROWS = np.arange(42, dtype=np.float32).reshape(14, 3) / 8


def shards(folder: Path, cuts: tuple[int, ...], dtype: str) -> Mapped:
    parts = np.split(ROWS.astype(dtype), cuts)
    for i, part in enumerate(parts):
        save_file({"vectors": torch.from_numpy(part.copy())}, folder / f"{i}.safetensors")
    return Mapped(
        [(folder / f"{i}.safetensors", len(part)) for i, part in enumerate(parts)], 3, dtype
    )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("cuts", [(), (5,), (5, 5, 6, 14)], ids=["one", "two", "with-empty-ones"])
def test_rows_are_those_of_the_array_when_they_lie_in_several_files(
    tmp_path: Path, cuts: tuple[int, ...], dtype: str
):
    vectors = shards(tmp_path, cuts, dtype)
    index = np.array([13, 0, 5, 4, 5, 6])
    assert (vectors.count, vectors.dimension, len(vectors), vectors.dtype) == (
        14,
        3,
        14,
        np.dtype(dtype),
    )
    assert np.array_equal(vectors.rows(index), ROWS.astype(dtype)[index])
    assert vectors.rows(index).dtype == dtype
    assert vectors.rows(np.empty(0, dtype=np.int64)).shape == (0, 3)


@pytest.mark.parametrize("size", [1, 4, 5, 14, 100])
def test_blocks_hold_every_row_once_when_they_cross_files(tmp_path: Path, size: int):
    for vectors in (shards(tmp_path, (5, 5, 6), "float16"), Resident(ROWS.astype(np.float16))):
        found = list(vectors.blocks(size))
        assert [first for first, _ in found] == list(range(0, 14, size))
        assert all(len(block) == size for _, block in found[:-1])
        assert np.array_equal(
            np.concatenate([block for _, block in found]), ROWS.astype(np.float16)
        )


@pytest.mark.parametrize("index", [[-1], [14], [0, 99]])
def test_a_row_is_refused_when_it_is_not_there(tmp_path: Path, index: list[int]):
    with pytest.raises(IndexError, match="rows 0 to 13"):
        shards(tmp_path, (5,), "float32").rows(np.array(index))


@pytest.mark.parametrize("cut", [0, 4, 40, -1])
def test_a_file_is_refused_by_name_when_it_is_cut_short(tmp_path: Path, cut: int):
    shards(tmp_path, (5,), "float32")
    file = tmp_path / "1.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(StoreError, match=r"1.safetensors'.*damaged"):
        Mapped([(tmp_path / "0.safetensors", 5), (file, 9)], 3, "float32")


@pytest.mark.parametrize(
    ("count", "dimension", "dtype"), [(5, 3, "float16"), (6, 3, "float32"), (5, 4, "float32")]
)
def test_a_file_is_refused_when_it_holds_something_else(
    tmp_path: Path, count: int, dimension: int, dtype: str
):
    shards(tmp_path, (5,), "float32")
    with pytest.raises(StoreError, match=f"does not hold {count} × {dimension} numbers in {dtype}"):
        Mapped([(tmp_path / "0.safetensors", count)], dimension, dtype)


def test_a_file_is_refused_when_it_is_missing(tmp_path: Path):
    with pytest.raises(StoreError, match=r"gone.safetensors.*missing"):
        Mapped([(tmp_path / "gone.safetensors", 1)], 3, "float32")


def test_another_precision_is_refused_when_asked_for(tmp_path: Path):
    with pytest.raises(OptionError, match="allowed: float16, float32"):
        Mapped([], 3, "bfloat16")
    with pytest.raises(OptionError, match="float64"):
        Resident(ROWS.astype(np.float64))
