"""`report.html`: one file that needs nothing else, with the images, the scores and what the
guidance did.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from unalike.attach.run.report import Certificate
from unalike.runs.charts import band_chart, percent
from unalike.runs.html import document, figure, panel, table
from unalike.runs.samples import Sample, by_prompt, returned
from unalike.runs.scoring import BASIS, PLAINLY_CHANGED, Diversity
from unalike.runs.shield.inspection import radius_in_words

IMAGES_SHOWN = 512
_OF_IMAGE, _OF_STEP = "of the predicted image", "of the denoiser's own step"


def report_page(
    record: Mapping[str, Any],
    samples: Sequence[Sample],
    scores: Mapping[str, Diversity],
    twin_scores: Mapping[str, Diversity],
) -> str:
    """The page as HTML text.

    Args:
        record: what `run.json` holds.
        samples: finished images; the first `IMAGES_SHOWN` are shown, and the page says so where
            there are more.
        scores: diversity of each prompt's images.
        twin_scores: that of their unguided twins; empty where there are none.
    """
    title = ", ".join(record["prompts"][:3]) + (" …" if len(record["prompts"]) > 3 else "")
    body = "\n".join(
        [
            f"<h1>{escape(title)}</h1>",
            _lead(record, len(returned(samples)), sum(s.report.refused for s in samples)),
            _images(returned(samples)),
            _scores(scores, twin_scores),
            _guidance(returned(samples)),
            _certificates(record, samples),
            _settings(record),
        ]
    )
    return document(title, body)


def _lead(record: Mapping[str, Any], finished: int, refused: int) -> str:
    methods = ", ".join(m["name"] for m in record["methods"])
    text = (
        f"{finished} images of {len(record['prompts'])} prompt{'s' if len(record['prompts']) > 1 else ''}, drawn with "
        f"{record['model']['name']} in {record['steps']} steps, guided by {methods}."
    )
    if not record["finished"]:
        text += f" The run was stopped before all {record['images']['planned']} images were drawn."
    if refused:
        text += f" {refused} more {'was' if refused == 1 else 'were'} drawn and refused, because of the protected set."
    return f"<p>{escape(text)}</p>"


def _images(samples: Sequence[Sample]) -> str:
    parts = ["<h2>Images</h2>"]
    if any(s.twin for s in samples):
        parts.append(
            '<p class="note">Both sides start from the same noise. Framed images look different from their unguided twin: pixels differ by '
            f"more than {percent(PLAINLY_CHANGED)} of the full range (root mean square).</p>"
        )
    if len(samples) > IMAGES_SHOWN:
        parts.append(
            f'<p class="note">The first {IMAGES_SHOWN} of {len(samples)} images are shown; the others are in the folder.</p>'
        )
    for prompt, group in by_prompt(samples[:IMAGES_SHOWN]).items():
        twins = [
            figure(
                s.twin.thumbnail,
                f"{prompt}, seed {s.planned.seed}, without guidance",
                f"seed {s.planned.seed}",
            )
            for s in group
            if s.twin
        ]
        guided = [
            figure(
                s.picture.thumbnail,
                f"{prompt}, seed {s.planned.seed}, guided",
                _caption(s),
                changed=s.plainly_changed,
            )
            for s in group
            if s.picture
        ]
        panels = ([panel("without guidance", twins)] if twins else []) + [panel("guided", guided)]
        parts.append(
            f'<section>\n<h3>{escape(prompt)}</h3>\n<div class="panels">\n{"".join(panels)}</div>\n</section>'
        )
    return "\n".join(parts)


def _caption(sample: Sample) -> str:
    if sample.change is None:
        return f"seed {sample.planned.seed}"
    if sample.change == 0:
        return f"seed {sample.planned.seed}, identical"
    return f"seed {sample.planned.seed}, changed by {percent(sample.change)}"


def _scores(scores: Mapping[str, Diversity], twin_scores: Mapping[str, Diversity]) -> str:
    head = [
        "prompt",
        "images",
        *(["Vendi, unguided"] if twin_scores else []),
        "Vendi",
        *(["RKE, unguided"] if twin_scores else []),
        "RKE",
    ]
    rows = []
    for prompt, score in scores.items():
        twin = twin_scores.get(prompt)
        row = [prompt, str(score.images)]
        row += [f"{twin.vendi:.2f}"] if twin else []
        row += [f"{score.vendi:.2f}"]
        row += [f"{twin.rke:.2f}"] if twin else []
        row += [f"{score.rke:.2f}"]
        rows.append(row)
    caption = f"Effective number of different images: 1 when all are alike, the number of images when they have nothing in common. {BASIS}."
    return f"<h2>Diversity</h2>\n{table(caption, head, rows, numbers_from=1)}"


def _guidance(samples: Sequence[Sample]) -> str:
    parts = ["<h2>What the guidance did</h2>"]
    for method in dict.fromkeys(m for s in samples for m in s.report.corrections):
        active = [s.report.active[method] for s in samples]
        of_image = [s.report.corrections_of_x0[method] for s in samples]
        of_step = [s.report.corrections[method] for s in samples]
        acted = f"It acted in {percent(sum(active) / len(active))} of all steps"
        if not any(map(any, of_image)):
            what = (
                "by what it had the model told of the prompts; it corrects no predicted image"
                if any(active)
                else "and corrected nothing"
            )
            parts.append(f'<h3>{escape(method)}</h3>\n<p class="note">{acted}, {what}.</p>')
            continue
        parts.append(
            f"<h3>{escape(method)}</h3>\n"
            f'<p class="note">{acted}. Lines: the size of its correction, mean over {len(samples)} images; bands: from the smallest to '
            f"the largest.</p>\n"
            f'<div class="panels">\n{_correction_chart(method, of_image, _OF_IMAGE, log=False)}'
            f"{_correction_chart(method, of_step, _OF_STEP, log=True)}</div>\n"
            f"<details>\n<summary>The same as a table</summary>\n{_correctiontable(of_image, of_step)}\n</details>"
        )
    return "\n".join(parts) if len(parts) > 1 else ""


def _correction_chart(
    method: str, rows: Sequence[Sequence[float]], share: str, *, log: bool
) -> str:
    chart = band_chart(
        rows,
        title=f"Correction of {method} at each step as a share {share}; the table below has the numbers",
        x_label="step",
        y_label="share",
        log=log,
    )
    scale = ", logarithmic scale" if log else ""
    return f'<div class="panel">\n<h4>share {escape(share)}{scale}</h4>\n{chart}\n</div>\n'


def _correctiontable(
    of_image: Sequence[Sequence[float]], of_step: Sequence[Sequence[float]]
) -> str:
    rows = []
    for i, columns in enumerate(
        zip(zip(*of_image, strict=True), zip(*of_step, strict=True), strict=True)
    ):
        rows.append(
            [
                str(i),
                *(percent(value) for c in columns for value in (sum(c) / len(c), min(c), max(c))),
            ]
        )
    head = [
        "step",
        *(
            f"{what} {share}"
            for share in ("of image", "of step")
            for what in ("mean", "smallest", "largest")
        ),
    ]
    return table(
        "Size of the correction as a share of the predicted image and of the denoiser's own step",
        head,
        rows,
        numbers_from=0,
    )


def _certificates(record: Mapping[str, Any], samples: Sequence[Sample]) -> str:
    rows = []
    for s in samples:
        c = s.report.certificate
        if c is not None:
            rows.append(
                [
                    _place(s),
                    c.nearest_id,
                    *_distances(c),
                    "yes" if c.moved else "no",
                    str(c.steps_moved),
                    str(s.report.attempts),
                ]
            )
    if not rows:
        return ""
    caption = (
        "The exact distance of each final latent to the nearest protected one, and how much further that is than the radius: the "
        "guarantee. Then the same distance of the image encoded again, which is what can be measured without the latent; an autoencoder "
        "does not return the latent exactly, so it is another number."
    )
    head = [
        "image",
        "nearest protected",
        "distance",
        "radius",
        "margin",
        "encoded again",
        "moved out at the end",
    ]
    head += ["steps that SPELL moved it at", "draws"]
    shield = record["shield"]
    how = f"{shield['size']:,} protected images; radius {radius_in_words(shield['radius'], shield['radius_source'])}."
    return f'<h2>Protected set</h2>\n<p class="note">{escape(how)}</p>\n{table(caption, head, rows, numbers_from=2)}'


def _place(sample: Sample) -> str:
    return sample.picture.path if sample.picture else f"number {sample.planned.index}, refused"


def _distances(certificate: Certificate) -> list[str]:
    decoded = certificate.decoded
    again = (
        "–"
        if decoded is None
        else f"{decoded.distance:.4g} from {decoded.nearest_id}{' (inside)' if decoded.inside else ''}"
    )
    return [
        f"{certificate.distance:.4g}",
        f"{certificate.radius:.4g}",
        f"{certificate.margin:.3g}",
        again,
    ]


def _settings(record: Mapping[str, Any]) -> str:
    return (
        f"<h2>Settings</h2>\n<p>To draw these images again:</p>\n<pre>{escape(record['command'])}</pre>\n<details>\n"
        f"<summary>Everything in run.json</summary>\n<pre>{escape(json.dumps(record, indent=2, ensure_ascii=False))}</pre>\n</details>"
    )
