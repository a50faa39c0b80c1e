"""A protected set: balls that no image may end in."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from unalike.errors import OptionError, ShieldError, StoreError, named, shown
from unalike.options import fault_of_text
from unalike.shields.bounds import Index
from unalike.shields.calibration import automatic_radius, protected_distances
from unalike.shields.dense import Dense
from unalike.shields.exit import directions_out, ray_exit
from unalike.shields.layered import Layered
from unalike.shields.manifest import require_radius
from unalike.shields.names import Column
from unalike.shields.points import Points
from unalike.shields.search import Search
from unalike.shields.store import open_folder
from unalike.shields.trajectory import Trajectory
from unalike.shields.writer import Writer
from unalike.tensors import real_numbers

_MARGIN = 1e-6
_ATTEMPTS = 64
_MOST_AROUND = 1024
_BLOCK_VALUES = 1 << 22


class Shield:
    """A ball of one radius around each protected point, searched exactly.

    `Shield(latents, …)` is a set in memory; `Shield.open(folder)` one on disk, of which a tenth of
    the size is kept in memory at most.

    Args:
        latents: (m, …) protected clean latents, or points of an embedding space (m, d); at least
            one.
        space: names the space they live in; only images of the same space can be checked.
        radius: of every ball, in the units of the space; a point at exactly this distance is
            outside. "auto" measures it on the set (see
            `unalike.shields.calibration.automatic_radius`).
        ids: a name for each, to appear in certificates; "0", "1", … unless given.

    Attributes:
        space, radius, ids: as given.
        shape: of one point, (…).
        rounding: how far at most a stored point is from the one it was made of: 0 unless it was
            rounded to store it. What is kept out of are balls of `reach = radius + rounding`, so
            that the points before rounding are protected too.
        checksum: of the set; equal for equal points, ids and radius.
        embedding: how images are turned into points, as `unalike score --features` spells it; None
            for latents.
        radius_source: how "auto" found the radius; None where it was given.

    Raises:
        OptionError: for no latents, a radius that is not a finite number above 0, an empty space
            name, ids that do not fit, and "auto" with nothing to measure it on.
        NumericsError: for NaN or infinite latents.

    Example:
        >>> shield = Shield(torch.zeros(1, 2), space="model/2", radius=1.0, ids=["logo"])
        >>> latents, moved = shield.move_out(torch.tensor([[0.5, 0.0], [3.0, 0.0]]))
        >>> moved, bool((latents.norm(dim=1) >= 1).all())
        (tensor([ True, False]), True)
    """

    def __init__(
        self,
        latents: Tensor | Points,
        *,
        space: str,
        radius: float | str,
        ids: Sequence[str] | None = None,
    ) -> None:
        points = latents if isinstance(latents, Points) else Points.of(latents)
        radius = radius if radius == "auto" else require_radius(radius)
        fault = fault_of_text(space) if isinstance(space, str) else "is no text"
        if fault:
            raise OptionError(
                f"space is {shown(space)}, which {fault}; give its name, as "
                "shield_from_images(pipe, images, radius) takes it from the model"
            )
        count = points.vectors.count
        if ids is not None and not isinstance(ids, Column):
            ids = _texts(ids)
        if ids is not None and len(ids) != count:
            raise OptionError(
                f"ids has {len(ids)} entries for {count} latents; give one for each, or None"
            )
        self.shape, self.vectors = points.shape, points.vectors
        self.rounding, self.embedding = points.rounding, points.embedding
        self.radius_source = points.radius_source
        if radius == "auto":
            found = automatic_radius(protected_distances(self.vectors))
            radius = require_radius(found.radius)
            self.radius_source = {"method": "auto", **found.explanation}
        self.space = space
        self.radius = radius
        self.ids: Sequence[str] = [str(i) for i in range(count)] if ids is None else ids
        self.checksum = points.checksum or self._digest()
        # An index that an earlier release made of vectors of an unusual size proves nothing.
        self._index = points.index if points.index and points.index.sound else None
        self._searches: dict[torch.device, Search] = {}

    def __len__(self) -> int:
        return self.vectors.count

    def __repr__(self) -> str:
        return f"Shield({len(self)} balls of radius {self.radius:g} in {self.space})"

    def summary(self) -> dict[str, Any]:
        """Facts of the set for a report, ready for JSON.

        Size, space, radius and how it was found, rounding, checksum.
        """
        source = dict(self.radius_source) if self.radius_source else None
        facts = {
            "size": len(self),
            "space": self.space,
            "radius": self.radius,
            "radius_source": source,
        }
        return {**facts, "rounding": self.rounding, "checksum": self.checksum}

    @property
    def reach(self) -> float:
        """`radius + rounding`: the distance that images keep from every stored point."""
        return self.radius + self.rounding

    def _digest(self) -> str:
        digest = hashlib.sha256(f"{self.space} {self.radius!r} {self.rounding!r}\n".encode())
        digest.update("\n".join(self.ids).encode())
        for _, block in self.vectors.blocks():
            digest.update(np.ascontiguousarray(block).data)
        return digest.hexdigest()

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, check: bool = True) -> Self:
        """Open the protected set in a folder; the vectors stay on disk.

        `save` or `unalike shield build` wrote it.

        Args:
            folder: where it is.
            check: read all vectors once and compare their checksums.

        Raises:
            StoreError: when there is none, it is not finished, or anything of it is missing or
                damaged.

        Cost: with `check` one pass over all files, else over all but the vectors.
        """
        opened = open_folder(Path(folder), check=check)
        manifest = opened.manifest
        index = Index.from_tensors(opened.index)
        if len(index) != manifest.count or len(index.contraction.mean) != manifest.dimension:
            raise StoreError(
                f"the protected set {str(folder)!r} is damaged: its search index is of another "
                "set; build it again"
            )
        points = Points(
            opened.vectors,
            manifest.shape,
            rounding=manifest.rounding,
            embedding=manifest.embedding,
            radius_source=manifest.radius_source,
            checksum=manifest.checksum,
            index=index,
        )
        return cls(points, space=manifest.space, radius=manifest.radius, ids=opened.ids)

    def save(self, folder: str | os.PathLike[str], *, dtype: str = "float32") -> None:
        """Write the set and its search index into a new or empty folder.

        Equal points are kept once.

        Args:
            folder: where to.
            dtype: "float32", or "float16" for half the room and balls that are larger by the
                rounding.

        Raises:
            OptionError: for two points with one id.
            StoreError: when the folder holds something else, or cannot be written.
        """
        if len(set(self.ids)) < len(self.ids):
            twice = next(name for name, count in Counter(self.ids).items() if count > 1)
            raise OptionError(
                f"ids has {twice!r} more than once, and a set on disk tells its points by them; "
                "give each point an id of its own"
            )
        settings: dict[str, Any] = {
            "space": self.space,
            "shape": self.shape,
            "dtype": dtype,
            "embedding": self.embedding,
        }
        with Writer.begin(Path(folder), **settings) as writer:
            for first, block in self.vectors.blocks():
                names = [self.ids[i] for i in range(first, first + len(block))]
                new = [i for i, name in enumerate(names) if name not in writer.done]
                writer.add(torch.from_numpy(np.array(block[new])), [names[i] for i in new])
            source = dict(self.radius_source) if self.radius_source else None
            writer.finish(radius=self.radius, radius_source=source, rounding=self.rounding)

    def use(self, search: Search) -> None:
        """Set the search to use from now on, in place of the shield's own choice.

        Raises:
            OptionError: for an approximate search, whose misses would make every certificate
                worthless, and one of other vectors.
        """
        if not search.exact:
            raise OptionError(
                f"search is a {type(search).__name__}, which can miss protected points, so that "
                "nothing could be guaranteed; allowed: an exact search, as in "
                "shield.use(Layered(shield.vectors, index))"
            )
        if search.vectors is not self.vectors:
            raise OptionError(
                "search is of other vectors than the shield's; make it of shield.vectors"
            )
        self._searches = dict.fromkeys((torch.device("cpu"), torch.device("cuda")), search)

    def search(self, device: torch.device | None = None) -> Search:
        """The exact search of the set for queries on this device.

        A GPU holds the vectors itself where they fit.
        """
        device = device if device is not None and device.type == "cuda" else torch.device("cpu")
        if device not in self._searches:
            self._searches[device] = (
                Layered(self.vectors, self._index)
                if self._index is not None and device.type == "cpu"
                else Dense(self.vectors, device)
            )
        return self._searches[device]

    def trajectory(self, space: str, device: torch.device | None = None) -> Trajectory:
        """The protected regions, for the predictions of one run in this space.

        Raises:
            StoreError: when the shield is of another space.
        """
        if space != self.space:
            raise StoreError(
                named(
                    "{shield} protects latents of {!r} and this model makes {!r}; give a set of "
                    "this model's autoencoder and size, as `shield_from_images` and `unalike "
                    "shield build` make it",
                    self.space,
                    space,
                )
            )
        return Trajectory(self.search(device), self.reach)

    def nearest(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Index (B,) of the nearest protected point and its exact distance (B,) float64.

        For latents (B, …).

        Raises:
            OptionError: for latents of another shape.
            NumericsError: for latents with NaN or infinity, which are nowhere.
        """
        rows = self._rows(latents)
        index, distance = self.search(latents.device).nearest(rows)
        return torch.from_numpy(index), torch.from_numpy(distance)

    def inside(self, latents: Tensor) -> Tensor:
        """Find the latents (B, …) that lie in a ball: (B,) bool, on their device.

        Raises:
            OptionError: for latents of another shape.
            NumericsError: for latents with NaN or infinity, which are neither inside nor outside.
        """
        rows = self._rows(latents)
        found = self.search(latents.device).within(rows, self.reach)
        return torch.tensor(
            [len(rows) > 0 for rows in found], dtype=torch.bool, device=latents.device
        )

    def move_out(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Move latents (B, …) out of all balls; also returns which were moved (B,).

        A latent inside leaves along the ray with the nearest exit of those that `directions_out`
        tries; overlapping balls are walked through to the end of their union. The result is checked
        after rounding to the latents' own precision, and pushed further where that rounding led
        back inside. Latents outside are returned bit by bit.

        Cost: for each latent that is inside, searches within growing distances until the exit lies
        in the searched part.

        Raises:
            OptionError, NumericsError: as `inside` does.
            ShieldError: when the way out leads beyond what the precision of the latents can
                express.
        """
        moved = self.inside(latents)
        if not latents.is_floating_point():
            raise OptionError(
                f"latents is {latents.dtype}, which cannot express a way out; give floats, as in "
                "latents.float()"
            )
        if not moved.any():
            return latents, moved
        rows, result = self._rows(latents), latents.clone()
        for i in moved.nonzero().flatten().tolist():
            result[i] = self._outside(rows[i], latents[i])
        return result, moved

    def _outside(self, x: np.ndarray, like: Tensor) -> Tensor:
        search, margin = self.search(like.device), _MARGIN
        for _ in range(_ATTEMPTS):
            placed = self._exit(search, x, self.reach * (1 + margin)).view(like.shape).to(like)
            if torch.isfinite(placed.float()).all() and not len(
                search.within(self._rows(placed[None]), self.reach)[0]
            ):
                return placed
            margin *= 2
        raise ShieldError(
            f"a latent in {str(like.dtype).removeprefix('torch.')} could not be placed outside "
            f"balls of radius {self.radius:g}: numbers of that precision end before the way out "
            "does, or are further apart than it is long; run the pipeline in float32"
        )

    def _exit(self, search: Search, x: np.ndarray, radius: float) -> Tensor:
        """The nearest exit found on a ray from x (d,), in no ball of this radius.

        A ball that covers a point of the ray up to `walked` has its centre within `radius + walked`
        of x, so an exit up to there is one.
        """
        point, walked = torch.from_numpy(x), radius
        around = search.within(x[None], radius)[0]
        around = around[np.argsort(search.distances(x, around), kind="stable")]
        directions = directions_out(
            point, torch.from_numpy(self.vectors.rows(around[:_MOST_AROUND])), radius
        )
        while True:
            near = search.within(x[None], radius + walked)[0]
            exits = ray_exit(point, directions, self._blocks(near), radius)
            best = int(exits.argmin())
            if exits[best] <= walked or len(near) == len(self):
                return point + exits[best] * directions[best]
            walked *= 2

    def _blocks(self, rows: np.ndarray) -> Iterator[Tensor]:
        size = max(1, _BLOCK_VALUES // self.vectors.dimension)
        for part in np.split(rows, range(size, len(rows), size)):
            yield torch.from_numpy(self.vectors.rows(part))

    def _rows(self, latents: Tensor) -> np.ndarray:
        if not isinstance(latents, Tensor):
            raise OptionError(
                f"latents is a {type(latents).__name__}; allowed: a tensor (B, …) of real numbers"
            )
        numbers = real_numbers("latents", latents)
        if latents.ndim < 2 or tuple(latents.shape[1:]) != self.shape:
            raise OptionError(
                f"latents have shape {tuple(latents.shape[1:])} and the protected ones "
                f"{self.shape}; they must be of one space"
            )
        return numbers.flatten(1).to(device="cpu", dtype=torch.float64).numpy()


def _texts(ids: Any) -> list[str]:
    """The ids of a set as texts that can be written to a file."""
    if not isinstance(ids, Iterable):
        raise OptionError(f"ids is {shown(ids)}; allowed: a text for each latent, or None")
    texts = [str(name) for name in ids]
    for text in texts:
        if text and fault_of_text(text) not in (None, "is empty"):
            raise OptionError(
                f"ids has {shown(text)}, which {fault_of_text(text)}; give names that can be "
                "written as text"
            )
    return texts
