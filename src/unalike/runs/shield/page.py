"""`report.html` of a check: the closest images beside what they are closest to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from PIL import Image

from unalike.runs.html import document, pair, table
from unalike.runs.shield.sources import find_pictures

if TYPE_CHECKING:
    from unalike.runs.shield.check import Checked

PAIRS_SHOWN = 48
ROWS_LISTED = 200
THUMBNAIL = 128


def check_page(record: Mapping[str, Any], checked: Sequence[Checked]) -> str:
    """The page as HTML text.

    Args:
        record: what `check.json` holds.
        checked: the images, the closest first.
    """
    title = f"How near images are to {record['set']['name']}"
    body = [
        f"<h1>{escape(title)}</h1>",
        _lead(record),
        _skipped(record),
        _pairs(checked),
        _listed(checked),
    ]
    return document(title, "\n".join(part for part in body if part))


def _lead(record: Mapping[str, Any]) -> str:
    own, images, inside = record["set"], record["images"], record["inside"]
    text = (
        f"{inside} of {images} image{'s' if images != 1 else ''} lie{'s' if inside == 1 else ''} inside a ball of radius "
        f"{own['radius']:.6g} around one of {own['count']:,} protected images"
    )
    rounding = (
        f", made larger by {own['rounding']:.3g} since they are stored rounded"
        if own["rounding"]
        else ""
    )
    note = (
        f"Distances are exact, in the space {own['space']}{rounding}, of the images as they are on disk; the set is {own['checksum']}. "
        "The margin is how far beyond its ball an image lies at least; below 0 it is inside."
    )
    return f'<p>{escape(text)}.</p>\n<p class="note">{escape(note)}</p>'


def _skipped(record: Mapping[str, Any]) -> str:
    if not record["skipped"]:
        return ""
    items = "\n".join(
        f"<li>{escape(s['image'])}: {escape(s['reason'])}</li>" for s in record["skipped"]
    )
    return f'<h2>Left out</h2>\n<p class="note">These could not be read.</p>\n<ul class="note">\n{items}\n</ul>'


def _pairs(checked: Sequence[Checked]) -> str:
    shown = checked[:PAIRS_SHOWN]
    pictures = find_pictures(
        list(dict.fromkeys(name for c in shown for name in (c.image, c.nearest)))
    )
    items = []
    for c in shown:
        both = [
            (_thumbnail(pictures[name]), name) for name in (c.image, c.nearest) if name in pictures
        ]
        lacking = "" if c.nearest in pictures else " (its file is not here)"
        state = "inside, " if c.inside else ""
        items.append(
            pair(
                both,
                f"{state}distance {c.distance:.4g}, margin {c.margin:.4g} · {c.image}, {c.nearest}{lacking}",
            )
        )
    return (
        '<h2>Closest first</h2>\n<p class="note">Left the image that was checked, right the protected one that it is nearest to.</p>\n'
        f'<ul class="pairs">\n{"".join(items)}</ul>'
    )


def _listed(checked: Sequence[Checked]) -> str:
    rows = [
        [c.image, c.nearest, f"{c.distance:.6g}", f"{c.margin:.6g}", "yes" if c.inside else ""]
        for c in checked[:ROWS_LISTED]
    ]
    left = (
        ""
        if len(checked) <= ROWS_LISTED
        else f" The closest {ROWS_LISTED} of {len(checked)} are listed."
    )
    head = ["image", "nearest protected", "distance", "margin", "inside"]
    return f"<h2>Distances</h2>\n{table(f'All of them are in check.parquet.{left}', head, rows, numbers_from=2)}"


def _thumbnail(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return image
