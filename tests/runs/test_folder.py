import io
import json

import pytest
from PIL import Image

from unalike.errors import StoreError
from unalike.runs.folder import RunFolder, free_folder, image_path

RED = Image.new("RGB", (4, 4), (255, 0, 0))
BLUE = Image.new("RGB", (4, 4), (0, 0, 255))


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def written(path, images=2):
    """A finished run of `images` images."""
    folder = RunFolder.claim(path)
    folder.start({"images": {"planned": images}})
    for i in range(images):
        folder.place_all({image_path(i, guided=guided): png(RED) for guided in (True, False)})
    folder.write_grid(RED)
    folder.write_report("<p>old</p>")
    return folder


def files(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())


def test_folder_and_its_parents_are_made_when_they_are_not_there(tmp_path):
    folder = RunFolder.claim(tmp_path / "a" / "b")
    assert folder.created
    assert files(tmp_path) == []
    assert (tmp_path / "a" / "b").is_dir()


def test_folder_goes_again_when_abandoned_before_anything_is_written(tmp_path):
    RunFolder.claim(tmp_path / "new").abandon()
    assert not (tmp_path / "new").exists()


def test_folder_stays_when_it_was_there_before(tmp_path):
    RunFolder.claim(tmp_path).abandon()
    assert tmp_path.is_dir()


def test_folder_is_refused_when_it_is_not_empty(tmp_path):
    written(tmp_path)
    before = files(tmp_path)
    with pytest.raises(StoreError, match=r"is not empty.*overwrite=True"):
        RunFolder.claim(tmp_path)
    assert files(tmp_path) == before


def test_folder_is_refused_when_no_run_wrote_it_even_with_overwrite(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="no run of unalike wrote"):
        RunFolder.claim(tmp_path, overwrite=True)


def test_folder_is_refused_when_another_programs_record_is_in_it(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"tool": "other"}))
    with pytest.raises(StoreError, match="no run of unalike wrote"):
        RunFolder.claim(tmp_path, overwrite=True)


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_folder_is_refused_when_a_file_is_in_the_way(tmp_path, where):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be written"):
        RunFolder.claim(tmp_path / where)


def test_only_the_files_of_the_earlier_run_go_when_overwritten(tmp_path):
    written(tmp_path, images=3)
    (tmp_path / "notes.txt").write_text("mine")
    BLUE.save(tmp_path / "images" / "favourite.png")
    BLUE.save(tmp_path / "images" / "00007.png")
    folder = RunFolder.claim(tmp_path, overwrite=True)
    assert (tmp_path / "images" / "00002.png").exists(), "claiming alone must remove nothing"
    folder.start({"images": {"planned": 1}})
    folder.place_all({"images/00000.png": png(BLUE)})
    assert files(tmp_path) == [
        "images/00000.png",
        "images/00007.png",
        "images/favourite.png",
        "notes.txt",
        "run.json",
    ]
    with Image.open(tmp_path / "images" / "00000.png") as image:
        assert image.getpixel((0, 0)) == (0, 0, 255)


def test_record_is_refused_when_it_holds_a_number_that_json_has_not(tmp_path):
    folder = RunFolder.claim(tmp_path)
    folder.start({"x": 1})
    with pytest.raises(ValueError, match="JSON"):
        folder.write_record({"x": float("nan")})
    assert json.loads((tmp_path / "run.json").read_text()) == {"tool": "unalike", "x": 1}


def test_name_is_numbered_when_the_folder_is_there(tmp_path):
    names = []
    for _ in range(3):
        names.append(free_folder(["Ein Herz ♥ / x"], tmp_path))
        names[-1].mkdir()
    assert [n.name for n in names] == [
        "unalike-ein-herz-x",
        "unalike-ein-herz-x-2",
        "unalike-ein-herz-x-3",
    ]


@pytest.mark.parametrize(
    ("prompts", "name"),
    [
        (["日本の旗"], "unalike-日本の旗"),
        (["猫", "a dog"], "unalike-猫-a-dog"),
        (["हिन्दी"], "unalike-हिन्दी"),
        (["café"], "unalike-café"),
        (["♥"], "unalike"),
        (["../../etc/passwd"], "unalike-etc-passwd"),
        ([str(i) for i in range(9)], "unalike-0-1-2-and-6-more"),
    ],
)
def test_name_has_the_letters_of_all_prompts_when_they_are_of_any_script(tmp_path, prompts, name):
    assert free_folder(prompts, tmp_path) == tmp_path / name


@pytest.mark.parametrize("prompt", ["x" * 9999, "猫" * 999, "word " * 999])
def test_name_can_be_made_when_prompts_are_long(tmp_path, prompt):
    folder = free_folder([prompt] * 9, tmp_path)
    folder.mkdir()
    assert len(folder.name.encode()) < 200
