"""One reading of an image, whatever holds it."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, features

from unalike.errors import OptionError
from unalike.images import UNREADABLE, read_all, read_image, read_pixels, stacked

RAMP = np.linspace(0, 1, 64).reshape(8, 8)
GREY = Image.fromarray(np.rint(RAMP * 255).astype(np.uint8)).convert("RGB")
SIDEWAYS = Image.Exif()
SIDEWAYS[0x0112] = 6


def logo() -> Image.Image:
    image = Image.new("RGBA", (16, 8), (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle((4, 2, 11, 5), fill=(220, 40, 40, 255))
    return image


def on_white() -> Image.Image:
    image = Image.new("RGB", (16, 8), "white")
    ImageDraw.Draw(image).rectangle((4, 2, 11, 5), fill=(220, 40, 40))
    return image


def animation() -> Image.Image:
    file = io.BytesIO()
    on_white().save(file, "GIF", save_all=True, append_images=[Image.new("RGB", (16, 8), "blue")])
    return Image.open(file)


def palette() -> Image.Image:
    image = Image.new("P", (16, 8), 0)
    image.putpalette([0, 0, 255, 220, 40, 40])
    ImageDraw.Draw(image).rectangle((4, 2, 11, 5), fill=1)
    image.info["transparency"] = 0
    return image


def png16(colour: int, rows: np.ndarray, clear: int | None = None) -> Image.Image:
    """A PNG of 16 bits a channel, which Pillow does not write in colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = rows.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    parts = [chunk(b"IHDR", head)]
    parts += [] if clear is None else [chunk(b"tRNS", struct.pack(">H", clear))]
    parts += [chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(parts)))


DEEP = np.rint(RAMP * 65535)
CASES = {
    "transparent": (logo(), on_white()),
    "palette with a transparent colour": (palette(), on_white()),
    "palette with alpha": (logo().convert("PA"), None),
    "premultiplied": (logo().convert("RGBa"), on_white()),
    "grey with alpha": (
        Image.new("LA", (2, 2), (0, 51)),
        Image.new("RGB", (2, 2), (204, 204, 204)),
    ),
    "premultiplied grey": (
        Image.new("LA", (2, 2), (0, 51)).convert("La"),
        Image.new("RGB", (2, 2), (204, 204, 204)),
    ),
    "grey": (GREY.convert("L"), GREY),
    "one bit": (Image.new("1", (2, 2), 1), Image.new("RGB", (2, 2), "white")),
    "16 bits": (Image.fromarray(DEEP.astype(np.uint16)), GREY),
    "16 bits, other byte order": (
        Image.frombytes("I;16B", (8, 8), DEEP.astype(">u2").tobytes()),
        GREY,
    ),
    "16 bits in 32": (Image.fromarray(DEEP.astype(np.int32)), GREY),
    "16 bits with a transparent value": (
        png16(0, np.array([[0, 65535, 30000]]), clear=30000),
        Image.fromarray(np.array([[[0] * 3, [255] * 3, [255] * 3]], dtype=np.uint8)),
    ),
    "16 bits a colour": (
        png16(2, np.array([[[0, 65535, 33000]]])),
        Image.new("RGB", (1, 1), (0, 255, 128)),
    ),
    "16 bits grey with alpha": (png16(4, np.array([[[0, 0]]])), Image.new("RGB", (1, 1), "white")),
    "floats": (Image.fromarray(RAMP.astype(np.float32)), GREY),
    "cmyk": (on_white().convert("CMYK"), on_white()),
    "animation": (animation(), on_white()),
    "array": (np.array(GREY), GREY),
    "array of floats": (RAMP, GREY),
    "array of 16 bits": (DEEP.astype(np.uint16), GREY),
    "array with alpha": (np.array(logo()), on_white()),
    "tensor of floats": (torch.from_numpy(RAMP), GREY),
    "tensor of uint8": (torch.from_numpy(np.array(GREY)).permute(2, 0, 1), GREY),
    "tensor of 16 bits": (torch.from_numpy(DEEP.astype(np.uint16)), GREY),
    "tensor with alpha": (torch.from_numpy(np.array(logo()) / 255).permute(2, 0, 1), on_white()),
    "tensor of bool": (torch.ones(2, 2, dtype=torch.bool), Image.new("RGB", (2, 2), "white")),
}


@pytest.mark.parametrize("name", CASES)
def test_image_is_as_it_is_shown_when_read(name: str):
    given, shown = CASES[name]
    read = read_image(given)
    assert read.mode == "RGB"
    difference = np.abs(np.array(read, dtype=int) - np.array(shown or read, dtype=int))
    assert difference.max() <= (12 if name == "animation" else 0)  # a palette of its own
    assert read_image(read) == read
    torch.testing.assert_close(read_pixels(given), stacked([read])[0], atol=0.5 / 255, rtol=0)


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp", "gif"])
@pytest.mark.parametrize(
    "name", ["transparent", "16 bits", "grey", "palette with a transparent colour"]
)
def test_path_file_and_image_read_the_same_when_the_format_holds_it(
    tmp_path: Path, name: str, suffix: str
):
    given = CASES[name][0]
    path = tmp_path / f"image.{suffix}"
    try:
        given.save(path)
    except OSError:
        pytest.skip(f"{suffix} has no {name}")
    expected = read_image(path)
    with path.open("rb") as file:
        assert read_image(file) == expected
    with Image.open(path) as image:
        assert read_image(image) == expected
        mode = image.mode
        read_image(image)
        assert image.mode == mode  # what was given is as it was
    assert read_image(str(path)) == expected


def test_photograph_is_upright_when_its_data_says_how_it_was_held(tmp_path: Path):
    GREY.save(tmp_path / "held.png", exif=SIDEWAYS)
    upright = GREY.transpose(Image.Transpose.ROTATE_270)
    assert read_image(tmp_path / "held.png") == upright
    with Image.open(tmp_path / "held.png") as image:
        assert read_image(image) == upright
    assert read_image(read_image(tmp_path / "held.png")) == upright


def test_ground_is_behind_transparent_parts_when_given():
    assert read_image(logo(), ground="black").getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(RAMP.astype(np.float32) * 255), "mode 'F' has numbers from 0 to 255"),
        (Image.fromarray(np.full((2, 2), np.nan, np.float32)), "mode 'F' has numbers"),
        (Image.fromarray(np.full((2, 2), 70_000, np.int32)), "mode 'I' has numbers .* 0 to 65535"),
        (torch.full((3, 2, 2), -1.0), "numbers from -1 to -1; allowed: floats from 0 to 1"),
        (torch.full((3, 2, 2), torch.nan), "an image has numbers"),
        (torch.zeros(3, 2, 2, dtype=torch.int64), "allowed: bool, uint8, uint16 or floats"),
        (torch.zeros(5, 2, 2), r"float32 of shape \(5, 2, 2\); allowed: a tensor \(c, h, w\)"),
        (np.zeros((0, 2, 3)), r"float64 of shape \(0, 2, 3\)"),
        (np.array([["a"]]), "allowed: numbers"),
        (torch.tensor(0.5), r"of shape \(\)"),
        (None, "an image is a NoneType; allowed: a path, a PIL image"),
    ],
)
def test_image_is_refused_when_its_numbers_mean_nothing(image: object, message: str):
    with pytest.raises(OptionError, match=message):
        read_image(image)
    with pytest.raises(OptionError, match="image 1 of 2 cannot be read"):
        read_all([GREY, image])


def test_file_is_refused_when_it_is_no_image(tmp_path: Path):
    (tmp_path / "text.png").write_text("x")
    os.mkfifo(tmp_path / "pipe.png")  # would never end
    for name in ("text.png", "pipe.png", "none.png", "."):
        with pytest.raises(UNREADABLE):
            read_image(tmp_path / name)
        with pytest.raises(OptionError, match="image 0 of 1 cannot be read"):
            read_all([tmp_path / name])


def test_file_is_refused_when_it_is_a_program_by_the_name_of_an_image(tmp_path: Path):
    path = tmp_path / "x.png"
    Image.new("RGB", (4, 4)).save(path, format="EPS")
    with pytest.raises(UNREADABLE, match="cannot identify image file"):
        read_image(path)


def test_batch_keeps_floats_when_some_are_given():
    batch = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.as_tensor(read_all(batch)), batch)
    assert torch.equal(torch.as_tensor(read_all(batch.permute(0, 2, 3, 1).numpy())), batch)
    mixed = read_all([batch[0], Image.new("RGB", (4, 4), "white")])
    assert torch.equal(torch.as_tensor(mixed), torch.stack([batch[0], torch.ones(3, 4, 4)]))
    assert read_all(logo()) == read_all([logo()]) == [on_white()]
    with pytest.raises(OptionError, match="different sizes"):
        read_all([batch[0], on_white()])
    with pytest.raises(OptionError, match="images is empty"):
        read_all([])


@pytest.mark.parametrize("kind", ["AVIF", "BLP", "DDS", "TIFF", "ICO"])
def test_file_is_refused_when_any_of_its_bytes_is_damaged(tmp_path: Path, kind: str):
    if not features.check("avif") and kind == "AVIF":
        pytest.skip("this Pillow reads no AVIF")
    file, path = io.BytesIO(), tmp_path / "image.png"
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    (image.quantize() if kind == "BLP" else image).save(file, kind)
    whole, refused = file.getvalue(), 0
    for place in range(0, min(len(whole), 400)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x81]) + whole[place + 1 :])
        try:
            read_image(path)
        except UNREADABLE:
            refused += 1
    assert refused
