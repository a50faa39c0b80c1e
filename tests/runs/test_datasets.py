"""The real `datasets` package loads what a run writes, without a network."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from unalike.errors import StoreError
from unalike.runs.datasets import SCHEMA, metadata_row, write_metadata
from unalike.runs.folder import METADATA
from unalike.runs.imagefile import encode_image, save_image
from unalike.runs.parameters import ImageInfo
from unalike.runs.settings import FORMATS, SUFFIXES
from unalike.runs.shards import ShardWriter


@pytest.fixture
def load(monkeypatch, tmp_path):
    """`datasets.load_dataset` of one split, offline, with a cache of its own."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets

    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    return lambda *names, **given: datasets.load_dataset(
        *names, split="train", cache_dir=str(tmp_path / "cache"), **given
    )


def info(number):
    return ImageInfo(
        prompt=f'prompt {number}, "猫"\nline',
        negative_prompt="" if number < 6 else "blurry",
        seed=2**62 + number,
        steps=4,
        guidance_scale=7 if number % 2 else 7.5,
        scheduler="LCMScheduler",
        width=16,
        height=16,
        model="emoji",
        methods=({"name": "sparke", "options": {"strength": 0.1}},),
    )


def colour(number):
    return (number * 20, 255, 0)


@pytest.fixture
def folder(tmp_path):
    """An output folder with eight images and all that lies beside them."""
    out = tmp_path / "out"
    for name in ("images", "unguided"):
        (out / name).mkdir(parents=True)
    for number in range(8):
        own = Image.new("RGB", (16, 16), colour(number))
        save_image(out / "images" / f"{number:05}.png", own, info(number))
        Image.new("RGB", (16, 16)).save(out / "unguided" / f"{number:05}.png")
    Image.new("RGB", (64, 64)).save(out / "grid.png")
    (out / "run.json").write_text("{}")
    (out / "report.html").write_text("<p>")
    (out / "run.sqlite").write_bytes(b"x")
    pq.write_table(pq.read_table(table(out, range(8))), out / "samples.parquet")
    return out


def table(out, numbers):
    rows = (metadata_row(f"{number:05}.png", info(number)) for number in numbers)
    return write_metadata(out / "images", rows)


@pytest.mark.parametrize("below", ["", "images"])
def test_images_load_with_their_prompts_when_given_as_an_imagefolder(folder, load, below):
    found = load("imagefolder", data_dir=str(folder / below))
    assert found.column_names == ["image", *SCHEMA.names[1:]]
    assert found["text"][:] == [info(number).prompt for number in range(8)]
    assert found["seed"][:] == [2**62 + number for number in range(8)]
    assert found["negative_prompt"][7] == "blurry"
    assert [image.getpixel((8, 8)) for image in found["image"]] == [colour(i) for i in range(8)]


def test_only_images_of_the_table_load_when_others_lie_beside_them(folder, load):
    table(folder, [1, 5])
    found = load("imagefolder", data_dir=str(folder))
    assert found["text"][:] == [info(1).prompt, info(5).prompt]
    assert [image.getpixel((8, 8)) for image in found["image"]] == [colour(1), colour(5)]


def test_all_rows_load_when_a_column_has_no_value_in_the_first_ten_thousand(folder, load):
    rows = [metadata_row("00000.png", info(0)) | {"guidance_scale": None}] * 12_000
    rows += [metadata_row("00001.png", info(1))]
    write_metadata(folder / "images", iter(rows))
    found = load("imagefolder", data_dir=str(folder)).remove_columns("image")
    assert len(found) == 12_001
    assert (found["guidance_scale"][0], found["guidance_scale"][12_000]) == (None, 7.0)


@pytest.mark.parametrize("format", FORMATS)
def test_shards_load_when_given_as_a_webdataset(tmp_path, load, format):
    with ShardWriter(tmp_path / "shards", size=12_000) as writer:
        for number in range(12):
            file = encode_image(
                Image.new("RGB", (16, 16), colour(number)), info(number), format=format
            )
            record, text = info(number).to_dict(), info(number).prompt
            writer.write(f"{number:08}", file, SUFFIXES[format], record, text)
    assert len(list((tmp_path / "shards").iterdir())) > 1
    found = load("webdataset", data_files={"train": str(tmp_path / "shards" / "*.tar")})
    assert found["__key__"][:] == [f"{number:08}" for number in range(12)]
    assert found["txt"][:] == [info(number).prompt for number in range(12)]
    assert [ImageInfo.from_dict(record) for record in found["json"]] == [info(i) for i in range(12)]
    for number, image in enumerate(found[SUFFIXES[format][1:]]):
        assert np.abs(np.subtract(image.getpixel((8, 8)), colour(number))).max() <= 3


def test_table_has_its_columns_when_there_are_no_images(tmp_path):
    path = write_metadata(tmp_path, [])
    assert path == tmp_path / METADATA
    assert pq.read_table(path).schema.equals(SCHEMA)


def test_earlier_table_stays_when_a_row_is_wrong_or_it_cannot_be_written(tmp_path):
    write_metadata(tmp_path, [metadata_row("a.png", info(1))])
    before = (tmp_path / METADATA).read_bytes()
    with pytest.raises(ValueError, match="no column 'promt'; allowed: file_name, text"):
        write_metadata(tmp_path, [{"file_name": "b.png", "promt": "x"}])
    assert {path.name for path in tmp_path.iterdir()} == {METADATA}
    assert (tmp_path / METADATA).read_bytes() == before
    with pytest.raises(StoreError, match="cannot write"):
        write_metadata(tmp_path / "none", [])
