"""What a run of `unalike generate` left as evidence: its record, its table, its latents, and its
images encoded again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from unalike import tensorfile
from unalike.attach.diffusers.vae import encode_images
from unalike.attach.spaces import latent_model, latent_space
from unalike.errors import OptionError, StoreError
from unalike.images import UNREADABLE, read_image
from unalike.pipelines.loading import load
from unalike.runs.folder import LATENTS, LATENTS_KIND, LATENTS_VERSION, SAMPLES, RunFolder
from unalike.runs.images import reason
from unalike.runs.pipeline import on_device
from unalike.runs.progress import Progress
from unalike.runs.record import file_record
from unalike.runs.settings import DTYPES
from unalike.runs.shield.encoders import FeatureEncoder
from unalike.shields import Shield

Row = Mapping[str, Any]
"""A row of `samples.parquet`."""
Encode: TypeAlias = "Callable[[Image.Image], np.ndarray | str]"
"""An image into a point (d,), or why that is not possible."""
_COLUMNS = (
    "index",
    "image",
    "image_sha256",
    "refused",
    "certificate_moved",
    "certificate_checksum",
    "certificate_decoded_distance",
)


def read_record(run: Path) -> dict[str, Any]:
    """What `run.json` says of a run with a protected set.

    Raises:
        StoreError: where there is no such record, or the run had no protected set.
    """
    record = RunFolder(run, created=False).earlier_record()
    if record is None:
        raise StoreError(
            f"{str(run)!r} is no output folder of `unalike generate`: its run.json is missing or not one; check the path"
        )
    if not record.get("shield"):
        raise StoreError(
            f"the run {str(run)!r} was drawn without a protected set, so it has no certificates to verify"
        )
    return record


def recorded_set(run: Path) -> Path:
    """The protected set of a run by its name in its record, in the current folder: records hold no
    paths.

    Raises:
        StoreError: where it is not there.
    """
    folder = Path(str(read_record(run)["shield"].get("name")))
    if not folder.is_dir():
        raise StoreError(
            f"the run {str(run)!r} names the protected set {str(folder)!r}, which is not here; give its folder with --shield DIR"
        )
    return folder


def read_rows(run: Path) -> list[Row]:
    """The rows of `samples.parquet`.

    Raises:
        StoreError: where it is missing or damaged, or holds no certificates.
    """
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(run / SAMPLES)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).replace(f"{run / SAMPLES}", "the file").split())
        raise StoreError(
            f"{SAMPLES} of the run {str(run)!r} is missing or damaged ({why}); use a backup"
        ) from error
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise StoreError(
            f"{SAMPLES} of the run {str(run)!r} has no {', '.join(missing)}, so it holds no certificates; draw the run again"
        )
    return table.to_pylist()


def read_latents(
    run: Path, kept: Sequence[Row], shape: tuple[int, ...] | None
) -> np.ndarray | None:
    """The final latents (m, d) of the images, in their order; None where the file holds those of
    others.

    Args:
        run: output folder.
        kept: the rows of the images that were not refused.
        shape: of one latent; None for any.

    Raises:
        StoreError: where the file is missing or damaged, or has other numbers than finite ones.
    """
    if not kept:
        return np.empty((0, 1)) if not (run / LATENTS).exists() else None
    _, tensors = tensorfile.read(run / LATENTS, LATENTS_KIND, LATENTS_VERSION)
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
            f"{LATENTS} of the run {str(run)!r} has NaN or infinite values, which no run writes; use a backup"
        )
    return latents.flatten(1).double().numpy()


def latent_encoder(
    record: Mapping[str, Any], model: str | None, device: str, protected: Shield
) -> Encode | None:
    """What turns an image into a latent of the run's model; None for one without an encoder.

    Raises:
        OptionError: where the model cannot be found.
        StoreError: where it has another autoencoder than the set's.
    """
    name, dtype = model or record["model"]["name"], record["model"]["dtype"]
    try:
        pipe = load(name, dtype=getattr(torch, dtype) if dtype in DTYPES else torch.float32)
    except OptionError as error:
        raise OptionError(
            f"the model of the run cannot be loaded: {error}. Give its folder or hub id with --model"
        ) from error
    own = latent_space(latent_model(pipe), protected.shape)
    if own != protected.space:
        raise StoreError(
            f"the protected set is of {protected.space!r} and the latents of the model {str(name)!r} are of {own!r}; give the model "
            "that the run was drawn with, as in --model DIR"
        )
    pipe = on_device(pipe, device)

    def latent(image: Image.Image) -> np.ndarray | str:
        latents = encode_images(pipe, [image])
        if tuple(latents.shape[1:]) != protected.shape:
            return f"the image is of another size, with a latent of shape {tuple(latents.shape[1:])} and not {protected.shape}"
        return latents.flatten().double().cpu().numpy()

    return latent if hasattr(getattr(pipe, "vae", None), "encode") else None


def feature_encoder(protected: Shield, space: str | None, device: str) -> Encode:
    """What turns an image into the features of the set.

    Raises:
        OptionError: where their network cannot be found.
        StoreError: where they are others than the set's.
    """
    encoder = FeatureEncoder(space or str(protected.embedding), device=device, batch_size=1)
    if encoder.space != protected.space:
        raise StoreError(
            f"the protected set is of {protected.space!r} and {space or protected.embedding!r} makes {encoder.space!r}; give the features "
            "that it was built with, as in --space clip:FOLDER"
        )
    return lambda image: encoder.encode([image]).flatten().double().cpu().numpy()


def encoded(
    run: Path, kept: Sequence[Row], encode: Encode, progress: Progress | None
) -> Iterator[tuple[int, np.ndarray | str]]:
    """The number of each image and its point (d,), or why there is none."""
    for done, row in enumerate(kept, 1):
        if row["image"] is not None:
            yield row["index"], _point(run / row["image"], row["image_sha256"], encode)
        if progress is not None:
            progress(done / len(kept), f"{done} of {len(kept)} images")


def _point(path: Path, sha256: str | None, encode: Encode) -> np.ndarray | str:
    try:
        if file_record(path)["sha256"] != sha256:
            return f"{path.name} is not the file that the run wrote: its SHA-256 is another"
        image = read_image(path)
    except UNREADABLE as error:
        return f"{path.name} cannot be read ({reason(error, path)})"
    return encode(image)
