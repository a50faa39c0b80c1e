import os

import pytest
from tests.runs.score import folders

from unalike.errors import OptionError
from unalike.images import read_image
from unalike.runs.images import find_images, reason, refusal


def test_images_are_found_in_order_when_they_lie_in_folders(tmp_path):
    for name in (
        "b/2.PNG",
        "a.webp",
        "b/1.jpeg",
        "c.jpg",
        "notes.txt",
        ".hidden/x.png",
        "b/.y.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        folders.picture(0).save(tmp_path / name) if not name.endswith("txt") else (
            tmp_path / name
        ).write_text("x")
    (tmp_path / "folder.png").mkdir()
    assert find_images(tmp_path) == ["a.webp", "b/1.jpeg", "b/2.PNG", "c.jpg"]


def test_folder_is_refused_when_it_has_no_images(tmp_path):
    with pytest.raises(OptionError, match=r"has no image; allowed are \.png"):
        find_images(tmp_path)
    with pytest.raises(OptionError, match="is no folder"):
        find_images(tmp_path / "none")


def test_path_is_not_told_when_an_image_cannot_be_read(tmp_path):
    (tmp_path / "a.png").write_text("x")
    with pytest.raises(OSError, match="cannot identify") as caught:
        read_image(tmp_path / "a.png")
    assert str(tmp_path) not in reason(caught.value, tmp_path / "a.png")


def test_some_are_named_and_nothing_is_offered_when_all_are_bad():
    text = str(refusal("'set'", 12, [(f"{i}.png", "torn") for i in range(12)]))
    assert text.startswith("12 of 12 images in 'set' cannot be read: 0.png (torn); 1.png (torn); ")
    assert text.endswith("9.png (torn); …. Mend or remove them")


def test_folder_is_refused_when_a_name_in_it_is_no_text(tmp_path):
    name = os.fsdecode(b"\xff.png")
    try:
        folders.picture(0).save(tmp_path / name)
    except OSError:
        pytest.skip("this file system has names in UTF-8 alone")
    with pytest.raises(
        OptionError, match=r"has the file '\\udcff.png', which has bytes that are no"
    ):
        find_images(tmp_path)
