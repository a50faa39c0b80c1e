"""`report.html` of a check: the closest images beside what they are closest to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unalike.runs.html import (
    Shown,
    document,
    figure,
    gallery,
    note,
    notes,
    paragraph,
    table,
    thumbnail,
)
from unalike.runs.numbers import number
from unalike.runs.shield.checked import Checked
from unalike.runs.shield.edited import AfterEdit
from unalike.runs.shield.sources import read_images

PAIRS_SHOWN = 48
ROWS_LISTED = 200


def check_page(
    record: Mapping[str, Any],
    checked: Sequence[Checked],
    edits: Mapping[str, AfterEdit] | None = None,
) -> str:
    """The page as HTML text.

    Args:
        record: what `check.json` holds.
        checked: the images, the closest first.
        edits: all of them after each edit, by its name; None where they were not edited.
    """
    return document(
        f"Distances to the protected set {record['set']['name']}",
        [
            *_lead(record),
            *_edited(edits or {}),
            _skipped(record),
            _pairs(checked),
            _listed(checked),
        ],
    )


def check_sentence(record: Mapping[str, Any]) -> str:
    """Number of images inside, with the number of all.

    Example:
        >>> set_ = {"radius": 9.45, "rounding": 0.0, "count": 20}
        >>> check_sentence({"set": set_, "images": 16, "inside": 10})
        '10 of 16 images, as they are on disk, are inside: nearer than 9.45 to one of the 20
        protected'
    """
    own, inside = record["set"], record["inside"]
    verb = "is" if inside == 1 else "are"
    nearer = "none is nearer" if inside == 0 else "nearer"
    return (
        f"{inside:,} of {record['images']:,} images, as they are on disk, {verb} inside: {nearer} "
        f"than {number(own['radius'] + own['rounding'])} to one of the {own['count']:,} protected"
    )


def _lead(record: Mapping[str, Any]) -> list[str]:
    own = record["set"]
    rounding = (
        f" The set is stored rounded, so the radius {number(own['radius'])} is made larger by "
        f"{number(own['rounding'])}."
        if own["rounding"]
        else ""
    )
    return [
        paragraph(f"{check_sentence(record)}."),
        note(
            f"Distances are exact, in the space {own['space']}.{rounding} The margin is how far an "
            "image is beyond the nearest ball; below 0 it is inside."
        ),
        note(f"Checksum of the set: {own['checksum']}"),
    ]


def _edited(edits: Mapping[str, AfterEdit]) -> list[str]:
    return [paragraph(f"{after.sentence(name)}.") for name, after in edits.items()]


def _skipped(record: Mapping[str, Any]) -> str:
    if not record["skipped"]:
        return ""
    listed = notes(f"{s['image']}: {s['reason']}" for s in record["skipped"])
    return f"<h2>Left out</h2>\n{note('These could not be read.')}\n{listed}"


def _pairs(checked: Sequence[Checked]) -> str:
    closest = checked[:PAIRS_SHOWN]
    names = dict.fromkeys(name for c in closest for name in (c.image, c.nearest))
    images, shown = read_images(list(names)), []
    for c in closest:
        both = [
            Shown.embedded(thumbnail(images[name]), name)
            for name in (c.image, c.nearest)
            if name in images
        ]
        lacking = "" if c.nearest in images else " (its file is not here)"
        shown.append(
            figure(
                both,
                f"{'inside, ' if c.inside else ''}distance {number(c.distance)}, margin "
                f"{number(c.margin)}: {c.image}, {c.nearest}{lacking}",
            )
        )
    about = note(
        "On the left the image that was checked, on the right its nearest protected image."
    )
    return f"<h2>Closest first</h2>\n{about}\n{gallery(shown, 'pairs')}"


def _listed(checked: Sequence[Checked]) -> str:
    rows = [
        [
            c.image,
            c.nearest,
            number(c.distance),
            number(c.margin),
            _yes(c),
            *map(_yes, c.edits.values()),
        ]
        for c in checked[:ROWS_LISTED]
    ]
    about = "All distances are in check.parquet."
    if len(checked) > ROWS_LISTED:
        about += f" The closest {ROWS_LISTED} of {len(checked)} are listed."
    head = ["image", "nearest protected", "distance", "margin", "inside"]
    head += [f"inside after {edit}" for edit in (checked[0].edits if checked else ())]
    listed = table("Distances to the protected set", head, rows, numbers_from=2)
    return f"<h2>Distances</h2>\n{note(about)}\n{listed}"


def _yes(image: Checked) -> str:
    return "yes" if image.inside else "no"
