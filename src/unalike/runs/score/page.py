"""`report.html` of a scoring: figures with intervals, a table of the prompts, and the pictures
behind the figures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from PIL import Image

from unalike.runs.charts import dot_chart
from unalike.runs.html import document, figure, pair, panel, table
from unalike.runs.images import read_image
from unalike.runs.score.catalogue import GROUPS, METRICS
from unalike.runs.score.figures import Figure
from unalike.runs.score.images import ImageSet
from unalike.runs.score.pictures import IMAGES_OF_PROMPT, PROMPTS_SHOWN, Pair, chosen_for_grid

THUMBNAIL = 128
PROMPTS_LISTED = 200
PROMPTS_CHARTED = 40


def score_page(
    record: Mapping[str, Any],
    figures: Sequence[Figure],
    images: ImageSet,
    reference: ImageSet | None,
    prompts: Sequence[str] | None,
    alike: Sequence[Pair],
    nearest: Sequence[Pair],
) -> str:
    """The page as HTML text.

    Args:
        record: what `score.json` holds.
        figures: those in the record.
        images, reference: what was scored, and what it was compared with; the pictures are read
            again.
        prompts: of the images, in order; None where there are none.
        alike, nearest: the pairs to show.
    """
    title = f"Scores of {record['images']['name']}"
    body = [
        f"<h1>{escape(title)}</h1>",
        _lead(record),
        _summary(figures, record),
        _notes(record),
        _alike(record, images, prompts, alike),
        _nearest(record, images, reference, nearest),
        _prompts(figures),
        _grid(images, prompts),
        _settings(record),
    ]
    return document(title, "\n".join(part for part in body if part))


def number(value: float) -> str:
    """A figure to four digits.

    Example:
        >>> number(12.34567), number(0.000012345), number(1234567.0)
        ('12.35', '1.234e-05', '1.235e+06')
    """
    return f"{value:.4g}"


def with_interval(figure: Figure | None) -> str:
    """A figure and its interval as text; nothing where there is no figure."""
    if figure is None:
        return ""
    if figure.low is None or figure.high is None:
        return number(figure.value)
    return f"{number(figure.value)} ({number(figure.low)} to {number(figure.high)})"


def _lead(record: Mapping[str, Any]) -> str:
    features, reference, prompts = record["features"], record["reference"], record["prompts"]
    text = f"{record['images']['count']} images"
    if prompts:
        text += f" of {prompts['count']} prompt{'s' if prompts['count'] > 1 else ''}"
    if reference:
        text += f", against {reference['count']} reference images in {reference['name']}"
    return f'<p>{escape(text)}.</p>\n<p class="note">Compared by {escape(features["name"])}: {escape(features["basis"])}.</p>'


def _summary(figures: Sequence[Figure], record: Mapping[str, Any]) -> str:
    whole = {f.metric: f for f in figures if f.scope == "all"}
    means = {f.metric: f for f in figures if f.scope == "mean"}
    parts = ["<h2>Figures</h2>"]
    if record["settings"]["bootstrap"]:
        redrawn = " and ".join(
            dict.fromkeys(f.resampled for f in [*whole.values(), *means.values()] if f.resampled)
        )
        parts.append(
            f'<p class="note">In brackets: 95% bootstrap intervals of {record["settings"]["bootstrap"]} redraws of {escape(redrawn)}.</p>'
        )
    for group, heading in GROUPS.items():
        names = [
            n
            for n, metric in METRICS.items()
            if metric.group == group and (n in whole or n in means)
        ]
        if names:
            head = [
                "figure",
                "all images",
                *(["mean over prompts"] if means else []),
                "what it says",
            ]
            rows = [
                [
                    METRICS[n].title,
                    _unbroken(whole.get(n)),
                    *([_unbroken(means.get(n))] if means else []),
                    _meaning(n),
                ]
                for n in names
            ]
            parts.append(
                f"<h3>{escape(heading)}</h3>\n{table(_caption(group, record), head, rows, numbers_from=len(head))}"
            )
    return "\n".join(parts)


def _unbroken(figure: Figure | None) -> str:
    return with_interval(figure).replace(" ", "\u00a0")


def _meaning(name: str) -> str:
    metric = METRICS[name]
    return metric.meaning + (f" ({metric.better} is better)" if metric.better else "")


def _caption(group: str, record: Mapping[str, Any]) -> str:
    if group == "prompts":
        return f"Kernel on prompts: {record['prompts']['kernel']}"
    if group == "reference":
        radius = record["settings"]["radius"]
        inside = "" if radius is None else f"; radius {radius:g}"
        return f"Neighbourhoods of k = {record['settings']['k']} images{inside}. Distances: {record['features']['unit']}"
    return "Effective numbers count images that have nothing in common; they compare only between sets of as many images"


def _notes(record: Mapping[str, Any]) -> str:
    skipped = [*record["images"]["skipped"], *((record["reference"] or {}).get("skipped", []))]
    notes = list(record["notes"])
    if skipped:
        notes.append(
            f"{len(skipped)} images could not be read and are left out: "
            + ", ".join(f"{s['file']} ({s['reason']})" for s in skipped)
        )
    if not notes:
        return ""
    items = "\n".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<h2>To keep in mind</h2>\n<ul class="note">\n{items}\n</ul>'


def _thumbnail(images: ImageSet, index: int) -> Image.Image:
    image = read_image(images.folder / images.files[index])
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return image


def _alike(
    record: Mapping[str, Any],
    images: ImageSet,
    prompts: Sequence[str] | None,
    pairs: Sequence[Pair],
) -> str:
    shown = []
    for p in pairs:
        both = [images.files[p.first], images.files[p.second]]
        asked = (
            ""
            if prompts is None
            else " · " + " / ".join(dict.fromkeys(prompts[i] for i in (p.first, p.second)))
        )
        shown.append(
            pair(
                [
                    (_thumbnail(images, i), f)
                    for i, f in zip((p.first, p.second), both, strict=True)
                ],
                f"{p.value:.3f}{asked}",
            )
        )
    return (
        '<h2>Most alike</h2>\n<p class="note">The pairs of this set that are most alike, each image in one pair at most. The number is '
        f'their similarity by the same kernel as the scores: 1 for equal features.</p>\n<ul class="pairs">\n{"".join(shown)}</ul>'
    )


def _nearest(
    record: Mapping[str, Any], images: ImageSet, reference: ImageSet | None, pairs: Sequence[Pair]
) -> str:
    if reference is None:
        return ""
    shown = []
    for p in pairs:
        both = [
            (_thumbnail(images, p.first), images.files[p.first]),
            (_thumbnail(reference, p.second), reference.files[p.second]),
        ]
        shown.append(
            pair(both, f"{p.value:.3g} · {images.files[p.first]}, {reference.files[p.second]}")
        )
    return (
        '<h2>Nearest to the reference</h2>\n<p class="note">Left an image of the set, right the reference image that it is nearest to, the '
        f'closest first. The number is the {escape(record["features"]["unit"])}.</p>\n<ul class="pairs">\n{"".join(shown)}</ul>'
    )


def _prompts(figures: Sequence[Figure]) -> str:
    rows: dict[str, dict[str, Figure]] = {}
    for f in figures:
        if f.scope == "prompt":
            rows.setdefault(f.prompt or "", {})[f.metric] = f
    if not rows:
        return ""
    names = [n for n in METRICS if any(n in own for own in rows.values())]
    cells = [
        [
            prompt,
            str(own["vendi"].images),
            *(number(own[n].value) if n in own else "" for n in names),
        ]
        for prompt, own in list(rows.items())[:PROMPTS_LISTED]
    ]
    left = (
        ""
        if len(rows) <= PROMPTS_LISTED
        else f" The first {PROMPTS_LISTED} of {len(rows)} prompts are listed."
    )
    charted = sorted(rows.items(), key=lambda row: row[1]["vendi"].value)[:PROMPTS_CHARTED]
    which = (
        ""
        if len(rows) <= PROMPTS_CHARTED
        else f", the {PROMPTS_CHARTED} least varied prompts of {len(rows)}"
    )
    chart = dot_chart(
        [
            (prompt, own["vendi"].value, own["vendi"].low, own["vendi"].high)
            for prompt, own in charted
        ],
        title="Vendi score of each prompt with its interval; the table below has the numbers",
        start=1,
    )
    caption = f"Intervals over the images of each prompt are in scores.parquet.{left}"
    head = ["prompt", "images", *(METRICS[n].title for n in names)]
    return (
        f"<h2>Prompts</h2>\n<h4>Vendi score, least varied first{which}; lines: 95% intervals over the images of the prompt</h4>\n{chart}\n"
        f"{table(caption, head, cells, numbers_from=1)}"
    )


def _grid(images: ImageSet, prompts: Sequence[str] | None) -> str:
    groups = chosen_for_grid(images, prompts)
    panels, shown = [], 0
    for heading, chosen in groups.items():
        pictures = [_thumbnail(images, i) for i in chosen]
        items = [
            figure(p, f"{heading or 'image'}: {images.files[i]}", images.files[i])
            for p, i in zip(pictures, chosen, strict=True)
        ]
        panels.append(panel(heading, items))
        shown += len(items)
    if shown == len(images):
        note = ""
    elif prompts is None:
        note = f'<p class="note">{shown} of {len(images)} images, at even steps in the order of their names.</p>\n'
    else:
        note = f'<p class="note">The first {IMAGES_OF_PROMPT} images of the first {PROMPTS_SHOWN} prompts.</p>\n'
    return f'<h2>Images</h2>\n{note}<div class="panels">\n{"".join(panels)}</div>'


def _settings(record: Mapping[str, Any]) -> str:
    return (
        f"<h2>Settings</h2>\n<p>To score these images again:</p>\n<pre>{escape(record['command'])}</pre>\n<details>\n"
        f"<summary>Everything in score.json</summary>\n<pre>{escape(json.dumps(record, indent=2, ensure_ascii=False))}</pre>\n</details>"
    )
