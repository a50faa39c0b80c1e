import numpy as np
import pytest
import torch
from PIL import Image
from tests.runs.score import folders

from unalike.errors import OptionError, StoreError
from unalike.extractors import extractor
from unalike.runs.score import images as module
from unalike.runs.score.images import extract, find_images, read_image


def quiet():
    pass


def pixels_extractor(batch_size=4):
    return extractor("pixels", device="cpu", batch_size=batch_size)


def test_images_are_found_in_order_when_they_lie_in_folders(tmp_path):
    for name in ("b/2.PNG", "a.webp", "b/1.jpeg", "c.jpg", "notes.txt", ".hidden/x.png", "b/.y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        folders.picture(0).save(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).write_text("x")
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
    colours = [read_image(tmp_path / f"{n}.png").getpixel((0, 0)) for n in ("clear", "glass", "palette")]
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


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_features_are_in_the_order_of_the_files_when_sizes_are_mixed(tmp_path, batch_size):
    for i in range(7):
        folders.picture(i, (16 + 4 * (i % 3), 16)).save(tmp_path / f"{i}.png")
    files = find_images(tmp_path)
    found = extract(tmp_path, files, pixels_extractor(batch_size), skip_bad=False, tick=quiet)
    alone = [pixels_extractor().features(folders.pixels(tmp_path, [file]))[0] for file in files]
    torch.testing.assert_close(found.features, torch.stack(alone))
    assert found.sizes == {(16, 16): 3, (20, 16): 2, (24, 16): 2}


@pytest.fixture
def damaged(tmp_path):
    """Three good pictures and three that are not."""
    folders.write(tmp_path, range(3))
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "torn.webp").write_bytes((tmp_path / "00.png").read_bytes()[:60])
    return tmp_path


def test_all_unreadable_images_are_named_when_a_folder_is_refused(damaged):
    with pytest.raises(StoreError, match=r"3 of 6 images .* cannot be read: empty\.png .*; text\.jpg .*; torn\.webp .*--skip-bad"):
        extract(damaged, find_images(damaged), pixels_extractor(), skip_bad=False, tick=quiet)


def test_unreadable_images_are_left_out_and_listed_when_asked_for(damaged):
    found = extract(damaged, find_images(damaged), pixels_extractor(), skip_bad=True, tick=quiet)
    assert found.files == ["00.png", "01.png", "02.png"]
    assert len(found.features) == 3
    assert [file for file, _ in found.skipped] == ["empty.png", "text.jpg", "torn.webp"]
    assert not any(str(damaged) in reason for _, reason in found.skipped)


def test_folder_is_refused_when_no_image_is_left(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(StoreError, match=r"1 of 1 images .* Mend or remove them$"):
        extract(tmp_path, ["empty.png"], pixels_extractor(), skip_bad=True, tick=quiet)


def test_few_images_wait_at_a_time_when_all_sizes_differ(tmp_path, monkeypatch):
    for i in range(20):
        folders.picture(i, (16 + i, 16)).save(tmp_path / f"{i:02}.png")
    waiting = []
    add = module._Batches.add

    def counted(self, *arguments):
        add(self, *arguments)
        waiting.append(sum(map(len, self._waiting.values())))

    monkeypatch.setattr(module._Batches, "add", counted)
    found = extract(tmp_path, find_images(tmp_path), pixels_extractor(2), skip_bad=False, tick=quiet)
    assert len(found) == 20
    assert max(waiting) < 8
