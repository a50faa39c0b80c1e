import numpy as np
import pytest
from PIL import Image
from tests.runs.score import folders

from unalike.errors import OptionError
from unalike.runs.images import find_images, read_image, reason, refusal


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


def test_transparent_parts_are_white_when_read(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGBA", (4, 4), (0, 0, 0, 51)).save(tmp_path / "glass.png")
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 0, 255])
    palette.save(tmp_path / "palette.png", transparency=0)
    colours = [
        read_image(tmp_path / f"{n}.png").getpixel((0, 0)) for n in ("clear", "glass", "palette")
    ]
    assert colours == [(255, 255, 255), (204, 204, 204), (255, 255, 255)]


def test_photographs_are_upright_when_their_data_says_how_they_were_held(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "held.jpg", exif=exif)
    assert read_image(tmp_path / "held.jpg").size == (4, 8)


def test_grey_images_are_read_in_colour_and_refused_with_more_than_8_bits(tmp_path):
    Image.new("L", (4, 4), 7).save(tmp_path / "grey.png")
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "grey.png").getpixel((0, 0)) == (7, 7, 7)
    with pytest.raises(ValueError, match="more than 8 bits"):
        read_image(tmp_path / "deep.png")


def test_image_is_read_when_it_comes_from_a_file_that_is_open(tmp_path):
    folders.picture(3).save(tmp_path / "a.png")
    with (tmp_path / "a.png").open("rb") as file:
        assert read_image(file) == read_image(tmp_path / "a.png") == folders.picture(3)


def test_path_is_not_told_when_an_image_cannot_be_read(tmp_path):
    (tmp_path / "a.png").write_text("x")
    with pytest.raises(OSError, match="cannot identify") as caught:
        read_image(tmp_path / "a.png")
    assert str(tmp_path) not in reason(caught.value, tmp_path / "a.png")


def test_some_are_named_and_nothing_is_offered_when_all_are_bad():
    text = refusal("'set'", 12, [(f"{i}.png", "torn") for i in range(12)])
    assert text.startswith("12 of 12 images in 'set' cannot be read: 0.png (torn); 1.png (torn); ")
    assert text.endswith("9.png (torn); …. Mend or remove them")
