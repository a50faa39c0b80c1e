"""The images of a run as rows: what `samples.parquet`, the grid and the report are made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from unalike.attach.run.report import Certificate, ImageReport
from unalike.runs.scoring import PLAINLY_CHANGED, Diversity


@dataclass(frozen=True)
class Planned:
    """An image to be drawn.

    Attributes:
        index: its place in the run.
        prompt: what to draw.
        prompt_index: the number of its prompt, or of its row in a file.
        seed: of its noise.
        negative_prompt: what to stay away from; None for the run's.
        arguments: of the pipeline's call, in place of the run's.
        group: images of one group are kept unlike each other; None for those of the prompt.
        id: of its row in a file.
        item: identifies the image among all of the run, see `unalike.runs.plan`.
    """

    index: int
    prompt: str
    prompt_index: int
    seed: int
    negative_prompt: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    group: str | None = None
    id: str | None = None
    item: str = ""


@dataclass(frozen=True)
class StoredImage:
    """An image on disk: its path in the folder, the SHA-256 of the file, and width and height."""

    path: str
    sha256: str | None = None
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Sample:
    """A finished image and the record of how it was made.

    Attributes:
        planned: its prompt, seed and number.
        image: None where it was refused, because it is inside the protected set.
        report: what the guidance did.
        unguided: the unguided image of the same seed, if it was drawn.
        change: how far the image is from that, see `unalike.runs.scoring.change`.
    """

    planned: Planned
    image: StoredImage | None
    report: ImageReport
    unguided: StoredImage | None = None
    change: float | None = None

    @property
    def plainly_changed(self) -> bool:
        """Whether it looks different from the unguided image of its seed at first glance."""
        return self.change is not None and self.change > PLAINLY_CHANGED


def usual_steps(samples: Sequence[Sample], method: str) -> list[Sample]:
    """The samples that a method acted on in the most usual number of steps: an image that is alone,
    and one that was restarted, may take fewer.
    """
    own = [s for s in samples if method in s.report.corrections]
    counts = Counter(len(s.report.corrections[method]) for s in own)
    usual = counts.most_common(1)[0][0]
    return [s for s in own if len(s.report.corrections[method]) == usual]


def returned(samples: Iterable[Sample]) -> list[Sample]:
    """The samples that were not refused, in order."""
    return [sample for sample in samples if sample.image is not None]


def by_prompt(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """The samples of each prompt, in order."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.planned.prompt, []).append(sample)
    return groups


def sample_table(
    samples: Sequence[Sample], scores: Mapping[str, Diversity], settings: Mapping[str, Any]
) -> pa.Table:
    """`samples.parquet`: a row an image.

    Columns: `index`, `image` and `unguided_image` (paths), `image_sha256` (of the file), `prompt`,
    `prompt_index`, `seed`; `settings`, the same in every row; `change` from the unguided image;
    `prompt_vendi` and `prompt_rke`, of all images of the prompt; `nearest_*`, the nearest neighbour
    in latent space, where `nearest_index` counts the images of the run or, if `nearest_source` is
    "memory", the samples that the memory held before the batch; `correction_NAME`, the mean size of
    that method's correction as a share of the predicted image, and `active_NAME`, the share of
    steps in which it acted; `certificate_*`, where the final latent is relative to the protected
    set, and `certificate_decoded_*` the same of the image encoded again, with several sets for the
    first one, and `certificate_2_*`, … for the others; `attempts`, how often the image was drawn
    from a seed, `drawn_seed`, the last of these, and `restarts`, how often from its own latents;
    `refused`, whether it was inside the protected set, so that there is no image.
    Null where there is none.

    Args:
        samples: finished images.
        scores: the diversity of the images of each prompt.
        settings: columns that all rows share, of plain values.
    """
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for sample in samples:
        row = _row(sample, scores.get(sample.planned.prompt))
        for name in SCHEMA.names:
            columns[name].append(row[name])
    table = pa.table(columns, schema=SCHEMA)
    for name, value in settings.items():
        table = table.append_column(name, pa.array([value] * len(samples)))
    for number in range(2, 1 + max((len(s.report.certificates) for s in samples), default=0)):
        rows = [_certificate(s.report.certificates[number - 1]) for s in samples]
        for name in CERTIFICATE:
            column = pa.array([row[name] for row in rows], SCHEMA.field(name).type)
            table = table.append_column(further(name, number), column)
    for method in dict.fromkeys(m for s in samples for m in s.report.corrections):
        sizes = [s.report.corrections_of_x0.get(method) for s in samples]
        table = table.append_column(
            f"correction_{method}",
            pa.array([sum(z) / len(z) if z else None for z in sizes], pa.float64()),
        )
        table = table.append_column(
            f"active_{method}",
            pa.array([s.report.active.get(method) for s in samples], pa.float64()),
        )
    return table


SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("image", pa.string()),
        ("image_sha256", pa.string()),
        ("unguided_image", pa.string()),
        ("prompt", pa.string()),
        ("prompt_index", pa.int64()),
        ("seed", pa.int64()),
        ("change", pa.float64()),
        ("prompt_vendi", pa.float64()),
        ("prompt_rke", pa.float64()),
        ("nearest_source", pa.string()),
        ("nearest_index", pa.int64()),
        ("nearest_distance", pa.float64()),
        ("certificate_nearest", pa.string()),
        ("certificate_distance", pa.float64()),
        ("certificate_radius", pa.float64()),
        ("certificate_margin", pa.float64()),
        ("certificate_moved", pa.bool_()),
        ("certificate_steps_moved", pa.int64()),
        ("certificate_checksum", pa.string()),
        ("certificate_space", pa.string()),
        ("certificate_decoded_nearest", pa.string()),
        ("certificate_decoded_distance", pa.float64()),
        ("certificate_decoded_inside", pa.bool_()),
        ("attempts", pa.int64()),
        ("drawn_seed", pa.int64()),
        ("restarts", pa.int64()),
        ("refused", pa.bool_()),
    ]
)


CERTIFICATE = tuple(name for name in SCHEMA.names if name.startswith("certificate_"))
"""The columns of the first protected set."""


def further(name: str, number: int) -> str:
    """The column of the certificates of another protected set than the first.

    Example:
        >>> further("certificate_distance", 2)
        'certificate_2_distance'
    """
    return name.replace("certificate_", f"certificate_{number}_", 1)


def _row(sample: Sample, scores: Diversity | None) -> dict[str, Any]:
    nearest = sample.report.nearest
    return {
        "index": sample.planned.index,
        "image": sample.image.path if sample.image else None,
        "image_sha256": sample.image.sha256 if sample.image else None,
        "unguided_image": sample.unguided.path if sample.unguided else None,
        "prompt": sample.planned.prompt,
        "prompt_index": sample.planned.prompt_index,
        "seed": sample.planned.seed,
        "change": sample.change,
        "prompt_vendi": scores.vendi if scores else None,
        "prompt_rke": scores.rke if scores else None,
        "nearest_source": nearest.source if nearest else None,
        "nearest_index": nearest.index if nearest else None,
        "nearest_distance": nearest.distance if nearest else None,
        **_certificate(next(iter(sample.report.certificates), None)),
        "attempts": sample.report.attempts,
        "drawn_seed": sample.report.seed,
        "restarts": sample.report.restarts,
        "refused": sample.report.refused,
    }


def _certificate(certificate: Certificate | None) -> dict[str, Any]:
    if certificate is None:
        return dict.fromkeys(CERTIFICATE)
    decoded = certificate.decoded
    return {
        "certificate_nearest": certificate.nearest_id,
        "certificate_distance": certificate.distance,
        "certificate_radius": certificate.radius,
        "certificate_margin": certificate.margin,
        "certificate_moved": certificate.moved,
        "certificate_steps_moved": certificate.steps_moved,
        "certificate_checksum": certificate.checksum,
        "certificate_space": certificate.space,
        "certificate_decoded_nearest": decoded.nearest_id if decoded else None,
        "certificate_decoded_distance": decoded.distance if decoded else None,
        "certificate_decoded_inside": decoded.inside if decoded else None,
    }
