"""Image files with what they were made with in them.

| format | Automatic1111's `parameters` | everything, as JSON |
|---|---|---|
| PNG | text chunk `parameters` | text chunk `unalike` |
| JPEG, WebP | EXIF UserComment | EXIF ImageDescription, after `unalike:` |
"""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

from PIL import Image, PngImagePlugin

from unalike.errors import OptionError, StoreError, named
from unalike.files import parse_json, require_regular
from unalike.images import UNREADABLE, read_image
from unalike.runs.images import reason
from unalike.runs.parameters import ImageInfo, parameters_text
from unalike.runs.settings import FORMATS

QUALITY = 95
"""Of JPEG and WebP files, where none is given."""

_KEY, _PARAMETERS = "unalike", "parameters"
_DESCRIPTION, _EXIF, _COMMENT = 0x010E, 0x8769, 0x9286
_UTF_16 = b"UNICODE\0"
_LARGEST_SIDE = {"jpeg": 65_500, "webp": 16_383}
_MOST_TEXT = {"png": 1 << 20, "jpeg": 65_533, "webp": 1 << 20}
"""Bytes of text in a file; of JPEG's EXIF data by its standard, of others what readers allow."""
_HEADERS = 200


def require_format(format: str, quality: int | None) -> None:
    """Make sure that images can be written in a format and quality, before any are drawn.

    Raises:
        OptionError: for an unknown format, a quality outside 1 to 100, and a quality of PNG files,
            which have none.

    Example:
        >>> require_format("png", 90)
        Traceback (most recent call last):
            ...
        unalike.errors.OptionError: quality is 90, and PNG files lose nothing; leave it out, or
        choose another format, as in format='jpeg'
    """
    if format not in FORMATS:
        raise OptionError(
            named("{format} is {!r}; allowed: {}, as in {format='png'}", format, ", ".join(FORMATS))
        )
    if quality is None:
        return
    if format == "png":
        raise OptionError(
            named(
                "{quality} is {!r}, and PNG files lose nothing; leave it out, or choose another "
                "format, as in {format='jpeg'}",
                quality,
            )
        )
    if type(quality) is not int or not 1 <= quality <= 100:
        raise OptionError(
            named(
                "{quality} is {!r}; allowed: a whole number at least 1 and at most 100, as in "
                "{quality=95}",
                quality,
            )
        )


def require_room(info: ImageInfo, format: str) -> None:
    """Make sure that what an image is made with fits into its file, before it is drawn.

    A JPEG file has room for about 60,000 characters of English or 10,000 of Chinese, the others for
    16 times as many.

    Raises:
        OptionError: where it does not fit.
    """
    _json(info, format)


def encode_image(
    image: Image.Image, info: ImageInfo, *, format: str = "png", quality: int | None = None
) -> bytes:
    """The file of an image, with what it was made with in it.

    Args:
        image: PNG keeps its mode; for JPEG transparent parts lie on white.
        info: stored twice: as text for other programs, and whole for `read_info`.
        format: "png", "jpeg" (all colours at full resolution) or "webp" (lossy).
        quality: of JPEG and WebP, 1 to 100; None for 95.

    Raises:
        OptionError: for a format or quality that is not allowed, an image that is too large for
            the format, or a prompt that is too long for it.

    Cost: that of `image.save` itself; the text adds less than a hundredth at 1024×1024.

    Example:
        >>> info = ImageInfo(prompt="red", seed=7, steps=4, scheduler="LCMScheduler", width=8,
        ...     height=8, model="emoji")
        >>> file = encode_image(Image.new("RGB", (8, 8), "red"), info)
        >>> Image.open(io.BytesIO(file)).info["parameters"].splitlines()[0]
        'red'
    """
    require_format(format, quality)
    side = max(image.size)
    if side > _LARGEST_SIDE.get(format, side):
        raise OptionError(
            named(
                "{format} is {!r}, and an image has {:,} pixels a side; allowed: at most {:,}, or "
                "{format='png'}",
                format,
                side,
                _LARGEST_SIDE[format],
            )
        )
    file, how = io.BytesIO(), {}
    if format == "png":
        image.save(file, "PNG", pnginfo=_chunks(info))
        return file.getvalue()
    if format == "jpeg":
        image = image if image.mode in ("RGB", "L") else read_image(image)
        how = {"subsampling": 0}
    image.save(file, format.upper(), quality=quality or QUALITY, exif=_exif(info, format), **how)
    return file.getvalue()


def save_image(
    path: Path,
    image: Image.Image,
    info: ImageInfo,
    *,
    format: str = "png",
    quality: int | None = None,
) -> None:
    """Write an image to a temporary path, with what it was made with in it.

    What is at the path, a link too, is removed and not written to.

    Args:
        path: of any name, such as `unalike.files.replacing` gives.
        image, info, format, quality: as for `encode_image`.

    Raises:
        OptionError: as for `encode_image`.
        OSError: where the file cannot be written.
    """
    data = encode_image(image, info, format=format, quality=quality)
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.write(data)


def read_info(path: Path) -> ImageInfo:
    """What an image was made with. Its pixels are not read.

    Raises:
        OptionError: where there is no such file.
        StoreError: for a file that is no image, and an image that has no record of unalike.
    """
    try:
        require_regular(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF, and of large images
            with Image.open(path, formats=[name.upper() for name in FORMATS]) as opened:
                record, other = _record(opened)
    except FileNotFoundError as error:
        raise OptionError(
            f"there is no image {str(path)!r}; give a PNG, JPEG or WebP file that unalike wrote"
        ) from error
    except UNREADABLE as error:
        raise StoreError(
            f"{str(path)!r} cannot be read as a PNG, JPEG or WebP image: {reason(error, path)}; "
            "give one that unalike wrote"
        ) from error
    if record is None:
        found = f"only {other} of another program" if other else "nothing about how it was made"
        raise StoreError(
            f"{str(path)!r} has no record of unalike, {found}; give an image as unalike wrote it, "
            "which no other program has saved since"
        )
    try:
        return ImageInfo.from_dict(parse_json(record))
    except (ValueError, LookupError) as error:
        raise StoreError(
            f"{str(path)!r} has a record that cannot be read: {error}; give an image as unalike "
            "wrote it"
        ) from error


def _record(image: Image.Image) -> tuple[str | None, str]:
    """The JSON in an image, and a name for what another program stored in its place."""
    if image.format == "PNG":
        found, others = (
            image.info.get(_KEY),
            (_PARAMETERS, "prompt", "workflow", "invokeai_metadata"),
        )
        other = next((repr(name) for name in others if name in image.info), "")
        return found if isinstance(found, str) else None, other
    exif = image.getexif()
    kind, _, record = str(exif.get(_DESCRIPTION, "")).partition(":")
    other = "'parameters'" if _COMMENT in exif.get_ifd(_EXIF) else ""
    return record if kind == _KEY else None, other


def _json(info: ImageInfo, format: str) -> str:
    text = json.dumps(info.to_dict(), allow_nan=False)
    room = _MOST_TEXT[format] - _HEADERS
    if len(text) > room:
        raise OptionError(
            named(
                "{format} is {!r}, which has room for {:,} bytes of text, and what an image was "
                "made with has {:,}, with a prompt of {:,} characters; allowed: a shorter prompt"
                + (", or {format='png'}" if format == "jpeg" else ""),
                format,
                room,
                len(text),
                len(info.prompt),
            )
        )
    return text


def _chunks(info: ImageInfo) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(_PARAMETERS, parameters_text(info))
    chunks.add_text(_KEY, _json(info, "png"))
    return chunks


def _exif(info: ImageInfo, format: str) -> bytes:
    """The EXIF data; without the text for other programs where there is no room for both."""
    exif = Image.Exif()
    exif[_DESCRIPTION] = f"{_KEY}:{_json(info, format)}"
    comment = _UTF_16 + parameters_text(info).encode("utf-16-be")
    if len(exif[_DESCRIPTION]) + len(comment) + _HEADERS <= _MOST_TEXT[format]:
        exif.get_ifd(_EXIF)[_COMMENT] = comment
    return exif.tobytes()
