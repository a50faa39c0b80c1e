"""SSCD: descriptors by which copies of an image are found, edited ones too."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import torch
from torch import Tensor

from unalike.errors import Literal, Option, OptionError, StoreError, named
from unalike.extractors.base import Extractor
from unalike.extractors.dinov2 import MEAN, STD
from unalike.extractors.resizing import squared

SIDE = 320
COPY = 0.5**0.5
"""The distance below which two images are copies, with 90% precision: a cosine of 0.75 for
`sscd_disc_mixup` on the DISC data, as its authors state it.
"""


class Sscd(Extractor):
    """The descriptor of SSCD, a unit vector: copies of an image are near each other, also where one
    is cropped, blurred or written over.

    Two images are taken for copies where their cosine is above 0.75, that is at a distance below
    0.71 (`COPY`).

    Source: Pizzi et al. 2022 (arXiv:2202.10261); the TorchScript files of
    facebookresearch/sscd-copy-detection, with its preprocessing `skew_320`. Their licence is CC-NC
    4.0.

    Args:
        source: the TorchScript file, such as `sscd_disc_mixup.torchscript.pt`. Such a file is a
            program: load none that you do not trust.
        device, batch_size: as for `Extractor`.

    Raises:
        OptionError: without a file, or for one that is not there.
        StoreError: for a file that is no TorchScript program.

    Cost: one pass of a ResNet-50 an image.
    """

    name = "sscd"
    resizing = f"resized to {SIDE}×{SIDE} (bicubic); other shapes than a square are squeezed"
    copy_distance = COPY
    copy_errors = "with a precision of 90% on the DISC data, as the authors of SSCD state"

    def __init__(
        self, source: str | None = None, *, device: str = "auto", batch_size: int = 32
    ) -> None:
        file = Path(source or "")
        if not file.is_file():
            raise OptionError(
                named(
                    "{features} is {!r}, and there is no such file; fetch a TorchScript file of "
                    "SSCD (github.com/facebookresearch/sscd-copy-detection) and give it, as in {}",
                    f"sscd:{source}" if source else "sscd",
                    Option("features", Literal("sscd:sscd_disc_mixup.torchscript.pt")),
                )
            )
        held = torch.nn.ModuleList([_program(file)])  # a program by itself cannot be frozen
        super().__init__(held, device=device, batch_size=batch_size)
        self.basis = f"copy-detection descriptors of SSCD ({file.name}), compared by their cosine"
        with file.open("rb") as f:
            self._digest = hashlib.file_digest(f, "sha256").hexdigest()[:10]

    @property
    def fingerprint(self) -> str:
        """Name and digits of the file, since a program may hold its weights as constants."""
        return f"{self.name}/TorchScript-{self._digest}"

    def embed(self, images: Tensor) -> Tensor:
        """The descriptors of the batch."""
        pixels = squared(images, SIDE)
        mean, std = (torch.tensor(v).to(pixels).view(3, 1, 1) for v in (MEAN, STD))
        found = self.model[0]((pixels - mean) / std)
        return found / found.norm(dim=1, keepdim=True).clamp_min(torch.finfo(found.dtype).tiny)


def _program(file: Path) -> torch.nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as a whole
            return torch.jit.load(str(file), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise StoreError(
            named(
                "the file {!r} is no TorchScript program ({}); give one of SSCD, as in {}",
                str(file),
                " ".join(str(error).split())[:200],
                Option("features", Literal("sscd:sscd_disc_mixup.torchscript.pt")),
            )
        ) from error
