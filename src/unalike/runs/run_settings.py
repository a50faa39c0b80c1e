"""The settings of `unalike run`, checked before anything is loaded; torch is not imported."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

from unalike.errors import Literal, OptionError, named
from unalike.options import option
from unalike.runs.settings import DrawSettings

MOST_IMAGES = 10_000_000
LEAST_SHARD = 1 << 20


@dataclass(frozen=True, kw_only=True)
class RunSettings(DrawSettings):
    """The settings of `unalike run`, one field an option of the same name.

    Args:
        source: file with the prompts, or "-" for standard input; see `unalike.runs.rows`.
        wildcards: folder of word lists; prompts with `{red|blue}` or `__file__` are then one prompt
            an image.
        shard_size: bytes of a WebDataset shard; None for a file an image.

    The others are those of `DrawSettings`. A run that is in the output folder is gone on with.

    Raises:
        OptionError: for a value outside what is allowed.

    Example:
        >>> RunSettings(source=Path("prompts.csv"), num=4).num
        4
    """

    source: Path = option(
        MISSING,
        "Prompts: .txt .csv .tsv .jsonl .json .parquet, or - for standard input.",
        kind=Path,
    )
    wildcards: Path | None = option(
        None,
        "Fill in {red|blue} and, from the lists in this folder, __file__.",
        kind=Path,
        choices=(None,),
        example=Literal("DIR"),
    )
    shard_size: int | None = option(
        None,
        "Write WebDataset shards of about so many bytes instead of files.",
        kind=int,
        low=LEAST_SHARD,
        high=1 << 40,
        choices=(None,),
        example=1_000_000_000,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shard_size is not None and self.compare:
            raise OptionError(
                named(
                    "{compare} and {shard_size} are given, and shards hold guided images alone; "
                    "leave one of them out"
                )
            )
