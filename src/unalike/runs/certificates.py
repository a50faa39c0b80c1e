"""The protected sets of a run, as sections of a page: what its images are nearest to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from unalike.attach.run.report import Certificate
from unalike.runs.html import ROWS_LISTED, long_table, note
from unalike.runs.numbers import counted, number
from unalike.runs.samples import Sample
from unalike.runs.shield.inspection import radius_in_words
from unalike.runs.summary import FINISHED


def certificates_sections(record: Mapping[str, Any], samples: Sequence[Sample]) -> str:
    """A section for each protected set as HTML; empty without one.

    Args:
        record: what `run.json` holds.
        samples: all images, also those that were refused.
    """
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
    if len(certified) > ROWS_LISTED:
        certified = sorted(certified, key=lambda own: _nearest_distance(own[1]))
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
    listed = long_table(
        f"Distances to the protected set {name}".strip(),
        head,
        rows,
        numbers_from=3,
        rest="The images that are closest to it come first. All are in samples.parquet, in the "
        "columns that begin with certificate.",
    )
    heading = f"Protected set {escape(name)}".strip()
    return "\n".join([f"<h2>{heading}</h2>", *map(note, about), listed])


def _nearest_distance(certificate: Certificate) -> float:
    """The smaller distance of the finished image, where that was measured, and of the latent."""
    decoded = [certificate.decoded.distance] if certificate.decoded else []
    return min([certificate.distance, *decoded])


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
