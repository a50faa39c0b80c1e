"""`report.html`: the images of a run, their scores, and what the guidance did.

The page lies in the output folder, beside the images that it shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unalike.runs.certificates import certificates_sections
from unalike.runs.corrections import corrections_section
from unalike.runs.gallery import SIZE, images_section
from unalike.runs.html import (
    ROWS_LISTED,
    document,
    long_table,
    note,
    paragraph,
    settings_section,
)
from unalike.runs.numbers import counted
from unalike.runs.samples import Sample, by_prompt, returned
from unalike.runs.scoring import BASIS, Diversity
from unalike.runs.summary import diversity_sentence, protection_sentences

_PROMPTS_NAMED, _LONGEST = 3, 40


def report_page(
    record: Mapping[str, Any],
    samples: Sequence[Sample],
    scores: Mapping[str, Diversity],
    unguided_scores: Mapping[str, Diversity],
    *,
    size: tuple[int, int] = SIZE,
) -> str:
    """The page as HTML text, about 150 bytes an image.

    Images are not read: the page refers to them by their paths.

    Args:
        record: what `run.json` holds.
        samples: finished images.
        scores: diversity of each prompt's images.
        unguided_scores: that of the unguided images of the same seeds; empty where there are none.
        size: width and height of the images, in pixels: keeps room for them until they are loaded.
    """
    images = returned(samples)
    named = [_short(prompt) for prompt in record["prompts"][:_PROMPTS_NAMED]]
    title = ", ".join(named) + (" …" if len(record["prompts"]) > _PROMPTS_NAMED else "")
    return document(
        title,
        [
            *_lead(record, samples),
            images_section(images, scores, unguided_scores, size),
            _scores(record, scores, unguided_scores),
            corrections_section(record, images),
            certificates_sections(record, samples),
            settings_section("draw these images", record, "run.json"),
        ],
    )


def _short(prompt: str) -> str:
    return prompt if len(prompt) <= _LONGEST else prompt[: _LONGEST - 1] + "…"


def _lead(record: Mapping[str, Any], samples: Sequence[Sample]) -> list[str]:
    images, planned = returned(samples), len(record["prompts"])
    prompts, methods = len(by_prompt(images)), ", ".join(m["name"] for m in record["methods"])
    of = counted(planned, "prompt") if prompts == planned else f"{prompts:,} of {planned:,} prompts"
    text = (
        f"{counted(len(images), 'image')} of {of}, drawn with {record['model']['name']} in "
        f"{counted(record['steps'], 'step')}, guided by {methods or 'no method'}."
    )
    if not record["finished"]:
        planned = record["images"]["planned"]
        text += f" The run was stopped before all {planned:,} images were drawn."
    refused = len(samples) - len(images)
    if refused:
        text += f" {refused:,} more {'was' if refused == 1 else 'were'} drawn and refused, because "
        text += "of the protected set."
    return [paragraph(text), *(paragraph(f"{s}.") for s in protection_sentences(record))]


def _scores(
    record: Mapping[str, Any],
    scores: Mapping[str, Diversity],
    unguided_scores: Mapping[str, Diversity],
) -> str:
    if not scores:
        return ""
    compared = bool(unguided_scores)
    head = ["prompt", "images", *(["Vendi, unguided"] if compared else []), "Vendi"]
    head += [*(["RKE, unguided"] if compared else []), "RKE"]
    sentence = diversity_sentence(record)
    lead = paragraph(f"{sentence}.") if sentence else ""
    about = note(
        "Both scores are effective numbers of different images: 1 when all are alike, the number "
        f"of images when they have nothing in common. {BASIS}."
    )
    scored = long_table(
        "Diversity of the images of each prompt",
        head,
        [_score_row(p, scores[p], unguided_scores.get(p), compared) for p in _listed(scores)],
        numbers_from=1,
        rest="The least varied prompts come first. The scores of all prompts are in "
        "samples.parquet: prompt_vendi and prompt_rke.",
    )
    return f"<h2>Diversity</h2>\n{lead}\n{about}\n{scored}"


def _listed(scores: Mapping[str, Diversity]) -> list[str]:
    """The prompts in order; the least varied first where not all are listed."""
    if len(scores) <= ROWS_LISTED:
        return list(scores)
    return sorted(scores, key=lambda p: (scores[p].images < 2, scores[p].vendi))


def _score_row(
    prompt: str, score: Diversity, unguided: Diversity | None, compared: bool
) -> list[str]:
    row = [prompt, str(score.images)]
    for name in ("vendi", "rke"):
        row += ([_diversity(unguided, name)] if compared else []) + [_diversity(score, name)]
    return row


def _diversity(score: Diversity | None, name: str) -> str:
    """A score of at least two images: of one there is no diversity to speak of."""
    return f"{getattr(score, name):.2f}" if score and score.images > 1 else "–"
