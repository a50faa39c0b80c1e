"""HTML building blocks of the report pages. A page is one file that loads nothing else."""

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

from PIL import Image

_FLAG = re.compile(r"--[a-z][a-z-]*")
_LONG = 40  # characters from which a cell of a table is broken into lines of a width of their own


@dataclass(frozen=True)
class Shown:
    """An image on a page.

    Attributes:
        image: as large as it is embedded.
        alt: describes it to those who cannot see it.
        label: text above it; empty for none.
    """

    image: Image.Image
    alt: str
    label: str = ""


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page: the title as its heading, then the parts that are not empty.

    Args:
        title: text, also shown in the browser's tab.
        parts: HTML.
    """
    style = resources.files("unalike.runs").joinpath("page.css").read_text("utf-8")
    body = "\n".join([f"<h1>{escape(title)}</h1>", *(part for part in parts if part)])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} · unalike</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


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
        file: where the record is.
    """
    # a browser breaks lines after a hyphen, between the two of a flag too
    command = _FLAG.sub(r'<span class="flag">\g<0></span>', escape(record["command"]))
    everything = f"<pre>{escape(json.dumps(record, indent=2, ensure_ascii=False))}</pre>"
    return (
        f"<h2>Settings</h2>\n{paragraph(f'To {what} again:')}\n"
        f"<pre>{command}</pre>\n{details(f'Everything in {file}', everything)}"
    )


def panel(body: str, heading: str = "", *, level: int = 3) -> str:
    """HTML in a box of its own, under a heading of plain text where there is one."""
    head = f"<h{level}>{escape(heading)}</h{level}>\n" if heading else ""
    return f'<div class="panel">\n{head}{body}\n</div>\n'


def panels(boxes: Iterable[str]) -> str:
    """Boxes side by side where there is room."""
    return f'<div class="panels">\n{"".join(boxes)}</div>'


def gallery(figures: Iterable[str], kind: str = "grid") -> str:
    """A list of `figure`s: "grid", or the wider "pairs"."""
    return f'<ul class="{kind}">\n{"".join(figures)}</ul>'


def figure(images: Sequence[Shown], caption: str, *, changed: bool = False) -> str:
    """One item of a `gallery`: images that belong together, over one caption.

    Whatever belongs together is in one item, so that it stays together at every width.

    Args:
        images: at least one.
        caption: plain text.
        changed: whether the last image gets a frame.
    """
    state = ' class="changed"' if changed else ""
    shown = "".join(
        f'<div class="shown">{_label(i.label)}<img src="{data_uri(i.image)}" alt="{escape(i.alt)}" '
        f'width="{i.image.width}" height="{i.image.height}"></div>'
        for i in images
    )
    return (
        f'<li{state}><figure><div class="together">{shown}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure></li>\n"
    )


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
