import io

import numpy as np
import pytest
import torch
from PIL import Image
from tests.runs.score.folders import picture

from unalike.errors import OptionError
from unalike.runs.shield.edits import EDITS

SIZES = [(16, 16), (17, 9), (64, 64), (1, 1), (3, 40)]


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("size", SIZES)
def test_size_and_source_are_kept_when_an_image_is_edited(name: str, size: tuple[int, int]) -> None:
    image = picture(0, size)
    before = image.tobytes()
    edited = EDITS[name](image)
    assert (edited.size, edited.mode) == (size, "RGB")
    assert image.tobytes() == before
    assert EDITS[name](image).tobytes() == edited.tobytes()


@pytest.mark.parametrize("name", EDITS)
def test_plain_image_stays_as_it_is_when_it_is_edited(name: str) -> None:
    grey = Image.new("RGB", (24, 16), (90, 90, 90))
    assert EDITS[name](grey).tobytes() == grey.tobytes()


@pytest.mark.parametrize("name", EDITS)
def test_transparent_parts_lie_on_white_when_an_image_has_some(name: str) -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert EDITS[name](clear).getcolors() == [(64, (255, 255, 255))]


def test_pixels_are_those_of_a_file_of_quality_80_when_saved_as_jpeg() -> None:
    image = picture(1, (40, 24))
    files = {quality: io.BytesIO() for quality in (75, 80, 85)}
    for quality, file in files.items():
        image.save(file, "JPEG", quality=quality)
    edited = array(EDITS["jpeg80"](image))
    same = [np.array_equal(edited, array(Image.open(file))) for file in files.values()]
    assert same == [False, True, False]
    assert not np.array_equal(edited, array(image))


def test_colours_lose_half_of_their_resolution_when_saved_as_jpeg() -> None:
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[:, ::2], pixels[:, 1::2] = (200, 60, 60), (60, 131, 60)  # of one brightness
    brightness = pixels @ np.array([0.299, 0.587, 0.114])
    assert np.ptp(brightness) < 1
    columns = array(EDITS["jpeg80"](Image.fromarray(pixels))).mean(axis=0)
    assert np.ptp(columns[:, 0]) < 14


def test_pairs_of_pixels_become_one_when_resized_to_half_and_back() -> None:
    fine = np.zeros((16, 16, 3), dtype=np.uint8)
    fine[:, ::2] = 255
    edited = array(EDITS["half"](Image.fromarray(fine)))
    assert np.ptp(edited[:, 4:-4]) <= 2
    assert abs(edited[:, 4:-4].mean() - 127.5) < 2
    coarse = np.zeros((64, 64, 3), dtype=np.uint8)
    coarse[:, 32:] = 255
    edited = array(EDITS["half"](Image.fromarray(coarse)))
    assert (edited[:, :24].max(), edited[:, 40:].min()) == (0, 255)


@pytest.mark.parametrize(
    ("size", "cut"), [((20, 10), (2, 1)), ((64, 64), (6, 6)), ((16, 4), (2, 0)), ((15, 25), (2, 3))]
)
def test_a_tenth_of_each_side_is_gone_when_cropped(
    size: tuple[int, int], cut: tuple[int, int]
) -> None:
    (width, height), (x, y) = size, cut
    box = (x, y, width - x, height - y)
    image = Image.new("RGB", size, "red")
    image.paste("blue", box)
    assert EDITS["crop10"](image).getcolors() == [(width * height, (0, 0, 255))]
    image.paste("red", (x, y, width - x, y + 1))  # the first row that is left
    assert EDITS["crop10"](image).getpixel((width // 2, 0)) == (255, 0, 0)


def test_image_is_stretched_about_its_centre_when_cropped() -> None:
    slope = np.broadcast_to(np.arange(100, dtype=np.uint8)[None, :, None] * 2, (100, 100, 3))
    edited = array(EDITS["crop10"](Image.fromarray(np.ascontiguousarray(slope))))
    expected = 2 * (10 + (np.arange(100) + 0.5) * 0.8 - 0.5)
    assert np.abs(edited[50, 3:-3, 0] - expected[3:-3]).max() < 1


def test_image_is_refused_when_jpeg_has_no_such_size() -> None:
    with pytest.raises(OptionError, match=r"has 65501×1 pixels, and JPEG allows .* 65,500; resize"):
        EDITS["jpeg80"](Image.new("RGB", (65501, 1)))
    with pytest.raises(OptionError, match=r"an image is float32 of shape \(2, 4, 4\)"):
        EDITS["half"](torch.zeros(2, 4, 4))
