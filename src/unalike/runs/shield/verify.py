"""`unalike shield verify`: recompute what a run says of its images, and compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unalike.runs.folder import LATENTS, RECORD, SAMPLES
from unalike.runs.progress import Progress
from unalike.runs.shield.brute_force import Found
from unalike.runs.shield.claims import differences_of_record, differences_of_rows, image
from unalike.runs.shield.distances import (
    DECODED_TOLERANCE,
    LATENT_TOLERANCE,
    differences_of_certified,
    differences_of_decoded,
    differences_of_latents,
    finished_inside,
    nearest_by_image,
)
from unalike.runs.shield.edited import UNEDITED, AfterEdit, finished_after_edits
from unalike.runs.shield.evidence import (
    Row,
    columns_of_set,
    feature_encoder,
    finished_image,
    in_order,
    latent_encoder,
    of_set,
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
from unalike.runs.shield.verification import Verification
from unalike.runs.summary import BOTH
from unalike.shields import Shield


def verify(
    run: Path,
    shield: Path | Sequence[Path],
    *,
    model: str | None = None,
    space: str | Sequence[str] | None = None,
    device: str = "auto",
    edits: bool = False,
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
        shield: folder of the protected set, or of each that the run had, in any order.
        model: a name, folder or hub id, where that of the run's record cannot be found: it holds no
            paths.
        space: the features of the set, with the folder they are in, as in "clip:FOLDER", where the
            set names it without its place; several where several do.
        device: for the network that encodes: "auto", or a device of torch.
        edits: measure the finished images after each of `unalike.runs.shield.edits` too, by
            comparing with every protected vector. What is inside then is reported, and no
            difference.
        progress: told the share of the work that is done.

    Returns:
        The result for the first set of the run, with those of the others as its `further`.

    Raises:
        StoreError: when a file of the run or the set is missing or damaged, the run had no
            protected set or another number of them, or the model is another.
        OptionError: when the model or the device is not there.

    Cost: O(m n d) for m images and n vectors, as matrix products, and one pass of the encoder for
    each image. With e edits 1 + e times as much.
    """
    record, rows = read_record(run), read_rows(run)
    sets = in_order(record, [Shield.open(f) for f in _listed(shield)])
    spaces, found = list(_listed(space)), []
    for number, protected in enumerate(sets, 1):
        kind = (protected.embedding or "").partition(":")[0]
        own = next((s for s in spaces if s.partition(":")[0] == kind), None)

        def tell(share: float, note: str = "", number: int = number) -> None:
            if progress is not None:
                progress((number - 1 + share) / len(sets), note)

        seen = of_set(record, number), [columns_of_set(row, number) for row in rows]
        found.append(
            _of_one_set(
                run, *seen, protected, model=model, space=own, device=device, edits=edits, tell=tell
            )
        )
    return replace(found[0], further=tuple(found[1:]))


def _of_one_set(
    run: Path,
    record: Mapping[str, Any],
    rows: Sequence[Row],
    protected: Shield,
    *,
    model: str | None,
    space: str | None,
    device: str,
    edits: bool,
    tell: Progress,
) -> Verification:
    """The result for one protected set: record and rows have what they say of that one in the
    place of the first.
    """
    kept = [row for row in rows if not row["refused"]]
    of_latents: dict[int, Found] = {}
    of_images: dict[int, Found] = {}
    after_edits: dict[str, AfterEdit] | None = None
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
                of_latents = nearest_by_image(rows_of, protected, LATENT_TOLERANCE)
                differences += differences_of_latents(kept, latents, of_latents, protected)
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
            share = UNEDITED if edits else 1.0
            tell(share * done / len(kept), f"{done} of {len(kept)} images")
        differences += differences_of_images(record, rows, found)
        slack = DECODED_TOLERANCE * protected.reach
        of_images = nearest_by_image(points, protected, DECODED_TOLERANCE, slack)
        if edits:
            after_edits = finished_after_edits(run, kept, encode, protected, tell)
    final, tolerance = (
        (of_images, DECODED_TOLERANCE) if protected.embedding else (of_latents, LATENT_TOLERANCE)
    )
    for row in kept:
        differences += differences_of_certified(row, final.get(row["index"]), protected, tolerance)
        finished = of_images.get(row["index"])
        differences += differences_of_decoded(row, finished, protected)
        if record["shield"].get("certified") == BOTH:
            differences += finished_inside(row, finished, protected)
    near = [f.distance < protected.reach for f in of_images.values()]
    return Verification(
        space=protected.space,
        inside=sum(near) if near else None,
        images=len(kept),
        certified=record["shield"].get("certified"),
        refused=len(rows) - len(kept),
        moved=sum(bool(row["certificate_moved"]) for row in kept),
        encoded=len(of_images),
        protected=len(protected),
        reach=protected.reach,
        margin=min(f.distance for f in final.values()) - protected.reach if final else None,
        differences=tuple(differences),
        edits=after_edits,
    )


def _listed(given: Path | str | Sequence[Any] | None) -> list[Any]:
    if given is None:
        return []
    return [given] if isinstance(given, Path | str) else list(given)


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
