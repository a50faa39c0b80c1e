"""HTML building blocks of the report pages. A page loads nothing but images of its own folder."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any
from urllib.parse import quote

from PIL import Image

ROWS_LISTED = 30
_FLAG = re.compile(r"--[a-z][a-z-]*")
_LONG = 40  # characters from which a cell of a table is broken into lines of a width of their own
_RECORD_SHOWN = 65_536  # characters of a record up to which it stands in the page
_IN_JSON = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


@dataclass(frozen=True)
class Shown:
    """An image on a page.

    Attributes:
        source: its URL; of a file see `file_url`, of the image itself `data_uri`.
        size: width and height for which room is kept until it is loaded.
        alt: describes it to those who cannot see it.
        label: text above it; empty for none.
        linked: whether it leads to its file.
    """

    source: str
    size: tuple[int, int]
    alt: str
    label: str = ""
    linked: bool = False

    @classmethod
    def embedded(cls, image: Image.Image, alt: str) -> Shown:
        """An image that is part of the page, as large as it is."""
        return cls(data_uri(image), image.size, alt)


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page: the title as its heading, then the parts that are not empty.

    Args:
        title: text, also shown in the browser's tab.
        parts: HTML.
    """
    style = resource("page.css")
    body = "\n".join([f"<h1>{escape(title)}</h1>", *(part for part in parts if part)])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} · unalike</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def resource(name: str) -> str:
    """The text of a style sheet or script that pages are made with."""
    return resources.files("unalike.runs").joinpath(name).read_text("utf-8")


def json_script(name: str, data: Any) -> str:
    """Data for the scripts of a page, which no text in it can end or break out of.

    Args:
        name: the `id` of the element.
        data: ready for JSON.

    Example:
        >>> "</script>" in json_script("data", "</script>").removesuffix("</script>")
        False
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return (
        f'<script type="application/json" id="{escape(name)}">{text.translate(_IN_JSON)}</script>'
    )


def file_url(path: str) -> str:
    """The URL of a file beside the page.

    Args:
        path: relative to the page's folder, with `/` between its parts.

    Example:
        >>> file_url("images/50% #1.png")
        'images/50%25%20%231.png'
    """
    return quote(path)


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def note(text: str) -> str:
    """A paragraph of plain text that explains what is beside it."""
    return f'<p class="note">{escape(text)}</p>'


def notes(texts: Iterable[str]) -> str:
    """A list of explanations, plain texts."""
    items = "\n".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="note">\n{items}\n</ul>'


def details(summary: str, body: str) -> str:
    """HTML that opens when its summary, plain text, is chosen."""
    return f"<details>\n<summary>{escape(summary)}</summary>\n{body}\n</details>"


def settings_section(what: str, record: Mapping[str, Any], file: str) -> str:
    """The last section of a page: the command that repeats the work, and the whole record.

    Args:
        what: the work, as it stands after "To" and before "again".
        record: has the `command`.
        file: beside the page, where the record is; a long record is linked to instead of shown.
    """
    # a browser breaks lines after a hyphen, between the two of a flag too
    command = _FLAG.sub(r'<span class="flag">\g<0></span>', escape(record["command"]))
    text = json.dumps(record, indent=2, ensure_ascii=False)
    everything = (
        details(f"Everything in {file}", f"<pre>{escape(text)}</pre>")
        if len(text) <= _RECORD_SHOWN
        else f'<p>Everything is in <a href="{escape(file_url(file))}">{escape(file)}</a>.</p>'
    )
    return (
        f"<h2>Settings</h2>\n{paragraph(f'To {what} again:')}\n<pre>{command}</pre>\n{everything}"
    )


def panel(body: str, heading: str = "", *, level: int = 3) -> str:
    """HTML in a box of its own, under a heading of plain text where there is one."""
    head = f"<h{level}>{escape(heading)}</h{level}>\n" if heading else ""
    return f'<div class="panel">\n{head}{body}\n</div>\n'


def panels(boxes: Iterable[str]) -> str:
    """Boxes side by side where there is room."""
    return f'<div class="panels">\n{"".join(boxes)}</div>'


def gallery(figures: Iterable[str], kind: str = "grid") -> str:
    """A list of `figure`s: "grid", the wider "pairs", or "rows" of text without images."""
    return f'<ul class="{kind}">\n{"".join(figures)}</ul>'


def figure(images: Sequence[Shown], caption: str, *, changed: bool = False) -> str:
    """One item of a `gallery`: images that belong together, over one caption.

    Whatever belongs together is in one item, so that it stays together at every width.

    Args:
        images: none where there is only something to read.
        caption: plain text.
        changed: whether the last image gets a frame.
    """
    state = ' class="changed"' if changed else ""
    shown = "".join(map(_shown, images))
    together = f'<div class="together">{shown}</div>' if images else ""
    return (
        f"<li{state}><figure>{together}<figcaption>{escape(caption)}</figcaption></figure></li>\n"
    )


def _shown(image: Shown) -> str:
    width, height = image.size
    source = escape(image.source)
    # what is embedded is there already; a file is read when it comes near the window
    lazy = ' loading="lazy"' if image.linked else ""
    element = (
        f'<img src="{source}" alt="{escape(image.alt)}" width="{width}" height="{height}"'
        f'{lazy} decoding="async">'
    )
    if image.linked:
        element = f'<a href="{source}">{element}</a>'
    return f'<div class="shown">{_label(image.label)}{element}</div>'


def _label(text: str) -> str:
    return f'<span class="label">{escape(text)}</span>' if text else ""


def thumbnail(image: Image.Image, side: int = 128) -> Image.Image:
    """A copy of the image, at most `side` wide and high."""
    image = image.copy()
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def data_uri(image: Image.Image) -> str:
    """The image itself as a URI: small ones without loss.

    Example:
        >>> data_uri(Image.new("RGB", (1, 1)))[:22]
        'data:image/png;base64,'
    """
    buffer = io.BytesIO()
    kind = "png" if max(image.size) <= 128 else "webp"
    image.save(buffer, "PNG") if kind == "png" else image.save(buffer, "WEBP", quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def table(
    name: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers_from: int
) -> str:
    """A table of plain texts that scrolls sideways where the page is narrower.

    What explains the table stands before it, as a `note`: inside, it would scroll away.

    Args:
        name: names the table to screen readers; no other table of the page has it.
        head: of the columns.
        rows: as long as the head.
        numbers_from: the first column of numbers, which are set to the right and never broken.
    """

    def kind(i: int, text: str) -> str:
        if i >= numbers_from:
            return " class=number"
        return " class=long" if len(text) > _LONG else ""

    def cells(row: Sequence[str], tag: str) -> str:
        scope = " scope=col" if tag == "th" else ""
        return "".join(
            f"<{tag}{kind(i, text)}{scope}>{escape(text)}</{tag}>" for i, text in enumerate(row)
        )

    body = "\n".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(name)}">'
        f'<table aria-label="{escape(name)}">\n<thead><tr>{cells(head, "th")}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def long_table(
    name: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers_from: int, rest: str
) -> str:
    """A `table` of at most `ROWS_LISTED` rows; one that has more is closed until it is chosen.

    Args:
        name, head, numbers_from: see `table`.
        rows: all of them.
        rest: plain text for a table that is cut: which rows come first, and where all are.
    """
    listed = table(name, head, rows[:ROWS_LISTED], numbers_from=numbers_from)
    if len(rows) <= ROWS_LISTED:
        return listed
    return details(f"{name}: {ROWS_LISTED} of {len(rows):,}", f"{note(rest)}\n{listed}")
