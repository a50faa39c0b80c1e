"""`unalike shield verify`: the certificates of a run, computed again from its images, its latents
and the protected vectors alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unalike.runs.folder import IMAGES, LATENTS, SAMPLES
from unalike.runs.progress import Progress
from unalike.runs.shield.brute_force import Found, nearest
from unalike.runs.shield.evidence import (
    Row,
    encoded,
    feature_encoder,
    latent_encoder,
    read_latents,
    read_record,
    read_rows,
)
from unalike.shields import Shield

LATENT_TOLERANCE, DECODED_TOLERANCE = 1e-9, 1e-3
"""By how much a distance may differ from the certificate's, as a share of it. Latents are on disk
bit by bit; an image that is encoded in another batch or on another device differs in the last bits
of its latent.
"""


@dataclass(frozen=True)
class Verification:
    """What became of computing the certificates of a run again.

    Attributes:
        images: how many images the run has.
        refused: how many images it refused; there is nothing of those to compute.
        moved: how many were moved out after the last step.
        encoded: how many images were encoded again and measured.
        protected: how many vectors the protected set has.
        margin: the smallest distance of a latent to the surface of the balls, as computed here;
            None where none was.
        differences: everything that is not as the run says, or inside a ball; empty where all is
            well.
    """

    images: int
    refused: int
    moved: int
    encoded: int
    protected: int
    margin: float | None
    differences: tuple[str, ...]

    @property
    def confirmed(self) -> bool:
        """Whether all certificates hold."""
        return not self.differences

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {"confirmed": self.confirmed, **asdict(self), "differences": list(self.differences)}


def verify(
    run: Path,
    shield: Path,
    *,
    model: str | None = None,
    space: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Verification:
    """Computes every certificate of a run again and compares it with `samples.parquet`.

    Distances are found by comparing with every protected vector in float64, not through the search
    structure of the set. Those of the final latents must be the certificates' up to 1e-9, and none
    below the radius. The images are encoded again with the run's model, whose autoencoder must be
    the one of the set's space, and their distances must be the certificates' up to 1e-3; their
    files must have the digests of the table. A set of features has no distances of latents; there
    all distances are those of the images.

    Args:
        run: output folder of `unalike generate`.
        shield: folder of the protected set.
        model: a name, folder or hub id, where that of the run's record cannot be found: it holds no
            paths.
        space: the features of the set, with the folder they are in, as in "clip:FOLDER", where the
            set names it without its place.
        device: for the network that encodes: "auto", or a device of torch.
        progress: told the share of the work that is done.

    Raises:
        StoreError: when a file of the run or the set is missing or damaged, the run had no
            protected set, or the model is another.
        OptionError: when the model or the device is not there.

    Cost: O(m n d) for m images and n vectors, as matrix products, and one pass of the encoder for
    each image.
    """
    record, rows, protected = read_record(run), read_rows(run), Shield.open(shield)
    kept = [row for row in rows if not row["refused"]]
    differences, of_latents, of_images = list(_of_set(record, rows, protected)), {}, {}
    if not differences:  # with another set every distance is another
        differences += _of_rows(run, record, rows)
        latents = read_latents(run, kept, None if protected.embedding else protected.shape)
        if latents is None:
            differences.append(
                f"{LATENTS} does not hold one latent for each image, in the order of {SAMPLES}"
            )
        elif protected.embedding is None:
            of_latents = _nearest(
                dict(zip((row["index"] for row in kept), latents, strict=True)),
                protected,
                LATENT_TOLERANCE,
            )
        encode = (
            feature_encoder(protected, space, device)
            if protected.embedding
            else latent_encoder(record, model, device, protected)
        )
        points = dict(encoded(run, kept, encode, progress)) if encode is not None else {}
        differences += [f"image {i}: {why}" for i, why in points.items() if isinstance(why, str)]
        measured = {i: point for i, point in points.items() if not isinstance(point, str)}
        of_images = _nearest(
            measured, protected, DECODED_TOLERANCE, DECODED_TOLERANCE * protected.reach
        )
    final, tolerance = (
        (of_images, DECODED_TOLERANCE) if protected.embedding else (of_latents, LATENT_TOLERANCE)
    )
    for row in kept:
        differences += _of_final(row, final.get(row["index"]), protected, tolerance)
        differences += _of_image(row, of_images.get(row["index"]), protected)
    return Verification(
        images=len(kept),
        refused=len(rows) - len(kept),
        moved=sum(bool(row["certificate_moved"]) for row in kept),
        encoded=len(of_images),
        protected=len(protected),
        margin=min(found.distance for found in final.values()) - protected.reach if final else None,
        differences=tuple(differences),
    )


def _nearest(
    points: Mapping[int, np.ndarray], protected: Shield, relative: float, absolute: float = 0.0
) -> dict[int, Found]:
    found = (
        nearest(
            np.array(list(points.values())), protected.vectors, relative=relative, absolute=absolute
        )
        if points
        else []
    )
    return dict(zip(points, found, strict=True))


def _of_set(record: Mapping[str, Any], rows: Sequence[Row], protected: Shield) -> Iterator[str]:
    """What says that the run was drawn with another protected set."""
    for where, claimed in [
        ("run.json", record["shield"].get("checksum")),
        *((_name(r), r["certificate_checksum"]) for r in rows),
    ]:
        if claimed != protected.checksum:
            yield f"{where}: the certificates are of the protected set {claimed} and the given one is {protected.checksum}"
            return


def _of_rows(run: Path, record: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[str]:
    """What of the table does not fit the record and the images."""
    kept = [row for row in rows if not row["refused"]]
    for what, count, recorded in (
        ("images", len(kept), record["images"].get("finished")),
        ("refused images", len(rows) - len(kept), record["images"].get("refused")),
    ):
        if count != recorded:
            yield f"{SAMPLES} has {count} {what} and run.json says {recorded}"
    for index, times in Counter(row["index"] for row in rows).items():
        if times > 1:
            yield f"{SAMPLES} has {times} rows of image {index}"
    for row in rows:
        if (row["image"] is None) != bool(row["refused"]):
            yield f"{_name(row)}: its image is {row['image']!r} and refused is {row['refused']!r}, which do not go together"
    known = {row["image"] for row in rows}
    for path in sorted((run / IMAGES).glob("*")):
        if f"{IMAGES}/{path.name}" not in known:
            yield f"{IMAGES}/{path.name} is there and {SAMPLES} does not list it, so it has no certificate"


def _of_final(row: Row, found: Found | None, protected: Shield, tolerance: float) -> Iterator[str]:
    if found is None:
        return
    if found.distance < protected.reach:
        yield f"{_name(row)}: it is inside the protected set, {found.distance!r} from {protected.ids[found.rows[0]]!r}"
    yield from _unlike(row, "certificate_distance", found.distance, tolerance)
    yield from _unlike(
        row, "certificate_margin", found.distance - protected.reach, 0.0, tolerance * found.distance
    )
    yield from _nearest_unlike(row, "certificate_nearest", found, protected)
    for name, true in (
        ("certificate_radius", protected.radius),
        ("certificate_space", protected.space),
    ):
        if row.get(name) != true:
            yield f"{_name(row)}: {name} is {row.get(name)!r} in {SAMPLES}, and {true!r} in the protected set"


def _of_image(row: Row, found: Found | None, protected: Shield) -> Iterator[str]:
    if found is None:
        return
    slack = DECODED_TOLERANCE * protected.reach
    yield from _unlike(
        row, "certificate_decoded_distance", found.distance, DECODED_TOLERANCE, slack
    )
    yield from _nearest_unlike(row, "certificate_decoded_nearest", found, protected)
    claimed = row["certificate_decoded_distance"]
    if claimed is not None and row.get("certificate_decoded_inside") != (claimed < protected.reach):
        yield f"{_name(row)}: certificate_decoded_inside does not fit certificate_decoded_distance, which is {claimed!r}"


def _unlike(
    row: Row, name: str, computed: float, relative: float, absolute: float = 0.0
) -> Iterator[str]:
    claimed = row.get(name)
    if claimed is None or not math.isclose(claimed, computed, rel_tol=relative, abs_tol=absolute):
        yield f"{_name(row)}: {name} is {claimed!r} in {SAMPLES}, and {computed!r} computed again"


def _nearest_unlike(row: Row, name: str, found: Found, protected: Shield) -> Iterator[str]:
    if row.get(name) not in {protected.ids[k] for k in found.rows}:
        yield f"{_name(row)}: {name} is {row.get(name)!r} in {SAMPLES}, and {protected.ids[found.rows[0]]!r} computed again"


def _name(row: Row) -> str:
    return f"image {row['index']}"
