"""What a scoring is asked to do, checked before anything is loaded. Neither torch nor numpy is
imported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from unalike.errors import OptionError
from unalike.extractors.table import parse


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """The settings of `unalike score`, one field an option of the same name.

    Args:
        folder: the images to score, or an output folder of `unalike generate`.
        reference: folder of real or protected images to compare them with.
        prompts: file that maps the images to prompts; None to take them from an output folder, if
            it is one.
        reference_prompts: the same for the reference.
        features: what to compare images by, a name of `unalike.extractors`.
        out: folder for the results; None for a new one named after the folder of images.
        overwrite: replace the results of an earlier scoring in that folder.
        seed: of the bootstrap, and of samples drawn where there are too many images for a figure.
        bootstrap: redraws of the intervals; 0 for none.
        k: the neighbour that ends a ball, for precision, recall, density and coverage.
        radius: report the share of images closer than this to the reference; in the unit of the
            features, which the report names.
        skip_bad: leave unreadable images out in place of refusing the folder.
        batch_size: images embedded at a time.
        device: "auto", or a device of torch such as "cuda:0".

    Raises:
        OptionError: for a value outside what is allowed.

    Example:
        >>> ScoreSettings(folder=Path("images"), radius=0.1)
        Traceback (most recent call last):
            ...
        unalike.errors.OptionError: radius is 0.1, and there is no reference to measure distances to; add reference, a folder of images
    """

    folder: Path
    reference: Path | None = None
    prompts: Path | None = None
    reference_prompts: Path | None = None
    features: str = "pixels"
    out: Path | None = None
    overwrite: bool = False
    seed: int = 0
    bootstrap: int = 1000
    k: int = 5
    radius: float | None = None
    skip_bad: bool = False
    batch_size: int = 32
    device: str = "auto"

    def __post_init__(self) -> None:
        parse(self.features)
        for name, least, example in (
            ("seed", 0, 0),
            ("bootstrap", 0, 1000),
            ("k", 1, 5),
            ("batch_size", 1, 32),
        ):
            value = getattr(self, name)
            if value < least:
                raise OptionError(
                    f"{name} is {value}; it must be a whole number of at least {least}, as in {name}={example}"
                )
        if self.seed >= 2**63:
            raise OptionError(f"seed is {self.seed}; it must be below 2**63, as in seed=0")
        if 0 < self.bootstrap < 100:
            raise OptionError(
                f"bootstrap is {self.bootstrap}; a 95% interval needs at least 100 redraws, as in bootstrap=1000, or none: 0"
            )
        if self.radius is not None and not (math.isfinite(self.radius) and self.radius > 0):
            raise OptionError(
                f"radius is {self.radius}; it must be a finite number above 0, as in radius=0.1"
            )
        if self.reference is None:
            for name, what in (
                ("radius", "to measure distances to"),
                ("reference_prompts", "that they could belong to"),
            ):
                if getattr(self, name) is not None:
                    raise OptionError(
                        f"{name} is {getattr(self, name)}, and there is no reference {what}; add reference, a folder of images"
                    )
