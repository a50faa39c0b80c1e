"""The parts that pages are made of: one file that needs nothing else, its tables, and its
pictures.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

from PIL import Image


def document(title: str, body: str) -> str:
    """A whole page with the style of `page.css`.

    Args:
        title: text, shown in the browser's tab.
        body: HTML.
    """
    style = resources.files("unalike.runs").joinpath("page.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} · unalike</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def panel(heading: str, figures: Iterable[str]) -> str:
    """Figures under a heading of plain text, in a box of their own."""
    return f'<div class="panel">\n<h4>{escape(heading)}</h4>\n<ul class="grid">\n{"".join(figures)}</ul>\n</div>\n'


def figure(image: Image.Image, alt: str, caption: str, *, changed: bool = False) -> str:
    """A picture in a list, with words for those who cannot see it and a caption, framed where it is
    `changed`.
    """
    state = ' class="changed"' if changed else ""
    return (
        f'<li{state}><figure><img src="{data_uri(image)}" alt="{escape(alt)}" width="{image.width}" height="{image.height}">'
        f"<figcaption>{escape(caption)}</figcaption></figure></li>\n"
    )


def pair(images: Sequence[tuple[Image.Image, str]], caption: str) -> str:
    """Pictures side by side in one item of a list, each with its words, over one caption."""
    shown = "".join(
        f'<img src="{data_uri(i)}" alt="{escape(alt)}" width="{i.width}" height="{i.height}">'
        for i, alt in images
    )
    return f'<li><figure><div class="pair">{shown}</div><figcaption>{escape(caption)}</figcaption></figure></li>\n'


def data_uri(image: Image.Image) -> str:
    """The picture itself as a URI: small ones without loss.

    Example:
        >>> data_uri(Image.new("RGB", (1, 1)))[:22]
        'data:image/png;base64,'
    """
    small = max(image.size) <= 128
    buffer = io.BytesIO()
    image.save(buffer, "PNG") if small else image.save(buffer, "WEBP", quality=85)
    return f"data:image/{'png' if small else 'webp'};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers_from: int
) -> str:
    """A table of plain texts; columns from the number `numbers_from` on are set to the right."""

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=number' if i >= numbers_from else ''}{' scope=col' if tag == 'th' else ''}>{escape(text)}</{tag}>"
            for i, text in enumerate(row)
        )

    body = "\n".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table>\n<caption>{escape(caption)}</caption>\n<thead><tr>{cells(head, "th")}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )
