import io
import json
import os
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from unalike.errors import OptionError, StoreError
from unalike.runs.imagefile import (
    encode_image,
    read_info,
    require_format,
    require_room,
    save_image,
)
from unalike.runs.parameters import ImageInfo, parameters_text
from unalike.runs.settings import FORMATS, SUFFIXES

PROMPTS = ["red heart", 'a "b", c: d\n\ne', "日本の旗 ♥ 😀", "é ñ\xa0", "Negative prompt: x"]
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


def info(**changes):
    plain = {
        "prompt": "red heart",
        "negative_prompt": "blurry",
        "seed": 2**63 - 1,
        "steps": 4,
        "guidance_scale": 7.5,
        "scheduler": "LCMScheduler",
        "width": 40,
        "height": 24,
        "model": "emoji",
        "model_hash": "0123abcd",
        "methods": [{"name": "sparke", "options": {"strength": 0.1, "window": [0.0, 1.0]}}],
        "item": "ab12",
        "id": "7",
        "settings": {"dtype": "float16"},
    }
    return ImageInfo(**{**plain, **changes})


def comment(image):
    """The EXIF UserComment as piexif reads it, which Automatic1111 uses."""
    data = image.getexif().get_ifd(0x8769)[0x9286]
    assert data[:8] == b"UNICODE\0"
    return data[8:].decode("utf-16-be")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_everything_comes_back_when_written_in_any_format(tmp_path, format, prompt):
    written = info(prompt=prompt)
    path = tmp_path / f"x{SUFFIXES[format]}"
    save_image(path, PICTURE, written, format=format)
    assert read_info(path) == written
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == (format.upper(), "RGB", (40, 24))
        text = image.info["parameters"] if format == "png" else comment(image)
    assert text == parameters_text(written)


def test_pixels_are_those_of_the_image_when_written_as_png(tmp_path):
    save_image(tmp_path / "x.png", PICTURE, info())
    assert np.array_equal(np.asarray(Image.open(tmp_path / "x.png")), PIXELS)


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_files_are_smaller_when_the_quality_is_lower(format):
    sizes = [len(encode_image(PICTURE, info(), format=format, quality=q)) for q in (20, 60, 95)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3
    assert sizes[2] == len(encode_image(PICTURE, info(), format=format))


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "RGB"])
def test_mode_stays_in_png_and_fits_jpeg_when_it_is_another(mode):
    image = PICTURE.convert(mode)
    assert Image.open(io.BytesIO(encode_image(image, info()))).mode == mode
    found = Image.open(io.BytesIO(encode_image(image, info(), format="jpeg"))).mode
    assert found == ("L" if mode == "L" else "RGB")


def test_transparent_parts_are_white_when_written_as_jpeg():
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    found = Image.open(io.BytesIO(encode_image(clear, info(), format="jpeg")))
    assert found.getpixel((4, 4)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("format", "quality", "reason"),
    [
        ("gif", None, "format is 'gif'; allowed: png, jpeg, webp"),
        ("png", 90, "quality is 90, and PNG files lose nothing"),
        ("jpeg", 0, "quality is 0; allowed: a whole number at least 1"),
        ("webp", 101, "quality is 101; allowed"),
        ("jpeg", 9.5, r"quality is 9\.5; allowed"),
        ("jpeg", True, "quality is True; allowed"),
    ],
)
def test_format_and_quality_are_refused_when_not_allowed(format, quality, reason):
    for refuse in (
        lambda: require_format(format, quality),
        lambda: encode_image(PICTURE, info(), format=format, quality=quality),
    ):
        with pytest.raises(OptionError, match=reason):
            refuse()


def test_image_is_refused_when_it_is_too_large_for_webp():
    with pytest.raises(OptionError, match=r"16,384 pixels a side; allowed: at most 16,383"):
        encode_image(Image.new("L", (16_384, 1)), info(), format="webp")


def test_text_for_others_is_left_out_when_a_jpeg_has_no_room_for_both(tmp_path):
    long = info(prompt="word " * 6000)
    save_image(tmp_path / "x.jpg", PICTURE, long, format="jpeg")
    assert read_info(tmp_path / "x.jpg") == long
    with Image.open(tmp_path / "x.jpg") as image:
        assert 0x9286 not in image.getexif().get_ifd(0x8769)


@pytest.mark.parametrize("length", [*range(20_700, 21_000, 37), *range(64_000, 65_500, 111)])
def test_long_prompt_is_kept_or_refused_when_it_is_near_the_limit_of_jpeg(tmp_path, length):
    near = info(prompt="x" * length)
    try:
        require_room(near, "jpeg")
    except OptionError:
        with pytest.raises(OptionError, match=r"prompt of .* characters.*format='png'"):
            encode_image(PICTURE, near, format="jpeg")
        assert length > 64_000
        return
    save_image(tmp_path / "x.jpg", PICTURE, near, format="jpeg")
    assert read_info(tmp_path / "x.jpg") == near


@pytest.mark.parametrize("format", ["png", "webp"])
def test_prompt_is_refused_when_it_is_longer_than_a_mebibyte(tmp_path, format):
    require_room(info(prompt="x" * 1_000_000), format)
    save_image(tmp_path / "x", PICTURE, info(prompt="x" * 1_000_000), format=format)
    assert len(read_info(tmp_path / "x").prompt) == 1_000_000
    with pytest.raises(OptionError, match="a shorter prompt"):
        require_room(info(prompt="x" * 1_050_000), format)


def test_link_is_replaced_and_not_written_to_when_it_is_in_the_way(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "x.tmp").symlink_to(tmp_path / "precious")
    save_image(tmp_path / "x.tmp", PICTURE, info())
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "x.tmp").is_symlink()
    assert read_info(tmp_path / "x.tmp") == info()


def test_image_is_refused_when_it_is_not_there(tmp_path):
    with pytest.raises(OptionError, match=r"there is no image .*none\.png"):
        read_info(tmp_path / "none.png")


def chunks(**texts):
    own = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        own.add_text(name, text)
    return {"pnginfo": own}


def exif_of(**tags):
    exif = Image.Exif()
    if "comment" in tags:
        exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + tags["comment"].encode("utf-16-be")
    if "description" in tags:
        exif[0x010E] = tags["description"]
    return {"exif": exif.tobytes()}


@pytest.mark.parametrize(
    ("format", "stored", "reason"),
    [
        ("PNG", {}, "no record of unalike, nothing about how it was made"),
        ("JPEG", {}, "no record of unalike, nothing about how it was made"),
        ("WEBP", {}, "no record of unalike, nothing about how it was made"),
        ("PNG", chunks(parameters="cat\nSteps: 1"), "only 'parameters' of another program"),
        ("PNG", chunks(workflow="{}"), "only 'workflow' of another program"),
        ("JPEG", exif_of(comment="cat\nSteps: 1"), "only 'parameters' of another program"),
        ("WEBP", exif_of(comment="cat\nSteps: 1"), "only 'parameters' of another program"),
        ("JPEG", exif_of(description="a photo"), "nothing about how it was made"),
        ("PNG", chunks(unalike="{"), "a record that cannot be read"),
        ("PNG", chunks(unalike='{"a": 1, "a": 2}'), "'a' is there twice"),
        ("PNG", chunks(unalike="[" * 100_000), "nested too deep"),
        ("PNG", chunks(unalike='{"format": 9}'), "a later release wrote it"),
        ("PNG", chunks(unalike='{"format": 1}'), "'prompt' is missing"),
        ("JPEG", exif_of(description="unalike:nul"), "a record that cannot be read"),
    ],
)
def test_image_is_refused_when_it_has_no_record(tmp_path, format, stored, reason):
    PICTURE.save(tmp_path / "x", format, **stored)
    with pytest.raises(StoreError, match=reason):
        read_info(tmp_path / "x")


def with_compressed_text(size):
    """A PNG file whose text is small until it is read."""
    file = encode_image(PICTURE, info())
    body = b"zTXtunalike\0\0" + zlib.compress(b" " * size)
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    return file[:33] + chunk + file[33:]


@pytest.mark.parametrize(
    "data",
    [b"", b"text", encode_image(PICTURE, info())[:40], with_compressed_text(1 << 27), b"GIF89a"],
    ids=["empty", "text", "torn", "bomb", "gif"],
)
def test_file_is_refused_when_it_is_no_whole_image(tmp_path, data):
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(StoreError, match=r"x\.png' (cannot be read as a PNG|has no record)"):
        read_info(tmp_path / "x.png")


def test_reading_ends_when_the_file_is_a_pipe_or_a_folder(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(StoreError, match="it is not a regular file"):
            read_info(path)


@pytest.mark.parametrize("format", FORMATS)
def test_file_says_nothing_of_the_machine_when_the_model_is_a_folder(tmp_path, format):
    file = encode_image(PICTURE, info(model=str(tmp_path / "mine")), format=format)
    name = tmp_path.parent.name
    for spelled in (name.encode(), name.encode("utf-16-be"), json.dumps(name).encode()):
        assert spelled not in file
    assert b"mine" in file
