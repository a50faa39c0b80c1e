"""The images of a run as a section of a page that stays usable with ten thousand of them.

The first images are in the HTML, the data of all beside them as JSON. `gallery.js` turns pages,
filters by prompt and sorts; each image is a file that the browser reads when it comes into view.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from unalike.runs.html import (
    Shown,
    figure,
    file_url,
    gallery,
    json_script,
    note,
    panel,
    resource,
)
from unalike.runs.numbers import counted, number, percent
from unalike.runs.samples import Sample, by_prompt
from unalike.runs.scoring import PLAINLY_CHANGED, Diversity

IMAGES_OF_PAGE = 64
SIZE = (128, 128)
_SHARD = ".tar#"  # what lies between a shard and the name of an image in it
_ORDERS = {
    "order up": "As drawn, by prompt",
    "vendi up": "Least varied prompts first",
    "vendi down": "Most varied prompts first",
    "nearest up": "Nearest neighbour, closest first",
    "nearest down": "Nearest neighbour, farthest first",
    "change down": "Most changed by guidance first",
    "change up": "Least changed by guidance first",
    "seed up": "Seed",
}


def images_section(
    samples: Sequence[Sample],
    scores: Mapping[str, Diversity],
    unguided_scores: Mapping[str, Diversity],
    size: tuple[int, int],
) -> str:
    """The section as HTML; empty without images.

    Images in shards are listed, since a browser cannot show them.

    Args:
        samples: images that were not refused.
        scores, unguided_scores: of each prompt's images.
        size: width and height for which room is kept until an image is loaded.
    """
    if not samples:
        return ""
    groups = by_prompt(samples)
    words = {
        prompt: _group_words(len(group), scores.get(prompt), unguided_scores.get(prompt))
        for prompt, group in groups.items()
    }
    data = _data(groups, words, scores)
    kind = "grid" if "guided" in data else "rows"
    shown = [s for group in groups.values() for s in group][:IMAGES_OF_PAGE]
    static = "\n".join(
        _group(prompt, words[prompt], [_figure(s, size) for s in group], kind)
        for prompt, group in by_prompt(shown).items()
    )
    parts = ["<h2>Images</h2>", *map(note, _notes(samples))]
    region = f'<div id="images" role="region" aria-label="Images" tabindex="-1">\n{static}\n</div>'
    if len(samples) == 1:
        return "\n".join([*parts, region])
    pages = math.ceil(len(samples) / IMAGES_OF_PAGE)
    return "\n".join(
        [
            *parts,
            _without_script(len(samples)),
            _controls(data),
            _turning("Pages", pages),
            region,
            _turning("Pages, below the images", pages),
            f'<template id="group">{_group("", "", [], kind)}</template>',
            f'<template id="image">{_blank(data, size)}</template>',
            json_script("images-data", {"size": IMAGES_OF_PAGE, **data}),
            f"<script>\n{resource('gallery.js')}</script>",
        ]
    )


def _notes(samples: Sequence[Sample]) -> list[str]:
    notes = []
    if not all(map(_linked, samples)):
        notes.append("The images are in shards, which a page cannot show.")
    if any(s.unguided for s in samples) and all(s.change is None for s in samples):
        notes.append(
            "The images without guidance are of the seeds in their order, and the guided ones "
            "were chosen out of more seeds."
        )
    elif any(s.unguided for s in samples):
        framed = f"; framed above {percent(PLAINLY_CHANGED)}" if any(map(_linked, samples)) else ""
        notes.append(
            "Both images of a seed start from the same noise. Changed: root mean square difference "
            f"of their pixels, as a share of the full range{framed}."
        )
    if any(s.report.nearest for s in samples):
        notes.append(
            "Nearest: Euclidean distance between final latents, to the closest image of the batch "
            "and of the memory."
        )
    return notes


def _group_words(images: int, score: Diversity | None, unguided: Diversity | None) -> str:
    text = counted(images, "image")
    if score is None or score.images < 2:
        return text
    without = f"; {unguided.vendi:.2f} without guidance" if unguided else ""
    return f"{text}, Vendi score {score.vendi:.2f}{without}"


def _data(
    groups: Mapping[str, Sequence[Sample]],
    words: Mapping[str, str],
    scores: Mapping[str, Diversity],
) -> dict[str, list[Any]]:
    """A list for each property of the prompts, and of the images in the order of the prompts.

    A property that nothing has is left out.
    """
    samples = [s for group in groups.values() for s in group]
    varied = {prompt: score.vendi for prompt, score in scores.items() if score.images > 1}
    columns = {
        "prompts": list(groups),
        "words": [words[prompt] for prompt in groups],
        "vendi": [_rounded(varied.get(prompt)) for prompt in groups],
        "prompt": [i for i, group in enumerate(groups.values()) for _ in group],
        "seed": [s.planned.seed for s in samples],
        "caption": [_caption(s) for s in samples],
        "unguided": [_url(s.unguided) for s in samples],
        "guided": [_url(s.image) for s in samples],
        "change": [_rounded(s.change) for s in samples],
        "changed": [int(s.plainly_changed) or None for s in samples],
        "nearest": [_rounded(s.report.nearest and s.report.nearest.distance) for s in samples],
    }
    return {k: own for k, own in columns.items() if any(value is not None for value in own)}


def _rounded(value: float | None) -> float | None:
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None


def _url(image: Any) -> str | None:
    """The URL of an image; None where there is none, or no file of its own."""
    return None if image is None or _SHARD in image.path else file_url(image.path)


def _linked(sample: Sample) -> bool:
    return _url(sample.image) is not None


def _caption(sample: Sample) -> str:
    parts = [f"seed {sample.planned.seed}"]
    if sample.change is not None:
        parts.append("identical" if sample.change == 0 else f"changed by {percent(sample.change)}")
    if sample.report.nearest:
        parts.append(f"nearest at {number(sample.report.nearest.distance, 3)}")
    if sample.image and not _linked(sample):
        parts.insert(0, sample.image.path)
    return ", ".join(parts)


def _group(prompt: str, words: str, figures: Sequence[str], kind: str) -> str:
    body = panel(gallery(figures, kind))
    return f"<section>\n<h3>{escape(prompt)}</h3>\n{note(words)}\n{body}</section>"


def _figure(sample: Sample, size: tuple[int, int]) -> str:
    """An image under the unguided one of its seed, where there is one."""
    prompt, seed = sample.planned.prompt, f"seed {sample.planned.seed}"
    plain, own, images = _url(sample.unguided), _url(sample.image), []
    if plain:
        alt = f"{prompt}, {f'{seed}, ' if sample.change is not None else ''}without guidance"
        images.append(Shown(plain, size, alt, "unguided", linked=True))
    if own:
        label = "guided" if plain else ""
        images.append(Shown(own, size, f"{prompt}, {seed}, guided", label, linked=True))
    return figure(images, _caption(sample), changed=sample.plainly_changed)


def _blank(data: Mapping[str, Any], size: tuple[int, int]) -> str:
    """The figure that the script fills: with a place for each image that any sample has."""
    compared = "unguided" in data
    places = [Shown("", size, "", "unguided", linked=True)] if compared else []
    if "guided" in data:
        places.append(Shown("", size, "", "guided" if compared else "", linked=True))
    return figure(places, "")


def _without_script(images: int) -> str:
    if images <= IMAGES_OF_PAGE:
        return ""
    told = note(
        f"The first {IMAGES_OF_PAGE} of {images:,} images are shown, and the others are in the "
        "folder of this page: turning pages, filtering and sorting need JavaScript."
    )
    return f"<noscript>{told}</noscript>"


def _controls(data: Mapping[str, Sequence[Any]]) -> str:
    """What filters and sorts, and says what is shown; hidden until the script is there."""
    several, words = len(data["prompts"]) > 1, ""
    if several:
        field = '<input type="search" name="filter" autocomplete="off">'
        words = f"<label>Filter by prompt {field}</label>\n"
    options = "".join(
        f'<option value="{value}">{escape(text)}</option>\n'
        for value, text in _ORDERS.items()
        if (key := value.split()[0]) == "order" or (key in data and (several or key != "vendi"))
    )
    return (
        f'<form class="controls" role="search" aria-label="Images" hidden>\n{words}'
        f'<label>Order <select name="order" autocomplete="off">\n{options}</select></label>\n'
        '</form>\n<p class="note" id="images-status" role="status" aria-live="polite"></p>'
    )


def _turning(name: str, pages: int) -> str:
    """Buttons that turn pages, hidden until the script is there; nothing for a single page."""
    if pages < 2:
        return ""
    return (
        f'<nav class="controls" aria-label="{escape(name)}" hidden>\n'
        '<button type="button" value="-1">Previous</button>\n'
        f'<label>Page <input type="number" min="1" max="{pages}" value="1" autocomplete="off">'
        f"</label> <span>of {pages:,}</span>\n"
        '<button type="button" value="1">Next</button>\n</nav>'
    )
