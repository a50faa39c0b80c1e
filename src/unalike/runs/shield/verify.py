"""`unalike shield verify`: the certificates of a run, computed again from its images, its latents and the protected vectors alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from unalike import tensorfile
from unalike.attach.latents import encode_images
from unalike.attach.spaces import latent_model, latent_space
from unalike.errors import OptionError, StoreError, UnsupportedError
from unalike.pipelines.catalogue import load
from unalike.runs.folder import IMAGES, LATENTS, LATENTS_KIND, LATENTS_VERSION, SAMPLES, RunFolder
from unalike.runs.images import UNREADABLE, reason
from unalike.runs.sampler import on_device
from unalike.runs.settings import DTYPES
from unalike.runs.shield.brute_force import Found, nearest
from unalike.shields import Shield

LATENT_TOLERANCE, DECODED_TOLERANCE = 1e-9, 1e-3
"""By how much a distance may differ from the certificate's, as a share of it. Latents are on disk bit by bit; an image that is encoded in
another batch or on another device differs in the last bits of its latent."""
_COLUMNS = ("index", "image", "refused", "certificate_moved", "certificate_checksum", "certificate_decoded_distance")

Row = Mapping[str, Any]
"""A row of `samples.parquet`."""


@dataclass(frozen=True)
class Verification:
    """What became of computing the certificates of a run again.

    Attributes:
        images: how many images the run has.
        refused: how many images it refused; there is nothing of those to compute.
        moved: how many were moved out after the last step.
        encoded: how many images were encoded again and measured.
        protected: how many vectors the protected set has.
        margin: the smallest distance of a latent to the surface of the balls, as computed here; None where none was.
        differences: everything that is not as the run says, or inside a ball; empty where all is well.
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
    run: Path, shield: Path, *, model: str | None = None, device: str = "auto", progress: Callable[[float], None] | None = None
) -> Verification:
    """Computes every certificate of a run again and compares it with `samples.parquet`.

    Distances are found by comparing with every protected vector in float64, not through the search structure of the set. Those of the
    final latents must be the certificates' up to 1e-9, and none below the radius. The images are encoded again with the run's model,
    whose autoencoder must be the one of the set's space, and their distances must be the certificates' up to 1e-3.

    Args:
        run: output folder of `unalike generate`.
        shield: folder of the protected set.
        model: a name, folder or hub id, where that of the run's record cannot be found: it holds no paths.
        device: for the autoencoder: "auto", or a device of torch.
        progress: told the share of the work that is done.

    Raises:
        StoreError: when a file of the run or the set is missing or damaged, the run had no protected set, or the model is another.
        OptionError: when the model or the device is not there.
        UnsupportedError: for a protected set of an embedding.

    Cost: O(m n d) for m images and n vectors, as matrix products, and one pass of the encoder for each image.
    """
    record, rows, protected = _record(run), _rows(run), Shield.open(shield)
    if protected.embedding is not None:
        raise UnsupportedError(
            f"the protected set {shield.name!r} is of {protected.embedding} features and verify computes latents; give a set of latents"
        )
    kept = [row for row in rows if not row["refused"]]
    differences, margin, encoded = list(_of_set(record, rows, protected)), None, 0
    if not differences:  # with another set every distance is another
        differences += _of_rows(run, record, rows)
        latents = _latents(run, kept)
        if latents is None:
            differences.append(f"{LATENTS} does not hold one latent for each image, in the order of {SAMPLES}")
        else:
            found = nearest(latents, protected.vectors, relative=LATENT_TOLERANCE)
            margin = min((f.distance for f in found), default=math.inf) - protected.reach if found else None
            differences += [text for row, f in zip(kept, found, strict=True) for text in _of_latent(row, f, protected)]
        points = {}
        for row, point in _encoded(run, kept, protected, _pipeline(record, model, device, protected), progress):
            if isinstance(point, str):
                differences.append(f"{_name(row)}: {point}")
            else:
                points[row["index"]] = point
        encoded, slack = len(points), DECODED_TOLERANCE * protected.reach
        again = nearest(np.array(list(points.values())), protected.vectors, relative=DECODED_TOLERANCE, absolute=slack) if points else []
        measured = dict(zip(points, again, strict=True))
        differences += [text for row in kept if row["index"] in measured for text in _of_image(row, measured[row["index"]], protected)]
    moved = sum(bool(row["certificate_moved"]) for row in kept)
    return Verification(len(kept), len(rows) - len(kept), moved, encoded, len(protected), margin, tuple(differences))


def _record(run: Path) -> dict[str, Any]:
    record = RunFolder(run, created=False).earlier_record()
    if record is None:
        raise StoreError(f"{str(run)!r} is no output folder of `unalike generate`: its run.json is missing or not one; check the path")
    if not record.get("shield"):
        raise StoreError(f"the run {run.name!r} was drawn without a protected set, so it has no certificates to verify")
    return record


def _rows(run: Path) -> list[Row]:
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(run / SAMPLES)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).replace(str(run), run.name).split())
        raise StoreError(f"{SAMPLES} of the run {run.name!r} is missing or damaged ({why}); use a backup") from error
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise StoreError(f"{SAMPLES} of the run {run.name!r} has no {', '.join(missing)}, so it holds no certificates; draw the run again")
    return table.to_pylist()


def _latents(run: Path, kept: Sequence[Row]) -> np.ndarray | None:
    """The final latents (m, d) of the images; None where the file holds those of others."""
    if not kept:
        return np.empty((0, 1)) if not (run / LATENTS).exists() else None
    _, tensors = tensorfile.read(run / LATENTS, LATENTS_KIND, LATENTS_VERSION)
    latents, index = tensors.get("latents"), tensors.get("index")
    if latents is None or index is None or len(latents) != len(index) or index.tolist() != [row["index"] for row in kept]:
        return None
    return latents.flatten(1).double().numpy()


def _of_set(record: Mapping[str, Any], rows: Sequence[Row], protected: Shield) -> Iterator[str]:
    """What says that the run was drawn with another protected set."""
    for where, claimed in [("run.json", record["shield"].get("checksum")), *((_name(r), r["certificate_checksum"]) for r in rows)]:
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
        if row["refused"] and (row["image"] is not None or not row["certificate_distance"] < row["certificate_radius"]):
            yield f"{_name(row)}: it is said to be refused, and has an image or is outside"
        if not row["refused"] and row["image"] is None:
            yield f"{_name(row)}: it has no image"
    known = {row["image"] for row in rows}
    for path in sorted((run / IMAGES).glob("*")):
        if f"{IMAGES}/{path.name}" not in known:
            yield f"{IMAGES}/{path.name} is there and {SAMPLES} does not list it, so it has no certificate"


def _of_latent(row: Row, found: Found, protected: Shield) -> Iterator[str]:
    if found.distance < protected.reach:
        yield f"{_name(row)}: its latent is inside the protected set, {found.distance!r} from {protected.ids[found.rows[0]]!r}"
    yield from _unlike(row, "certificate_distance", found.distance, LATENT_TOLERANCE)
    yield from _unlike(row, "certificate_margin", found.distance - protected.reach, 0.0, LATENT_TOLERANCE * found.distance)
    yield from _nearest_unlike(row, "certificate_nearest", found, protected)
    for name, true in (("certificate_radius", protected.radius), ("certificate_space", protected.space)):
        if row.get(name) != true:
            yield f"{_name(row)}: {name} is {row.get(name)!r} in {SAMPLES}, and {true!r} in the protected set"


def _of_image(row: Row, found: Found, protected: Shield) -> Iterator[str]:
    slack = DECODED_TOLERANCE * protected.reach
    yield from _unlike(row, "certificate_decoded_distance", found.distance, DECODED_TOLERANCE, slack)
    yield from _nearest_unlike(row, "certificate_decoded_nearest", found, protected)
    claimed = row["certificate_decoded_distance"]
    if claimed is not None and row.get("certificate_decoded_inside") != (claimed < protected.reach):
        yield f"{_name(row)}: certificate_decoded_inside does not fit certificate_decoded_distance, which is {claimed!r}"


def _unlike(row: Row, name: str, computed: float, relative: float, absolute: float = 0.0) -> Iterator[str]:
    claimed = row.get(name)
    if claimed is None or not math.isclose(claimed, computed, rel_tol=relative, abs_tol=absolute):
        yield f"{_name(row)}: {name} is {claimed!r} in {SAMPLES}, and {computed!r} computed again"


def _nearest_unlike(row: Row, name: str, found: Found, protected: Shield) -> Iterator[str]:
    if row.get(name) not in {protected.ids[k] for k in found.rows}:
        yield f"{_name(row)}: {name} is {row.get(name)!r} in {SAMPLES}, and {protected.ids[found.rows[0]]!r} computed again"


def _pipeline(record: Mapping[str, Any], model: str | None, device: str, protected: Shield) -> Any:
    """The model of the run, on the device.

    Raises:
        OptionError: where it cannot be found.
        StoreError: where it has another autoencoder than the set's.
    """
    name, dtype = model or record["model"]["name"], record["model"]["dtype"]
    try:
        pipe = load(name, dtype=getattr(torch, dtype) if dtype in DTYPES else torch.float32)
    except OptionError as error:
        raise OptionError(f"the model of the run cannot be loaded: {error}. Give its folder or hub id with --model") from error
    own = latent_space(latent_model(pipe), protected.shape)
    if own != protected.space:
        raise StoreError(
            f"the protected set is of {protected.space!r} and the latents of the model {Path(name).name!r} are of {own!r}; give the model "
            "that the run was drawn with, as in --model DIR"
        )
    return on_device(pipe, device)


def _encoded(
    run: Path, kept: Sequence[Row], protected: Shield, pipe: Any, progress: Callable[[float], None] | None
) -> Iterator[tuple[Row, np.ndarray | str]]:
    """Each image that the run measured, encoded again (d,), or why it cannot be."""
    encodes = hasattr(getattr(pipe, "vae", None), "encode")
    for done, row in enumerate(kept, 1):
        if row["image"] is not None and encodes:
            yield row, _point(run / row["image"], protected, pipe)
        if progress is not None:
            progress(done / len(kept))


def _point(path: Path, protected: Shield, pipe: Any) -> np.ndarray | str:
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except UNREADABLE as error:
        return f"{path.name} cannot be read ({reason(error, path)})"
    latents = encode_images(pipe, [image])
    if tuple(latents.shape[1:]) != protected.shape:
        return f"{path.name} is of another size, with latents of shape {tuple(latents.shape[1:])} and not {protected.shape}"
    return latents.flatten().double().cpu().numpy()


def _name(row: Row) -> str:
    return f"image {row['index']}"
