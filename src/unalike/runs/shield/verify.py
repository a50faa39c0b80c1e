"""`unalike shield verify`: recompute what a run says of its images, and compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unalike.runs.folder import LATENTS, RECORD, SAMPLES
from unalike.runs.numbers import number
from unalike.runs.progress import Progress
from unalike.runs.shield.brute_force import Found, nearest
from unalike.runs.shield.claims import differences_of_record, differences_of_rows, image
from unalike.runs.shield.evidence import (
    Latents,
    Row,
    feature_encoder,
    finished_image,
    latent_encoder,
    read_latents,
    read_record,
    read_rows,
)
from unalike.runs.shield.recomputed import (
    Measured,
    differences_of_images,
    differences_of_neighbours,
    measured,
)
from unalike.runs.summary import FINISHED, finished_sentence
from unalike.runs.summary import LATENTS as OF_LATENTS
from unalike.shields import Shield

LATENT_TOLERANCE, DECODED_TOLERANCE = 1e-9, 1e-3
"""By how much a distance may differ from the certificate's, as a share of it. Latents are on disk
bit by bit; an image that is encoded in another batch or on another device differs in the last bits
of its latent.
"""
_SURFACE = 1e-3
"""How far a latent that was moved out may be beyond the radius, as a share of it."""


@dataclass(frozen=True)
class Verification:
    """Result of a verification.

    Attributes:
        inside: how many finished images are inside the protected set, measured here; None where
            they cannot be encoded.
        images: how many images the run has.
        certified: what its certificates are of: "latents" or "finished images".
        refused: how many images it refused; there is nothing of those to compute.
        moved: how many were moved out after the last step.
        encoded: how many images were encoded again and measured.
        protected: how many vectors the protected set has.
        reach: the radius of its balls, the rounding of what is stored included.
        margin: the smallest distance of what is certified to the surface of the balls, as computed
            here; None where none was.
        differences: everything that is not as the run says, or certified and inside a ball; empty
            where all is well.
    """

    inside: int | None
    images: int
    certified: str
    refused: int
    moved: int
    encoded: int
    protected: int
    reach: float
    margin: float | None
    differences: tuple[str, ...]

    @property
    def confirmed(self) -> bool:
        """Whether all that can be computed again is as the run says, and what is certified is
        outside. With a set of latents finished images may be inside all the same: see `inside`.
        """
        return not self.differences

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {"confirmed": self.confirmed, **asdict(self), "differences": list(self.differences)}

    def sentences(self) -> list[str]:
        """The result in words: finished images first, then what is certified, then whether the run
        is right about both.
        """
        latents = self.certified == OF_LATENTS
        lines = [
            finished_sentence(
                self.inside,
                self.encoded or self.images,
                self.protected,
                self.reach,
                encoded=latents,
            )
        ]
        what = "Only latents are certified" if latents else "Finished images are certified"
        done = f"{self.moved} moved out, {self.refused} refused"
        if not self.images:
            lines.append(f"{what}, and no image was kept; {done}")
        elif self.margin is None:
            lines.append(f"{what}, and none could be measured; {done}")
        elif self.margin < 0:
            lines.append(f"{what}, and one is inside by {number(-self.margin)}; {done}")
        else:
            lines.append(f"{what}: the nearest is outside by {number(self.margin)}; {done}")
        if self.confirmed:
            lines.append(
                f"confirmed: all that {RECORD} and {SAMPLES} say of {self.images} images and can "
                "be computed again"
            )
        else:
            lines.append(f"not confirmed: {len(self.differences)} differences")
        return lines


def verify(
    run: Path,
    shield: Path,
    *,
    model: str | None = None,
    space: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Verification:
    """Recompute what `run.json` and `samples.parquet` say of a run, and compare.

    - Distances, by comparing with every protected vector in float64 and not through the search of
      the set: those of final latents must be the certificates' up to 1e-9, and none below the
      radius; those of images, encoded again with the run's model, up to 1e-3. The model's
      autoencoder must be that of the set. A set of features has no distances of latents; there all
      are those of the images.
    - Files of images against their digests and sizes; changes and scores from their pixels; nearest
      neighbours from the latents.
    - Prompts, seeds, settings, counts, and what the record says of the set (radius, size, rounding,
      checksum), against each other.

    What a memory file held, libraries, and times cannot be computed again.

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
    of_latents: dict[int, Found] = {}
    of_images: dict[int, Found] = {}
    differences = list(_of_set(record, rows, protected))
    if not differences:  # with another set every distance is another
        differences += differences_of_record(record, protected)
        differences += differences_of_rows(run, record, rows, protected)
        latents = read_latents(run, kept, None if protected.embedding else protected.shape)
        if latents is None:
            differences.append(
                f"{LATENTS} does not hold one latent for each image, in the order of {SAMPLES}"
            )
        else:
            differences += differences_of_neighbours(record, kept, latents.rows)
            if protected.embedding is None:
                rows_of = dict(zip((row["index"] for row in kept), latents.rows, strict=True))
                of_latents = _nearest(rows_of, protected, LATENT_TOLERANCE)
                differences += _of_latents(kept, latents, of_latents, protected)
        if protected.embedding:
            encode, kinds = feature_encoder(protected, space, device), {}
        else:
            encode, kinds = latent_encoder(record, model, device, protected)
        differences += [
            f"{RECORD}: the {name} is {record['model'].get(name)!r}, and that of the model {kind!r}"
            for name, kind in kinds.items()
            if record["model"].get(name) != kind
        ]
        points: dict[int, np.ndarray] = {}
        found: dict[int, Measured] = {}
        for done, row in enumerate(kept, 1):
            differences += _read(run, row, encode, points, found)
            if progress is not None:
                progress(done / len(kept), f"{done} of {len(kept)} images")
        differences += differences_of_images(record, rows, found)
        slack = DECODED_TOLERANCE * protected.reach
        of_images = _nearest(points, protected, DECODED_TOLERANCE, slack)
    final, tolerance = (
        (of_images, DECODED_TOLERANCE) if protected.embedding else (of_latents, LATENT_TOLERANCE)
    )
    for row in kept:
        differences += _of_final(row, final.get(row["index"]), protected, tolerance)
        differences += _of_image(row, of_images.get(row["index"]), protected)
    near = [f.distance < protected.reach for f in of_images.values()]
    return Verification(
        inside=sum(near) if near else None,
        images=len(kept),
        certified=FINISHED if protected.embedding else OF_LATENTS,
        refused=len(rows) - len(kept),
        moved=sum(bool(row["certificate_moved"]) for row in kept),
        encoded=len(of_images),
        protected=len(protected),
        reach=protected.reach,
        margin=min(f.distance for f in final.values()) - protected.reach if final else None,
        differences=tuple(differences),
    )


def _read(
    run: Path,
    row: Row,
    encode: Callable[[Any], np.ndarray | str] | None,
    points: dict[int, np.ndarray],
    found: dict[int, Measured],
) -> Iterator[str]:
    """Read the image of a row: its point into `points`, its measurements into `found`."""
    if row["image"] is None:
        return
    finished = finished_image(run, row)
    if isinstance(finished, str):
        yield f"{image(row)}: {finished}"
        return
    own = measured(run, row, finished)
    if isinstance(own, str):
        yield f"{image(row)}: {own}"
    else:
        found[row["index"]] = own
    point = None if encode is None else encode(finished)
    if isinstance(point, str):
        yield f"{image(row)}: {point}"
    elif point is not None:
        points[row["index"]] = point


def _of_latents(
    kept: Sequence[Row], latents: Latents, found: Mapping[int, Found], protected: Shield
) -> Iterator[str]:
    """Check that latents are of the set's space, and moved ones on the surface of a ball."""
    if kept and latents.space != protected.space:
        yield f"{LATENTS} is of {latents.space!r}, and the set of {protected.space!r}"
    for row, latent in zip(kept, latents.rows, strict=True):
        beyond = found[row["index"]].distance - protected.reach
        most = _SURFACE * protected.reach + 2 * latents.rounding * float(np.linalg.norm(latent))
        if row["certificate_moved"] and beyond > most:
            yield (
                f"{image(row)}: certificate_moved is True in {SAMPLES}, and its latent is "
                f"{number(beyond)} beyond the radius, where none is moved to"
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
    """Whether the run was drawn with another protected set."""
    for where, claimed in [
        ("run.json", record["shield"].get("checksum")),
        *((image(r), r["certificate_checksum"]) for r in rows),
    ]:
        if claimed != protected.checksum:
            yield (
                f"{where}: the certificates are of the protected set {claimed} and the given one "
                f"is {protected.checksum}"
            )
            return


def _of_final(row: Row, found: Found | None, protected: Shield, tolerance: float) -> Iterator[str]:
    if found is None:
        return
    if found.distance < protected.reach:
        yield (
            f"{image(row)}: it is inside the protected set, {found.distance!r} from "
            f"{protected.ids[found.rows[0]]!r}"
        )
    yield from _unlike(row, "certificate_distance", found.distance, tolerance)
    yield from _unlike(
        row, "certificate_margin", found.distance - protected.reach, 0.0, tolerance * found.distance
    )
    yield from _nearest_unlike(row, "certificate_nearest", found, protected)


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
        yield (
            f"{image(row)}: certificate_decoded_inside does not fit certificate_decoded_distance, "
            f"which is {claimed!r}"
        )


def _unlike(
    row: Row, name: str, computed: float, relative: float, absolute: float = 0.0
) -> Iterator[str]:
    claimed = row.get(name)
    if claimed is None or not math.isclose(claimed, computed, rel_tol=relative, abs_tol=absolute):
        yield f"{image(row)}: {name} is {claimed!r} in {SAMPLES}, and {computed!r} computed again"


def _nearest_unlike(row: Row, name: str, found: Found, protected: Shield) -> Iterator[str]:
    if row.get(name) not in {protected.ids[k] for k in found.rows}:
        yield (
            f"{image(row)}: {name} is {row.get(name)!r} in {SAMPLES}, and "
            f"{protected.ids[found.rows[0]]!r} computed again"
        )
