import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from tests.runs.score import folders

from unalike.errors import OptionError
from unalike.runs.shield.latents import LatentFile
from unalike.runs.shield.sources import find_sources, read_images


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def png(seed):
    buffer = io.BytesIO()
    folders.picture(seed).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def names_of(*given):
    return [name for source in find_sources(given) for name in source.names]


def read(source, wanted=None):
    return {
        item.name: item.image or item.reason
        for item in source.read(set(source.names) if wanted is None else wanted)
    }


def test_images_are_named_as_they_were_given_when_they_lie_in_folders_files_and_patterns(tmp_path):
    folders.write(tmp_path / "a" / "b", range(2))
    folders.write(tmp_path / "a", range(1), suffix=".jpg")
    (tmp_path / "a" / "notes.txt").touch()
    assert names_of("a") == ["a/00.jpg", "a/b/00.png", "a/b/01.png"]
    assert names_of("./a/b") == ["a/b/00.png", "a/b/01.png"]
    assert names_of("a/**/*.png", "a/00.jpg") == ["a/b/00.png", "a/b/01.png", "a/00.jpg"]
    assert names_of(str(tmp_path / "a" / "b")) == [
        f"{tmp_path.as_posix()}/a/b/0{i}.png" for i in range(2)
    ]
    assert names_of("a/b", "a", "a/b/01.png") == ["a/b/00.png", "a/b/01.png", "a/00.jpg"]
    (source,) = find_sources(["a/b"])
    assert read(source) == {f"a/b/0{i}.png": folders.picture(i) for i in range(2)}
    assert list(read(source, {"a/b/01.png"})) == ["a/b/01.png"]


def test_reason_is_given_and_no_path_when_a_file_cannot_be_read(tmp_path):
    folders.write(tmp_path / "a", range(1))
    (tmp_path / "a" / "z.png").write_text("no picture")
    (source,) = find_sources(["a"])
    assert read(source)["a/z.png"] == "cannot identify image file 'the file'"


def test_pattern_may_fit_files_of_several_kinds(tmp_path):
    folders.write(tmp_path / "a", range(1))
    write_tar(tmp_path / "a" / "t.tar", [("x.png", png(1))])
    np.save(tmp_path / "a" / "z.npy", np.zeros((2, 3), dtype=np.float32))
    assert names_of("a/*") == ["a/00.png", "a/t.tar#x.png", "a/z.npy#0", "a/z.npy#1"]


def test_images_of_a_tar_file_are_found_when_other_files_are_in_it(tmp_path):
    members = [
        ("1/a.png", png(1)),
        ("1/a.json", b"{}"),
        ("2.PNG", png(2)),
        ("1/a.png", png(3)),
        ("torn.jpg", b"x"),
    ]
    write_tar(tmp_path / "t.tar", members)
    (source,) = find_sources(["t.tar"])
    assert source.names == ["t.tar#1/a.png#0", "t.tar#2.PNG", "t.tar#1/a.png#2", "t.tar#torn.jpg"]
    found = read(source)
    assert [found[name] for name in source.names[:3]] == [folders.picture(i) for i in (1, 2, 3)]
    assert found["t.tar#torn.jpg"] == "it is no image"
    assert list(read(source, {"t.tar#2.PNG"})) == ["t.tar#2.PNG"]
    assert read(source, set()) == {}


PARQUETS = {
    "bytes alone": ({"image": [png(0), png(1), png(2)]}, ["0", "1", "2"]),
    "bytes and names": (
        {"file": ["a", "b", "c"], "jpg": [png(0), png(1), png(2)]},
        ["a", "b", "c"],
    ),
    "names twice or not at all": (
        {"id": ["a", None, "a"], "png": [png(0), png(1), png(2)]},
        ["a#0", "1", "a#2"],
    ),
    "numbers as names": ({"img": [png(0), png(1), png(2)], "id": [7, 8, 9]}, ["7", "8", "9"]),
    "as on the hub": (
        {"image": [{"bytes": png(i), "path": f"{i}.png"} for i in range(3)], "label": [1, 2, 3]},
        ["0.png", "1.png", "2.png"],
    ),
    "without paths": (
        {"image": [{"bytes": png(i), "path": None} for i in range(3)]},
        ["0", "1", "2"],
    ),
    "among other bytes": ({"mask": [b"x"] * 3, "image": [png(0), png(1), png(2)]}, ["0", "1", "2"]),
}


@pytest.mark.parametrize(("columns", "names"), PARQUETS.values(), ids=PARQUETS)
@pytest.mark.parametrize("group", [1, 2, 100])
def test_images_of_a_parquet_file_are_found_when_it_has_this_form(tmp_path, columns, names, group):
    pq.write_table(pa.table(columns), tmp_path / "p.parquet", row_group_size=group)
    (source,) = find_sources(["p.parquet"])
    assert source.names == [f"p.parquet#{name}" for name in names]
    assert read(source) == {f"p.parquet#{name}": folders.picture(i) for i, name in enumerate(names)}
    assert read(source, {source.names[2]}) == {source.names[2]: folders.picture(2)}


def test_rows_without_an_image_are_listed_when_a_parquet_file_has_some(tmp_path):
    pq.write_table(pa.table({"image": [png(0), None, b""]}), tmp_path / "p.parquet")
    (source,) = find_sources(["p.parquet"])
    assert list(read(source).values())[1:] == ["there is no image"] * 2


@pytest.mark.parametrize("shape", [(5, 6), (5, 4, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16, torch.float64])
def test_latents_are_read_as_they_are_when_they_are_in_a_file(tmp_path, monkeypatch, shape, dtype):
    monkeypatch.setattr("unalike.runs.shield.latents._VALUES", 2 * np.prod(shape[1:]))
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    save_file({"latents": z, "other": torch.zeros(1)}, tmp_path / "z.safetensors")
    save_file({"anything": z}, tmp_path / "one.safetensors")
    files = ["z.safetensors", "one.safetensors"]
    if dtype != torch.bfloat16:  # which numpy does not have
        np.save(tmp_path / "z.npy", z.numpy())
        files.append("z.npy")
    for file in files:
        (source,) = find_sources([file])
        assert isinstance(source, LatentFile)
        assert source.shape == shape[1:]
        found = list(source.batches(set(source.names)))
        assert [len(names) for names, _ in found] == [2, 2, 1]
        assert [name for names, _ in found for name in names] == [f"{file}#{i}" for i in range(5)]
        assert torch.equal(torch.cat([rows for _, rows in found]), z.double())
        ((names, rows),) = source.batches({f"{file}#1", f"{file}#4"})
        assert names == [f"{file}#1", f"{file}#4"]
        assert torch.equal(rows, z[[1, 4]].double())


def bad_files(folder):
    folder.mkdir()
    (folder / "empty").mkdir()
    (folder / "x.txt").touch()
    for name in ("x.parquet", "x.tar", "x.npy", "x.safetensors"):
        (folder / name).write_text("nothing of that kind")
    write_tar(folder / "none.tar", [("a.txt", b"x")])
    pq.write_table(pa.table({"text": ["a"]}), folder / "text.parquet")
    pq.write_table(pa.table({"a": [b"x"], "b": [b"x"]}), folder / "two.parquet")
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), folder / "no-rows.parquet")
    np.save(folder / "whole.npy", np.zeros((3, 4), dtype=np.int64))
    np.save(folder / "flat.npy", np.zeros(3))
    np.save(folder / "no-rows.npy", np.zeros((0, 3)))
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    save_file({"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)}, folder / "two.safetensors")


BAD = {
    "none": "is not there",
    "*.gif": "fits no file",
    "empty": "has no image",
    "x.txt": r"of no kind that can be read.*\.npy and \.safetensors of latents",
    "x.parquet": "cannot be read as Parquet",
    "x.tar": "cannot be read as a tar file",
    "x.npy": "cannot be read as latents",
    "x.safetensors": "cannot be read as latents",
    "none.tar": "has no image",
    "text.parquet": "no column of bytes but text",
    "two.parquet": r"several columns of bytes \(a, b\)",
    "no-rows.parquet": "has no rows",
    "whole.npy": "int64 of shape",
    "flat.npy": "allowed: floating point numbers",
    "no-rows.npy": "m at least 1",
    "objects.npy": "Python objects",
    "two.safetensors": "has the tensors a, b",
}


@pytest.mark.parametrize(("name", "message"), BAD.items(), ids=BAD)
def test_input_is_refused_when_nothing_can_be_read_from_it(tmp_path, name, message):
    bad_files(tmp_path / "bad")
    with pytest.raises(OptionError, match=message):
        find_sources([f"bad/{name}"])


def test_pictures_are_found_again_when_their_files_are_still_there(tmp_path):
    folders.write(tmp_path / "a#b", range(2))
    write_tar(tmp_path / "t.tar", [("x.png", png(4)), ("y.png", png(5))])
    pq.write_table(pa.table({"image": [png(6)]}), tmp_path / "p.parquet")
    np.save(tmp_path / "z.npy", np.zeros((2, 3)))
    names = [
        "a#b/01.png",
        "t.tar#y.png",
        "p.parquet#0",
        "z.npy#1",
        "gone.png",
        "gone.tar#x.png",
        "t.tar#gone.png",
    ]
    assert read_images(names) == {
        n: folders.picture(i) for n, i in zip(names, (1, 5, 6), strict=False)
    }
    (tmp_path / "t.tar").write_text("replaced")
    assert list(read_images(names)) == ["a#b/01.png", "p.parquet#0"]
