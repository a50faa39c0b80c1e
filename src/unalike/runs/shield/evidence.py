"""Read a run of `unalike generate` for verification: record, table, latents and images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from unalike import tensorfile
from unalike.attach.diffusers.host import Host
from unalike.attach.diffusers.vae import encode_images
from unalike.attach.spaces import latent_model, latent_space
from unalike.errors import Literal, Option, OptionError, StoreError, named
from unalike.extractors.base import torch_device
from unalike.files import require_regular
from unalike.images import UNREADABLE, read_image
from unalike.pipelines.loading import load
from unalike.runs.folder import LATENTS, LATENTS_KIND, LATENTS_VERSION, SAMPLES, RunFolder
from unalike.runs.images import reason
from unalike.runs.record import file_record
from unalike.runs.samples import CERTIFICATE, SCHEMA, further
from unalike.runs.settings import DTYPES
from unalike.runs.shield.encoders import FeatureEncoder
from unalike.shields import Shield

Row = Mapping[str, Any]
"""A row of `samples.parquet`."""
Encode: TypeAlias = "Callable[[Image.Image], np.ndarray | str]"
"""An image into a point (d,), or why that is not possible."""
_NUMBER = (int, float)
_FIELDS: Mapping[str, Any] = {
    "command": str,
    "finished": bool,
    "model": {"name": str, "dtype": str},
    "prompts": [str],
    "num": int,
    "seed": int,
    "candidates": int,
    "steps": (int, type(None)),
    "guidance_scale": (*_NUMBER, type(None)),
    "batch_size": int,
    "methods": [{"name": str}],
    "methods_as_used": [{"name": str}],
    "memory": (dict, type(None)),
    "shield": {"name": str, "radius": _NUMBER, "on_violation": str},
    "compare": bool,
    "images": {"planned": int, "finished": int},
    "scores": {"guided": {"prompts": dict}, "unguided": (dict, type(None))},
    "guidance": [{"method": str, "share_of_predicted_image": list}],
}
"""Fields of a record that are compared, with their types."""


def read_record(run: Path) -> dict[str, Any]:
    """Read and check `run.json` of a run with a protected set.

    Raises:
        StoreError: where there is no such record, or the run had no protected set.
    """
    record = RunFolder(run, created=False).earlier_record()
    if record is None:
        raise StoreError(
            f"{str(run)!r} is no output folder of `unalike generate`: its run.json is missing or "
            "not one; check the path"
        )
    if not record.get("shield"):
        raise StoreError(
            f"the run {str(run)!r} was drawn without a protected set, so it has no certificates "
            "to verify"
        )
    wrong = _wrong(record, _FIELDS, "")
    if wrong:
        raise StoreError(
            f"run.json of the run {str(run)!r} has no usable {wrong}, as that of a run that ended "
            "has; draw the run again"
        )
    return record


def _wrong(value: Any, kind: Any, name: str) -> str:
    """Name of the first part of a document of another type than described; empty for none."""
    if isinstance(kind, Mapping):
        if not isinstance(value, dict):
            return name
        parts = [(value.get(key), k, f"{name}.{key}".lstrip(".")) for key, k in kind.items()]
    elif isinstance(kind, list):
        if not isinstance(value, list):
            return name
        parts = [(item, kind[0], name) for item in value]
    else:
        kinds = kind if isinstance(kind, tuple) else (kind,)
        counts = bool in kinds or not isinstance(value, bool)  # a bool is an int to Python
        return "" if isinstance(value, kinds) and counts else name
    return next((wrong for part in parts if (wrong := _wrong(*part))), "")


def recorded_sets(run: Path) -> list[Path]:
    """The folders in the current one that have the names of the run's protected sets.

    Raises:
        StoreError: where one is not there.
    """
    record = read_record(run)
    folders = [Path(str(of_set(record, k)["shield"].get("name"))) for k in _numbers(record)]
    for folder in folders:
        if not folder.is_dir():
            raise StoreError(
                named(
                    "the run {!r} names the protected set {!r}, which is not here; give its "
                    "folder, as in {folder=DIR}",
                    str(run),
                    str(folder),
                )
            )
    return folders


def of_set(record: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The record with what it says of the protected set of this number, from 1, as its `shield`."""
    sets = [record["shield"], *record.get("further_shields", [])]
    return {**record, "shield": {**record["shield"], **sets[number - 1]}}


def columns_of_set(row: Row, number: int) -> Row:
    """The row with the certificate of the protected set of this number in the place of the first,
    and that one in its place.
    """
    if number == 1:
        return row
    names = {name: further(name, number) for name in CERTIFICATE}
    other = {there: here for here, there in names.items()}
    return {{**names, **other}.get(name, name): value for name, value in row.items()}


def in_order(record: Mapping[str, Any], sets: Sequence[Shield]) -> list[Shield]:
    """Protected sets in the order in which the run has them, by their checksums.

    One set for a run of one is taken as it is: what differs is said of it.

    Raises:
        StoreError: for another number of sets, or one that the run does not have.
    """
    known = [of_set(record, k)["shield"].get("checksum") for k in _numbers(record)]
    if len(known) == len(sets) == 1:
        return list(sets)
    given = {shield.checksum: shield for shield in sets}
    if len(sets) != len(known) or set(given) != set(known):
        names = ", ".join(repr(of_set(record, k)["shield"].get("name")) for k in _numbers(record))
        raise StoreError(
            named(
                "the run was drawn with the protected sets {}, and others were given; give those "
                "folders, as in {folder=DIR}",
                names,
            )
        )
    return [given[checksum] for checksum in known]


def _numbers(record: Mapping[str, Any]) -> range:
    return range(1, 2 + len(record.get("further_shields", [])))


def read_rows(run: Path) -> list[Row]:
    """The rows of `samples.parquet`.

    Raises:
        StoreError: where it is missing or damaged, or holds no certificates.
    """
    import pyarrow.parquet as pq

    try:
        table = pq.read_table((run / SAMPLES).absolute())
    except (OSError, ValueError) as error:
        why = " ".join(str(error).replace(f"{run / SAMPLES}", "the file").split())
        raise StoreError(
            f"{SAMPLES} of the run {str(run)!r} is missing or damaged ({why}); use a backup"
        ) from error
    kinds = dict(zip(table.schema.names, table.schema.types, strict=True))
    missing = [field.name for field in SCHEMA if kinds.get(field.name) != field.type]
    if missing or table["index"].null_count:
        raise StoreError(
            f"{SAMPLES} of the run {str(run)!r} has no {', '.join(missing or ['index'])}, so it "
            "holds no certificates; draw the run again"
        )
    return table.to_pylist()


@dataclass(frozen=True)
class Latents:
    """The final latents of the images of a run.

    Attributes:
        rows: (m, d) float64.
        space: the latent space that the file names.
        rounding: how far one of them may be from what it was before it was rounded to the model's
            precision, as a share of its norm.
    """

    rows: np.ndarray
    space: str
    rounding: float


def read_latents(run: Path, kept: Sequence[Row], shape: tuple[int, ...] | None) -> Latents | None:
    """The final latents of the images, in their order; None where the file holds those of others.

    Args:
        run: output folder.
        kept: the rows of the images that were not refused.
        shape: of one latent; None for any.

    Raises:
        StoreError: where the file is missing or damaged, or has other numbers than finite ones.
    """
    if not kept:
        none = Latents(np.empty((0, 1)), "", 0.0)
        return none if not (run / LATENTS).exists() else None
    header, tensors = tensorfile.read(run / LATENTS, LATENTS_KIND, LATENTS_VERSION)
    latents, index = tensors.get("latents"), tensors.get("index")
    if (
        latents is None
        or index is None
        or len(latents) != len(index)
        or index.tolist() != [row["index"] for row in kept]
    ):
        return None
    if shape is not None and tuple(latents.shape[1:]) != shape:
        return None
    if not torch.isfinite(latents).all():
        raise StoreError(
            f"{LATENTS} of the run {str(run)!r} has NaN or infinite values, which no run writes; "
            "use a backup"
        )
    rows = latents.flatten(1).double().numpy()
    return Latents(rows, str(header.get("space")), torch.finfo(latents.dtype).eps)


def latent_encoder(
    record: Mapping[str, Any], model: str | None, device: str, protected: Shield
) -> tuple[Encode | None, dict[str, str]]:
    """A function that encodes an image into a latent of the run's model, None for a model without
    an encoder; and the class of the model and of its scheduler.

    Raises:
        OptionError: where the model cannot be found.
        StoreError: where it has another autoencoder than the set's.
    """
    name, dtype = model or record["model"]["name"], record["model"]["dtype"]
    try:
        pipe = load(name, dtype=getattr(torch, dtype) if dtype in DTYPES else torch.float32)
    except OptionError as error:
        raise OptionError(
            named(
                "the model of the run cannot be loaded: {}; give its folder or hub id, as in "
                "{model=FOLDER}",
                error,
            )
        ) from error
    own = latent_space(latent_model(pipe), protected.shape)
    if own != protected.space:
        raise StoreError(
            named(
                "the protected set is of {!r} and the latents of the model {!r} are of {!r}; give "
                "the model that the run was drawn with, as in {model=DIR}",
                protected.space,
                str(name),
                own,
            )
        )
    pipe = pipe.to(torch_device(device))

    def latent(image: Image.Image) -> np.ndarray | str:
        latents = encode_images(pipe, [image])
        if tuple(latents.shape[1:]) != protected.shape:
            return (
                f"the image is of another size, with a latent of shape {tuple(latents.shape[1:])} "
                f"and not {protected.shape}"
            )
        return latents.flatten().double().cpu().numpy()

    kinds = {"pipeline": type(pipe).__name__, "scheduler": type(pipe.scheduler).__name__}
    return (latent if hasattr(Host(pipe).part("vae"), "encode") else None), kinds


def feature_encoder(protected: Shield, space: str | None, device: str) -> Encode:
    """A function that encodes an image as the features of the set.

    Raises:
        OptionError: where their network cannot be found.
        StoreError: where they are others than the set's.
    """
    encoder = FeatureEncoder(space or str(protected.embedding), device=device, batch_size=1)
    if encoder.space != protected.space:
        raise StoreError(
            named(
                "the protected set is of {!r} and {!r} makes {!r}; give the features that it was "
                "built with, as in {}",
                protected.space,
                space or protected.embedding,
                encoder.space,
                Option("space", Literal("clip:FOLDER")),
            )
        )
    return lambda image: encoder.encode([image]).flatten().double().cpu().numpy()


def finished_image(run: Path, row: Row) -> Image.Image | str:
    """The finished image of a row, or a text that says why there is none."""
    path = run / row["image"]
    try:
        require_regular(path)  # reading a pipe would wait for ever
        if file_record(path)["sha256"] != row["image_sha256"]:
            return f"{path.name} is not the file that the run wrote: its SHA-256 is another"
    except (OSError, ValueError) as error:
        return f"{path.name} cannot be read ({reason(error, path)})"
    return read_image_file(path)


def read_image_file(path: Path) -> Image.Image | str:
    """An image that a run wrote, or a text that says why it cannot be read."""
    try:
        return read_image(path)
    except UNREADABLE as error:
        return f"{path.name} cannot be read ({reason(error, path)})"
