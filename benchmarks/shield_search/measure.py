"""What is measured: the set, the trajectories and what is really within reach of them, then every
rival along every trajectory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.base import Progress, read_rows, write_rows
from benchmarks.shield_search.brute import Brute, Found, sample
from benchmarks.shield_search.latents import SetSize, encoded, shards
from benchmarks.shield_search.pictures import Kinds
from benchmarks.shield_search.results import (
    BUILDS,
    NPROBE,
    PICTURES,
    QUERIES,
    RADII,
    SPECTRUM,
    STEPS,
)
from benchmarks.shield_search.rivals import Rivals, timed
from benchmarks.shield_search.trajectories import Recorded, record
from benchmarks.shield_search.wide import measure_wide
from unalike import tensorfile
from unalike.shields.calibration import automatic_radius, nearest_distances
from unalike.shields.faiss import set_threads
from unalike.shields.vectors import Mapped, Vectors

SCRATCH = "UNALIKE_BENCH_DATA"
_TRUTH = ("benchmarks.truth", 1)


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Args:
        images: that are encoded, and rows in a file of the set.
        compared: vectors of the set that all rivals search.
        alone: vectors of the set that only ours searches.
        prompts: one for each trajectory.
        images: drawn together in a trajectory.
        steps: of a trajectory.
        factors: the radii of the compared set, as multiples of `radius_of`; the other set has that
            one.
        sampled: vectors whose nearest neighbours give the radius.
        wide: vectors of the set that are enlarged to the size of SDXL's latents.
        flat_every: the exhaustive index is measured at each so many steps of one trajectory of each
            radius.
        nprobe: cells that the approximate index searches.
    """

    pictures: SetSize
    compared: int = 300_000
    alone: int = 1_200_000
    prompts: tuple[str, ...] = ("cat", "woman running", "flag", "heart", "clock", "farmer")
    images: int = 8
    steps: int = 50
    factors: tuple[float, ...] = (0.5, 1.0, 1.25, 1.5)
    sampled: int = 1_000
    flat_every: int = 10
    wide: int = 20_000
    nprobe: tuple[int, ...] = NPROBE


FULL = Size(SetSize(Kinds()))
SMOKE = Size(
    SetSize(Kinds(glyphs=40, mosaics=8, leaves=4, crops=8), shard=500),
    compared=1_500,
    alone=3_000,
    prompts=("cat",),
    images=2,
    steps=6,
    factors=(1.0, 1.25),
    sampled=100,
    flat_every=3,
    wide=200,
    nprobe=(1, 2),
)


def scratch(folder: Path) -> Path:
    """Where the set and the trajectories are kept: `UNALIKE_BENCH_DATA` where that is set, else
    `data` in the folder of the results.
    """
    return Path(os.environ[SCRATCH]) if os.environ.get(SCRATCH) else folder / "data"


def run(folder: Path, size: Size, progress: Progress) -> None:
    """Measures what the folder lacks. All searches use as many threads as torch does.

    Cost: at full size 10 GB in the scratch folder, 8 GB of memory and about an hour.
    """
    set_threads(torch.get_num_threads())
    data = scratch(folder)
    base = encoded(data, size.pictures, _part(progress, 0, 0.1))
    write_rows(
        folder / PICTURES,
        [{"kind": kind, "count": count} for kind, count in size.pictures.kinds.counts().items()],
    )
    sets = [
        _prepared(folder, data, base, size, count, _part(progress, low, low + 0.3))
        for count, low in ((size.compared, 0.1), (size.alone, 0.4))
    ]
    settings = [(which, factor) for which in sets for factor in which.factors]
    for i, (which, factor) in enumerate(settings):
        progress(0.7 + 0.25 * i / len(settings))
        if not any(
            (row["vectors"], row["factor"]) == (which.vectors.count, factor)
            for row in read_rows(folder / STEPS)
        ):
            measure_radius(folder, which, factor)
    progress(0.95)
    compared = sets[0]
    measure_wide(folder, data, compared.vectors, size.wide, compared.recorded(1.0))
    progress(1.0)


@dataclass(frozen=True)
class Prepared:
    """A set with its searches, and what the clock needs none of: trajectories and what is within
    them are in files.

    Attributes:
        vectors: the set.
        rivals: its searches.
        radius: that of `radius_of`.
        factors: the radii that are measured, as multiples of it.
        data: the scratch folder.
        size: how much is measured.
    """

    vectors: Mapped
    rivals: Rivals
    radius: float
    factors: tuple[float, ...]
    data: Path
    size: Size

    def recorded(self, factor: float) -> Recorded:
        """The trajectories of a radius, drawn where the scratch folder lacks them."""
        path, size = self._file("trajectories", factor), self.size
        return record(
            path,
            self.rivals.ours(self.radius),
            factor * self.radius,
            size.prompts,
            images=size.images,
            steps=size.steps,
        )

    def truth(self, factor: float) -> list[list[Found]]:
        """What is within the radius at each step of each trajectory, found where the scratch folder
        lacks it.
        """
        return truth(self._file("truth", factor), Brute(self.vectors), self.recorded(factor))

    def _file(self, what: str, factor: float) -> Path:
        # By its radius: a set that is measured with another one needs trajectories of its own.
        return self.data / f"{what}-{self.vectors.count}-{factor * self.radius:.4f}.safetensors"


def _prepared(
    folder: Path, data: Path, base: Tensor, size: Size, count: int, progress: Progress
) -> Prepared:
    """Everything that takes long and is not timed, so that what is timed is timed in one go."""
    vectors = shards(data, base, count, size.pictures, _part(progress, 0, 0.2))
    if count == size.compared:
        measure_spectrum(folder, base, vectors)
    rivals = Rivals(vectors, data, size.nprobe if count == size.compared else ())
    factors = size.factors if count == size.compared else (1.0,)
    prepared = Prepared(
        vectors, rivals, radius_of(folder, vectors, size.sampled), factors, data, size
    )
    for i, factor in enumerate(factors):
        progress(0.4 + 0.6 * i / len(factors))
        prepared.truth(factor)
    return prepared


def _part(progress: Progress, low: float, high: float) -> Progress:
    return lambda share: progress(low + (high - low) * share)


def radius_of(folder: Path, vectors: Mapped, sampled: int) -> float:
    """Twice what `radius="auto"` gives: the 5% quantile of the distances of `sampled` vectors to
    their nearest others, copies aside.
    """
    rows = read_rows(folder / RADII)
    if not any(row["vectors"] == vectors.count for row in rows):
        own = sample(vectors.count, sampled, seed=1)
        found = nearest_distances(vectors.rows(own).astype(np.float64), vectors, own=own)
        rows += [
            {"vectors": vectors.count, "nearest": d, "nearest_fifty": mean}
            for d, mean in found.tolist()
        ]
        write_rows(folder / RADII, rows)
    distances = [
        [row["nearest"], row["nearest_fifty"]] for row in rows if row["vectors"] == vectors.count
    ]
    return 2 * automatic_radius(torch.tensor(distances, dtype=torch.float64)).radius


def measure_spectrum(folder: Path, base: Tensor, vectors: Vectors) -> None:
    """The share of the variance by principal components, of as many encoded images as of vectors
    of the set.
    """
    if (folder / SPECTRUM).is_file():
        return
    chosen = sample(vectors.count, len(base), seed=2)
    rows = []
    for name, latents in (("encoded", base), ("set", torch.from_numpy(vectors.rows(chosen)))):
        centred = latents.float() - latents.float().mean(0)
        gram = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
        variance = torch.linalg.eigvalsh(gram.double()).flip(0).clamp_min(0)
        rows += [
            {"latents": name, "component": i + 1, "share": s}
            for i, s in enumerate((variance / variance.sum()).tolist())
        ]
    write_rows(folder / SPECTRUM, rows)


def measure_radius(folder: Path, which: Prepared, factor: float) -> None:
    """Times every search of a set along the trajectories of a radius."""
    recorded, there, rivals = which.recorded(factor), which.truth(factor), which.rivals
    setting = {"vectors": which.vectors.count, "factor": factor, "radius": recorded.radius}
    queries = [
        {
            **setting,
            "trajectory": t,
            "prompt": prompt,
            "step": s,
            "image": i,
            "there": len(own.within[i]),
            "distance": float(own.distance[i]),
        }
        for t, prompt in enumerate(recorded.prompts)
        for s, own in enumerate(there[t])
        for i in range(which.size.images)
    ]
    taken = timed(rivals, which.radius, recorded, there, flat_every=which.size.flat_every)
    write_rows(folder / BUILDS, rivals.builds(read_rows(folder / BUILDS)))
    write_rows(folder / QUERIES, [*read_rows(folder / QUERIES), *queries])
    write_rows(folder / STEPS, [*read_rows(folder / STEPS), *({**setting, **row} for row in taken)])


def truth(path: Path, brute: Brute, recorded: Recorded) -> list[list[Found]]:
    """What each step of each trajectory really has within the radius, found by brute force once and
    kept in the file.
    """
    trajectories, steps, images, d = recorded.x0.shape
    if not path.is_file():
        found = brute.scan(recorded.x0.view(-1, d).double().numpy(), recorded.radius)
        tensors = {
            "counts": torch.tensor([len(own) for own in found.within]),
            "within": torch.from_numpy(np.concatenate(found.within)),
            "nearest": torch.from_numpy(found.nearest),
            "distance": torch.from_numpy(found.distance),
        }
        tensorfile.write(path, *_TRUTH, {"radius": recorded.radius}, tensors)
    tensors = tensorfile.read(path, *_TRUTH)[1]
    within = [part.numpy() for part in tensors["within"].split(tensors["counts"].tolist())]
    nearest, distance = tensors["nearest"].numpy(), tensors["distance"].numpy()
    at = [slice(first, first + images) for first in range(0, len(within), images)]
    found = [Found(within[s], nearest[s], distance[s]) for s in at]
    return [found[t * steps : (t + 1) * steps] for t in range(trajectories)]
