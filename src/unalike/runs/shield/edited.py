"""Distances of edited images to a protected set, for `unalike shield verify` and `check`.

A certificate speaks of the finished image as it was written. What holds after an edit can only be
measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unalike.errors import OptionError, named
from unalike.runs.numbers import number
from unalike.runs.progress import Progress
from unalike.runs.shield.brute_force import nearest
from unalike.runs.shield.checked import Checked, checked
from unalike.runs.shield.edits import EDITS
from unalike.runs.shield.encoders import Encoder
from unalike.runs.shield.evidence import Encode, Row, finished_image
from unalike.runs.shield.latents import LatentFile
from unalike.runs.shield.sources import Source
from unalike.shields import Shield

UNEDITED = 1 / (1 + len(EDITS))
"""The share of the work that is done when all images are measured as they are."""


@dataclass(frozen=True)
class AfterEdit:
    """Images of a run or folder after one edit.

    Attributes:
        images: how many were measured.
        inside: how many of them are inside the protected set; None where none was measured.
        margin: the smallest distance of one of them to the surface of the balls, below 0 inside;
            None where none was measured.
    """

    images: int
    inside: int | None
    margin: float | None

    @classmethod
    def of(cls, margins: Sequence[float]) -> AfterEdit:
        """The summary of these margins, one an image.

        Example:
            >>> AfterEdit.of([0.5, -0.25]), AfterEdit.of([])
            (AfterEdit(images=2, inside=1, margin=-0.25),
            AfterEdit(images=0, inside=None, margin=None))
        """
        if not margins:
            return cls(0, None, None)
        return cls(len(margins), sum(margin < 0 for margin in margins), min(margins))

    def sentence(self, edit: str) -> str:
        """The result in words.

        Args:
            edit: the name of the edit.

        Example:
            >>> AfterEdit(16, 3, -0.52).sentence("jpeg80")
            'After jpeg80 (saved as JPEG of quality 80) 3 of 16 images are inside, one by 0.52'
        """
        after = f"After {edit} ({EDITS[edit].words})"
        if self.inside is None or self.margin is None:
            return f"{after} no image could be measured"
        verb = "is" if self.inside == 1 else "are"
        found = f"{after} {self.inside:,} of {self.images:,} images {verb} inside"
        if self.margin < 0:
            return f"{found}, one by {number(-self.margin)}"
        return f"{found}: the nearest is outside by {number(self.margin)}"


def finished_after_edits(
    run: Path, kept: Sequence[Row], encode: Encode | None, protected: Shield, tell: Progress
) -> dict[str, AfterEdit]:
    """The finished images of a run after each edit, compared with every protected vector.

    Images whose file is missing, changed or of another size are left out.

    Args:
        run: output folder of `unalike generate`.
        kept: the rows of the images that were not refused.
        encode: an image into a point of the set; None where that is not possible.
        protected: the set.
        tell: told the share of the work, from `UNEDITED` on.

    Cost: O(e m n d) for e edits of m images and n vectors, and e passes of the encoder for each
    image.
    """
    points: dict[str, list[np.ndarray]] = {name: [] for name in EDITS}
    if encode is not None:
        for done, row in enumerate(kept, 1):
            finished = finished_image(run, row) if row["image"] is not None else ""
            if isinstance(finished, Image.Image):
                for name, edit in EDITS.items():
                    point = encode(edit(finished))
                    if not isinstance(point, str):
                        points[name].append(point)
            share = UNEDITED + (1 - UNEDITED) * done / len(kept)
            tell(share, f"{done} of {len(kept)} images edited")
    return {name: AfterEdit.of(_margins(own, protected)) for name, own in points.items()}


def _margins(points: Sequence[np.ndarray], protected: Shield) -> list[float]:
    if not points:
        return []
    found = nearest(np.array(points), protected.vectors, relative=0.0)
    return [f.distance - protected.reach for f in found]


class EncoderOfEdits:
    """Encodes every image as it is and after each edit.

    Args:
        encoder: what encodes one; its attributes are those of this one.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.space = encoder.space
        self.shape = encoder.shape
        self.size = encoder.size
        self.embedding = encoder.embedding
        self.copy_distance = encoder.copy_distance
        self.copy_errors = encoder.copy_errors

    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        """The points (m, 1 + e, …): of the image itself, then after each of the e edits."""
        kinds = [list(images), *([edit(image) for image in images] for edit in EDITS.values())]
        return torch.stack([self._encoder.encode(kind) for kind in kinds], dim=1)


def checked_with_edits(shield: Shield, points: Tensor, names: Sequence[str]) -> list[Checked]:
    """Distances to the set of images as they are and after each edit.

    Args:
        shield: the set.
        points: (m, 1 + e, …) of an `EncoderOfEdits`.
        names: of the m images.

    Raises:
        OptionError: for points that are not finite.
    """
    own, *edited = (checked(shield, kind, names) for kind in points.unbind(dim=1))
    return [
        replace(image, edits=dict(zip(EDITS, after, strict=True)))
        for image, *after in zip(own, *edited, strict=True)
    ]


def checked_after_edits(found: Sequence[Checked]) -> dict[str, AfterEdit] | None:
    """The summary of each edit over all images; None where they were not edited."""
    if not all(image.edits for image in found):
        return None
    return {name: AfterEdit.of([image.edits[name].margin for image in found]) for name in EDITS}


def require_images_to_edit(sources: Sequence[Source | LatentFile]) -> None:
    """Make sure that all inputs are images.

    Raises:
        OptionError: for a file of latents.
    """
    for source in sources:
        if isinstance(source, LatentFile):
            raise OptionError(
                named(
                    "{edits=True} edits images, and {!r} holds latents; leave one of the two out",
                    str(source.path),
                )
            )
