"""`report.html` of a scoring: scores with intervals, a table of the prompts, and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unalike.images import read_image
from unalike.runs.charts import dot_chart
from unalike.runs.html import (
    Shown,
    document,
    figure,
    gallery,
    note,
    notes,
    panel,
    panels,
    paragraph,
    settings_section,
    table,
    thumbnail,
)
from unalike.runs.numbers import counted, number
from unalike.runs.score.catalogue import GROUPS, METRICS
from unalike.runs.score.images import ImageSet
from unalike.runs.score.scores import Score
from unalike.runs.score.selection import IMAGES_OF_PROMPT, PROMPTS_SHOWN, Pair, chosen_for_grid

PROMPTS_LISTED = 200
PROMPTS_CHARTED = 40


def score_page(
    record: Mapping[str, Any],
    scores: Sequence[Score],
    images: ImageSet,
    reference: ImageSet | None,
    prompts: Sequence[str] | None,
    alike: Sequence[Pair],
    nearest: Sequence[Pair],
) -> str:
    """The page as HTML text.

    Args:
        record: what `score.json` holds.
        scores: those in the record.
        images, reference: what was scored, and what it was compared with; the images are read
            again.
        prompts: of the images, in order; None where there are none.
        alike, nearest: the pairs to show.
    """
    return document(
        f"Scores of {record['images']['name']}",
        [
            *_lead(record),
            _summary(scores, record),
            _notes(record),
            _alike(images, prompts, alike),
            _nearest(record, images, reference, nearest),
            _prompts(scores),
            _grid(images, prompts),
            settings_section("score these images", record, "score.json"),
        ],
    )


def score_in_words(score: Score | None, record: Mapping[str, Any]) -> str:
    """A score and its interval, and of how many images or prompts it is where it is not of all;
    nothing where there is no score.
    """
    if score is None:
        return ""
    text = number(score.value)
    if score.low is not None and score.high is not None:
        text += f" ({number(score.low)} to {number(score.high)})"
    if score.scope == "all" and score.images != record["images"]["count"]:
        text += f", of {counted(score.images, 'image')}"
    if score.prompts is not None and score.prompts != record["prompts"]["count"]:
        text += f", of {counted(score.prompts, 'prompt')}"
    return text


def scored_sentence(record: Mapping[str, Any]) -> str:
    """Describe what was scored: the counts of images and prompts, the reference, the features.

    Example:
        >>> record = {"images": {"count": 16}, "prompts": {"count": 2}, "reference": None}
        >>> scored_sentence(record | {"features": {"name": "pixels"}})
        '16 images of 2 prompts, compared by pixels'
    """
    reference, prompts = record["reference"], record["prompts"]
    text = counted(record["images"]["count"], "image")
    if prompts:
        text += f" of {counted(prompts['count'], 'prompt')}"
    if reference:
        text += f", against {counted(reference['count'], 'reference image')} of the folder "
        text += repr(reference["name"])
    return f"{text}, compared by {record['features']['name']}"


def _lead(record: Mapping[str, Any]) -> list[str]:
    features = record["features"]
    return [
        paragraph(f"{scored_sentence(record)}."),
        note(f"{features['name']}: {features['basis']}."),
    ]


def _summary(scores: Sequence[Score], record: Mapping[str, Any]) -> str:
    whole = {f.metric: f for f in scores if f.scope == "all"}
    means = {f.metric: f for f in scores if f.scope == "mean"}
    parts = ["<h2>Scores</h2>"]
    if record["settings"]["bootstrap"]:
        redrawn = " and ".join(
            dict.fromkeys(f.resampled for f in [*whole.values(), *means.values()] if f.resampled)
        )
        parts.append(
            note(
                f"In brackets: 95% bootstrap intervals of {record['settings']['bootstrap']} "
                "redraws "
                f"of {redrawn}."
            )
        )
    head = ["score", "all images", *(["mean over prompts"] if means else []), "what it says"]
    for group, heading in GROUPS.items():
        rows = [
            [
                metric.title,
                _unbroken(whole.get(n), record),
                *([_unbroken(means.get(n), record)] if means else []),
                _meaning(n),
            ]
            for n, metric in METRICS.items()
            if metric.group == group and (n in whole or n in means)
        ]
        if rows:
            listed = table(heading, head, rows, numbers_from=len(head))
            parts.append(f"<h3>{heading}</h3>\n{note(_basis(group, record))}\n{listed}")
    return "\n".join(parts)


def _unbroken(score: Score | None, record: Mapping[str, Any]) -> str:
    return score_in_words(score, record).replace(" ", "\N{NO-BREAK SPACE}")


def _meaning(name: str) -> str:
    metric = METRICS[name]
    return metric.meaning + (f" ({metric.better} is better)" if metric.better else "")


def _basis(group: str, record: Mapping[str, Any]) -> str:
    if group == "prompts":
        return f"Kernel on prompts: {record['prompts']['kernel']}."
    if group == "reference":
        radius = record["settings"]["radius"]
        inside = "" if radius is None else f"; radius {number(radius)}"
        return (
            f"Neighbourhoods of k = {counted(record['settings']['k'], 'image')}{inside}. "
            "Distances: "
            f"{record['features']['unit']}."
        )
    return (
        "Effective numbers count images that have nothing in common; they compare only between "
        "sets of as many images."
    )


def _notes(record: Mapping[str, Any]) -> str:
    skipped = [*record["images"]["skipped"], *((record["reference"] or {}).get("skipped", []))]
    texts = list(record["notes"])
    if skipped:
        listed = ", ".join(f"{s['file']} ({s['reason']})" for s in skipped)
        texts.append(f"{counted(len(skipped), 'image')} could not be read and left out: {listed}")
    return f"<h2>To keep in mind</h2>\n{notes(texts)}" if texts else ""


def _shown(images: ImageSet, index: int, before: str = "") -> Shown:
    file = images.files[index]
    return Shown.embedded(thumbnail(read_image(images.folder / file)), before + file)


def _alike(images: ImageSet, prompts: Sequence[str] | None, pairs: Sequence[Pair]) -> str:
    shown = []
    for p in pairs:
        both = (p.first, p.second)
        asked = (
            "" if prompts is None else ", " + " / ".join(dict.fromkeys(prompts[i] for i in both))
        )
        caption = f"similarity {p.value:.3f}{asked}"
        shown.append(figure([_shown(images, i) for i in both], caption))
    about = note(
        "The pairs of this set that are most alike, each image in one pair at most. Similarity is "
        "by the same kernel as the scores: 1 for equal features."
    )
    return f"<h2>Most alike</h2>\n{about}\n{gallery(shown, 'pairs')}"


def _nearest(
    record: Mapping[str, Any], images: ImageSet, reference: ImageSet | None, pairs: Sequence[Pair]
) -> str:
    if reference is None:
        return ""
    shown = [
        figure(
            [_shown(images, p.first), _shown(reference, p.second)],
            f"distance {number(p.value, 3)}: {images.files[p.first]}, {reference.files[p.second]}",
        )
        for p in pairs
    ]
    about = note(
        "On the left an image of the set, on the right the reference image nearest to it, the "
        f"closest first. Distance: {record['features']['unit']}."
    )
    return f"<h2>Nearest to the reference</h2>\n{about}\n{gallery(shown, 'pairs')}"


def _prompts(scores: Sequence[Score]) -> str:
    rows: dict[str, dict[str, Score]] = {}
    for f in scores:
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
    about = note(f"Intervals over the images of each prompt are in scores.parquet.{left}")
    head = ["prompt", "images", *(METRICS[n].title for n in names)]
    return (
        f"<h2>Prompts</h2>\n<h3>Vendi score, least varied first{which}</h3>\n"
        f"{note('Lines: 95% intervals over the images of the prompt.')}\n{chart}\n"
        f"<h3>All scores</h3>\n{about}\n"
        f"{table('Scores of each prompt', head, cells, numbers_from=1)}"
    )


def _grid(images: ImageSet, prompts: Sequence[str] | None) -> str:
    boxes, shown = [], 0
    for heading, chosen in chosen_for_grid(images, prompts).items():
        items = [
            figure([_shown(images, i, f"{heading or 'image'}: ")], images.files[i]) for i in chosen
        ]
        boxes.append(panel(gallery(items), heading))
        shown += len(items)
    if shown == len(images):
        about = ""
    elif prompts is None:
        about = note(f"{shown} of {len(images)} images, at even steps in the order of their names.")
    else:
        about = note(
            f"{shown} of {len(images)} images: the first {IMAGES_OF_PROMPT} of each of the first "
            f"{PROMPTS_SHOWN} prompts."
        )
    return f"<h2>Images</h2>\n{about}\n{panels(boxes)}"
