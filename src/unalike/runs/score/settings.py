"""Settings of a scoring, checked before anything is loaded. Neither torch nor numpy is
imported.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

from unalike.errors import Option, OptionError, named
from unalike.extractors.table import parse, spellings
from unalike.options import LARGEST_SEED, option, require_allowed


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
        seed: of the bootstrap, and of samples drawn where there are too many images for a score.
        bootstrap: redraws of the intervals; 0 for none.
        k: the neighbour that ends a ball, for precision, recall, density and coverage.
        radius: report the share of images closer than this to the reference; in the unit of the
            features, which the report names. None for the distance below which two images are
            copies, where that is known for the features.
        skip_bad: leave unreadable images out in place of refusing the folder.
        batch_size: images embedded at a time.
        device: "auto", or a device of torch such as "cuda:0".

    Raises:
        OptionError: for a value outside what is allowed.

    Example:
        >>> ScoreSettings(folder=Path("images"), radius=0.1)
        Traceback (most recent call last):
            ...
        unalike.errors.OptionError: radius is 0.1, and there is no reference to
        measure distances to; add its folder, as in reference=DIR
    """

    folder: Path = option(
        MISSING, "Images, also in folders below it, or an output folder of generate.", kind=Path
    )
    reference: Path | None = option(
        None, "Real or protected images to compare them with.", kind=Path, choices=(None,)
    )
    prompts: Path | None = option(
        None,
        "File → prompt: csv, tsv, parquet, json, jsonl or txt. [default: those of an output "
        "folder]",
        kind=Path,
        choices=(None,),
    )
    reference_prompts: Path | None = option(
        None, "The same for the reference.", kind=Path, choices=(None,)
    )
    features: str = option(
        "pixels", f"What to compare images by: {', '.join(spellings())}.", kind=str
    )
    out: Path | None = option(
        None,
        "Folder for the results. [default: a new one, named after DIR]",
        kind=Path,
        choices=(None,),
    )
    overwrite: bool = option(False, "Replace the earlier results in that folder.")
    seed: int = option(0, "Seed of the redraws.", low=0, high=LARGEST_SEED)
    bootstrap: int = option(
        1000, "Redraws of the 95% intervals; 0 for none.", low=0, high=1_000_000
    )
    k: int = option(
        5,
        "The neighbour that ends a ball, for precision, recall, density, coverage.",
        low=1,
        high=100_000,
    )
    radius: float | None = option(
        None,
        "Report the share of images closer than this to the reference. [default: the distance of "
        "copies, where that is known for the features]",
        above=0,
        high=1_000_000_000,
        choices=(None,),
        example=0.1,
    )
    skip_bad: bool = option(False, "Leave images out that cannot be read.")
    batch_size: int = option(32, "Images embedded at a time.", low=1, high=100_000)
    device: str = option("auto", "Where to compute: auto, cpu, cuda, cuda:1, mps.", kind=str)

    def __post_init__(self) -> None:
        require_allowed(self)
        parse(self.features)
        if 0 < self.bootstrap < 100:
            raise OptionError(
                named(
                    "{bootstrap} is {}; allowed: at least 100 redraws for a 95% interval, as in "
                    "{bootstrap=1000}, or 0 for none",
                    self.bootstrap,
                )
            )
        if self.reference is None:
            for name, what in (
                ("radius", "to measure distances to"),
                ("reference_prompts", "that they could belong to"),
            ):
                value = getattr(self, name)
                if value is not None:
                    raise OptionError(
                        named(
                            "{} is {}, and there is no reference {}; add its folder, as in "
                            "{reference=DIR}",
                            Option(name),
                            value,
                            what,
                        )
                    )
