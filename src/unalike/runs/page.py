"""`report.html`: the images of a run, their scores, and what the guidance did, in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from unalike.attach.run.report import Certificate
from unalike.runs.charts import band_chart
from unalike.runs.html import (
    Shown,
    details,
    document,
    figure,
    gallery,
    note,
    panel,
    panels,
    paragraph,
    settings_section,
    table,
)
from unalike.runs.numbers import counted, number, percent
from unalike.runs.samples import Sample, by_prompt, returned, usual_steps
from unalike.runs.scoring import BASIS, PLAINLY_CHANGED, Diversity
from unalike.runs.shield.inspection import radius_in_words
from unalike.runs.summary import FINISHED, diversity_sentence, protection_sentences

IMAGES_SHOWN = 512
_OF_IMAGE, _OF_STEP = "share of the predicted image", "share of the denoiser's own step"
_SPANS_NAMED = 4


def report_page(
    record: Mapping[str, Any],
    samples: Sequence[Sample],
    scores: Mapping[str, Diversity],
    unguided_scores: Mapping[str, Diversity],
) -> str:
    """The page as HTML text.

    Args:
        record: what `run.json` holds.
        samples: finished images; the first `IMAGES_SHOWN` are shown, and the page says so where
            there are more.
        scores: diversity of each prompt's images.
        unguided_scores: that of the unguided images of the same seeds; empty where there are none.
    """
    images = returned(samples)
    title = ", ".join(record["prompts"][:3]) + (" …" if len(record["prompts"]) > 3 else "")
    return document(
        title,
        [
            *_lead(record, samples),
            _images(images),
            _scores(record, scores, unguided_scores),
            _guidance(record, images),
            _certificates(record, samples),
            settings_section("draw these images", record, "run.json"),
        ],
    )


def _lead(record: Mapping[str, Any], samples: Sequence[Sample]) -> list[str]:
    images, planned = returned(samples), len(record["prompts"])
    prompts, methods = len(by_prompt(images)), ", ".join(m["name"] for m in record["methods"])
    of = counted(planned, "prompt") if prompts == planned else f"{prompts} of {planned} prompts"
    text = (
        f"{counted(len(images), 'image')} of {of}, drawn with {record['model']['name']} in "
        f"{counted(record['steps'], 'step')}, guided by {methods or 'no method'}."
    )
    if not record["finished"]:
        text += f" The run was stopped before all {record['images']['planned']} images were drawn."
    refused = len(samples) - len(images)
    if refused:
        text += f" {refused} more {'was' if refused == 1 else 'were'} drawn and refused, because "
        text += "of the protected set."
    return [paragraph(text), *(paragraph(f"{s}.") for s in protection_sentences(record))]


def _images(samples: Sequence[Sample]) -> str:
    if not samples:
        return ""
    parts = ["<h2>Images</h2>"]
    if any(s.unguided for s in samples):
        parts.append(
            note(
                "The images without guidance are of the seeds in their order, and the guided ones "
                "were chosen out of more seeds."
                if all(s.change is None for s in samples)
                else "Both images of a seed start from the same noise. Framed: pixels differ by "
                f"more than {percent(PLAINLY_CHANGED)} of the full range (root mean square)."
            )
        )
    if len(samples) > IMAGES_SHOWN:
        parts.append(
            note(
                f"The first {IMAGES_SHOWN} of {len(samples)} images are shown; the others are in "
                "the folder."
            )
        )
    for prompt, group in by_prompt(samples[:IMAGES_SHOWN]).items():
        shown = gallery(_figure(prompt, sample) for sample in group)
        parts.append(f"<section>\n<h3>{escape(prompt)}</h3>\n{panel(shown)}</section>")
    return "\n".join(parts)


def _figure(prompt: str, sample: Sample) -> str:
    """An image under the unguided one of its seed, where there is one."""
    seed, images = f"seed {sample.planned.seed}", []
    compared = sample.unguided is not None
    if sample.unguided:
        alt = f"{prompt}{f', {seed}' if sample.change is not None else ''}, without guidance"
        images.append(Shown(sample.unguided.thumbnail, alt, "unguided"))
    if sample.image:
        label = "guided" if compared else ""
        images.append(Shown(sample.image.thumbnail, f"{prompt}, {seed}, guided", label))
    return figure(images, f"{seed}{_change(sample.change)}", changed=sample.plainly_changed)


def _change(change: float | None) -> str:
    if change is None:
        return ""
    return ", identical" if change == 0 else f", changed by {percent(change)}"


def _scores(
    record: Mapping[str, Any],
    scores: Mapping[str, Diversity],
    unguided_scores: Mapping[str, Diversity],
) -> str:
    compared = bool(unguided_scores)
    head = ["prompt", "images", *(["Vendi, unguided"] if compared else []), "Vendi"]
    head += [*(["RKE, unguided"] if compared else []), "RKE"]
    rows = []
    for prompt, score in scores.items():
        unguided = unguided_scores.get(prompt)
        row = [prompt, str(score.images)]
        row += ([_diversity(unguided, "vendi")] if unguided else []) + [_diversity(score, "vendi")]
        row += ([_diversity(unguided, "rke")] if unguided else []) + [_diversity(score, "rke")]
        rows.append(row)
    if not rows:
        return ""
    sentence = diversity_sentence(record)
    lead = paragraph(f"{sentence}.") if sentence else ""
    about = note(
        "Both scores are effective numbers of different images: 1 when all are alike, the number "
        f"of images when they have nothing in common. {BASIS}."
    )
    scored = table("Diversity of the images of each prompt", head, rows, numbers_from=1)
    return f"<h2>Diversity</h2>\n{lead}\n{about}\n{scored}"


def _diversity(score: Diversity, name: str) -> str:
    """A score of at least two images: of one there is no diversity to speak of."""
    return f"{getattr(score, name):.2f}" if score.images > 1 else "–"


def _guidance(record: Mapping[str, Any], samples: Sequence[Sample]) -> str:
    names = list(dict.fromkeys(m for s in samples for m in s.report.corrections))
    if not names:
        return ""
    parts, used = ["<h2>What the guidance did</h2>"], record.get("methods_as_used") or []
    for i, name in enumerate(names):
        entry = used[i] if i < len(used) else {}  # in restarts SPELL acts too
        drawn = usual_steps(samples, name)
        of_image = [s.report.corrections_of_x0[name] for s in drawn]
        of_step = [s.report.corrections[name] for s in drawn]
        active = [s.report.active[name] for s in drawn]
        parts.append(f"<h3>{escape(name)}</h3>")
        text = _acted(of_image, sum(active) / len(active), entry.get("renewal"))
        if not any(map(any, of_image)):
            parts.append(note(text))
            continue
        text += (
            f" Lines: the size of the correction, mean over {counted(len(drawn), 'image')}; "
            "bands: from the smallest to the largest. A logarithmic scale has no zero, so images "
            "and steps without a correction are left out there."
        )
        charts = [
            _correction_chart(name, of_image, _OF_IMAGE, log=False),
            _correction_chart(name, of_step, _OF_STEP, log=True),
        ]
        parts += [note(text), panels(charts)]
        parts.append(details("The same as a table", _correction_table(name, of_image, of_step)))
    return "\n".join(parts)


def _acted(
    of_image: Sequence[Sequence[float]], active: float, renewal: Mapping[str, Any] | None
) -> str:
    """At which steps a method corrected predictions, and what else it did.

    Args:
        of_image: a row an image: the size of its correction at each step.
        active: the share of steps, over all images, at which it did anything.
        renewal: how much noise it had drawn anew; None where it asked for none.
    """
    steps = len(of_image[0])
    corrected = [i for i, sizes in enumerate(zip(*of_image, strict=True)) if any(sizes)]
    if corrected:
        text = f"It corrected predictions at {len(corrected)} of {counted(steps, 'step')}"
        text += f" ({_spans(corrected)})."
    else:
        text = "It corrected no prediction."
    if renewal and renewal["used"] > 0:
        much = "all" if renewal["used"] == 1 else percent(renewal["used"])
        text += f" At {renewal['steps']} of {counted(steps, 'step')} {much} of the noise was drawn "
        text += "anew, which corrects no prediction."
    elif renewal:
        text += " It asked for noise to be drawn anew, which this scheduler does not allow, so "
        text += "that none was."
    elif not corrected and active > 0:
        text += f" It acted at {percent(active)} of the steps of all images, by what the model was "
        text += "told of the prompts."
    return text


def _spans(steps: Sequence[int]) -> str:
    """Numbers of steps in words.

    Example:
        >>> _spans([0, 1, 2, 5]), _spans(range(0, 20, 2))
        ('steps 0 to 2, 5', 'between steps 0 and 18')
    """
    spans: list[list[int]] = []
    for step in steps:
        if spans and spans[-1][-1] == step - 1:
            spans[-1].append(step)
        else:
            spans.append([step])
    if len(spans) > _SPANS_NAMED:
        return f"between steps {steps[0]} and {steps[-1]}"
    named = [f"{s[0]} to {s[-1]}" if len(s) > 1 else f"{s[0]}" for s in spans]
    return f"step{'s' if len(steps) > 1 else ''} {', '.join(named)}"


def _correction_chart(name: str, rows: Sequence[Sequence[float]], share: str, *, log: bool) -> str:
    chart = band_chart(
        rows,
        title=f"Correction of {name} at each step as a {share}; the table below has the numbers",
        x_label="step",
        y_label="share",
        log=log,
    )
    return panel(chart, share + (", logarithmic scale" if log else ""), level=4)


def _correction_table(
    name: str, of_image: Sequence[Sequence[float]], of_step: Sequence[Sequence[float]]
) -> str:
    columns = zip(zip(*of_image, strict=True), zip(*of_step, strict=True), strict=True)
    rows = [
        [str(i), *(percent(v) for c in both for v in (sum(c) / len(c), min(c), max(c)))]
        for i, both in enumerate(columns)
    ]
    sizes = ("mean", "smallest", "largest")
    head = ["step", *(f"{size} {of}" for of in ("of image", "of step") for size in sizes)]
    about = note(
        f"Size of the correction as a {_OF_IMAGE} (of image) and as a {_OF_STEP} (of step)."
    )
    return about + table(f"Corrections of {name} at each step", head, rows, numbers_from=0)


def _certificates(record: Mapping[str, Any], samples: Sequence[Sample]) -> str:
    shields = [record["shield"], *record.get("further_shields", [])] if record["shield"] else []
    certified = [
        [(s, s.report.certificates[k]) for s in samples if len(s.report.certificates) > k]
        for k in range(len(shields))
    ]
    return "\n".join(
        _certificates_of(shield, own, shield["name"] if len(shields) > 1 else "")
        for shield, own in zip(shields, certified, strict=True)
        if own
    )


def _certificates_of(
    shield: Mapping[str, Any], certified: Sequence[tuple[Sample, Certificate]], name: str
) -> str:
    latents = shield["certified"] != FINISHED
    rows = [_certificate_row(sample, c, latents=latents) for sample, c in certified]
    about = [
        f"{counted(shield['size'], 'protected image')}; radius "
        f"{radius_in_words(shield['radius'], shield['radius_source'])}."
    ]
    head = ["image", "nearest to the finished image", "finished image"]
    if latents:
        about.append(
            "Two distances to the nearest protected image: that of the finished image, encoded "
            "again, which anybody can measure; and that of the final latent. The certificate is of "
            f"{shield['certified']}. They differ, since an autoencoder does not return the latent "
            "that it decoded. The margin is how far the latent is beyond the radius."
        )
        head += ["distance of the finished image", "nearest to the latent"]
        head += ["distance of the latent", "margin of the latent"]
    else:
        about.append(
            "Distances are those of finished images to the nearest protected one, and certified. "
            "The margin is how far an image is beyond the radius."
        )
        head += ["distance of the finished image", "margin"]
    head += ["moved out at the end", "steps SPELL moved it", "restarts", "draws"]
    listed = table("Distances to the protected set", head, rows, numbers_from=3)
    heading = f"Protected set {escape(name)}".strip()
    return "\n".join([f"<h2>{heading}</h2>", *map(note, about), listed])


def _certificate_row(sample: Sample, certificate: Certificate, *, latents: bool) -> list[str]:
    place = sample.image.path if sample.image else f"number {sample.planned.index}, refused"
    end = ["yes" if certificate.moved else "no", str(certificate.steps_moved)]
    end += [str(sample.report.restarts), str(sample.report.attempts)]
    distance, margin = number(certificate.distance), number(certificate.margin)
    if not latents:
        state = "inside" if certificate.margin < 0 else "outside"
        return [place, certificate.nearest_id, state, distance, margin, *end]
    latent = [certificate.nearest_id, distance, margin, *end]
    decoded = certificate.decoded
    if decoded is None:
        return [place, "–", "not measured", "–", *latent]
    state = "inside" if decoded.inside else "outside"
    return [place, decoded.nearest_id, state, number(decoded.distance), *latent]
