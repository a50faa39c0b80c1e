"""Settings of the commands of `unalike memory`, checked before anything is read; torch is not
imported.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass
from pathlib import Path

from unalike.errors import Literal, Option, OptionError, named
from unalike.options import option, require_allowed
from unalike.runs.settings import as_texts

_WHOLE = re.compile(r"-?[0-9]{1,40}")


@dataclass(frozen=True, kw_only=True)
class InspectSettings:
    """The settings of `unalike memory inspect`, one field an option of the same name.

    Args:
        file: the memory.

    Raises:
        OptionError: for a value outside what is allowed.

    Example:
        >>> InspectSettings(file=Path("cats.memory")).file.name
        'cats.memory'
    """

    file: Path = option(MISSING, "A memory.", kind=Path)

    def __post_init__(self) -> None:
        require_allowed(self)


@dataclass(frozen=True, kw_only=True)
class SearchSettings(InspectSettings):
    """The settings of `unalike memory search`, one field an option of the same name.

    Args:
        file: the memory.
        text: words that the prompts have all of, in any case and order.
        num: the most samples to show.

    Raises:
        OptionError: for a value outside what is allowed.

    Example:
        >>> SearchSettings(file=Path("cats.memory"), text="black cat").num
        20
    """

    text: str = option(
        MISSING, "Words that the prompt has all of.", kind=str, example="black cat", paths=False
    )
    num: int = option(20, "Show at most so many samples, the newest first.", low=1, high=10**7)


@dataclass(frozen=True, kw_only=True)
class RemoveSettings(InspectSettings):
    """The settings of `unalike memory remove`, one field an option of the same name.

    Samples that fit all that is given are removed.

    Args:
        file: the memory.
        text: remove samples with one of these prompts.
        seed: with one of these seeds.
        run: of this run.
        item: with one of these items.

    Raises:
        OptionError: for a value outside what is allowed, and where nothing says what to remove.

    Example:
        >>> RemoveSettings(file=Path("cats.memory"), text=["cat"]).text
        ('cat',)
    """

    text: tuple[str, ...] = option(
        (), "Remove samples of exactly this prompt; can be repeated.", kind=tuple, example="cat"
    )
    seed: tuple[str, ...] = option(
        (), "Remove samples of this seed; can be repeated.", kind=tuple, example="7"
    )
    run: str | None = option(
        None, "Remove samples of this run.", kind=str, choices=(None,), example="RUN"
    )
    item: tuple[str, ...] = option(
        (), "Remove the sample of this name; can be repeated.", kind=tuple, example="ITEM"
    )

    def __post_init__(self) -> None:
        as_texts(self, "text", "seed", "item")
        super().__post_init__()
        for seed in self.seed:
            if not _WHOLE.fullmatch(seed):
                raise OptionError(
                    named("{seed} is {!r}; allowed: a whole number, as in {seed=7}", seed)
                )
        if not (self.text or self.seed or self.item or self.run is not None):
            options = [Option("text", "cat"), Option("seed", 7), Option("run", Literal("RUN"))]
            raise OptionError(
                named(
                    "nothing says which samples to remove; give {}, {}, {} or {item=ITEM}", *options
                )
            )

    @property
    def seeds(self) -> set[int] | None:
        """The seeds as numbers; None for none."""
        return {int(seed) for seed in self.seed} or None


@dataclass(frozen=True, kw_only=True)
class MergeSettings:
    """The settings of `unalike memory merge`, one field an option of the same name.

    Args:
        out: the new memory.
        files: those that are put together.

    Raises:
        OptionError: for a value outside what is allowed.

    Example:
        >>> MergeSettings(out=Path("all"), files=["a", "b"]).files
        ('a', 'b')
    """

    out: Path = option(MISSING, "The new memory to write.", kind=Path)
    files: tuple[str, ...] = option(
        MISSING, "Memories to put together.", kind=tuple, example=Literal("FILE"), paths=True
    )

    def __post_init__(self) -> None:
        as_texts(self, "files")
        require_allowed(self)
        if not self.files:
            raise OptionError(named("{files} is empty; give at least one memory"))


@dataclass(frozen=True, kw_only=True)
class ExportSettings(InspectSettings):
    """The settings of `unalike memory export`, one field an option of the same name.

    Args:
        file: the memory.
        out: a new folder, or a new file whose name ends in .parquet.
        thumbnails: write the thumbnails and a page of them too; `out` is a folder then.

    Raises:
        OptionError: for a value outside what is allowed.

    Example:
        >>> ExportSettings(file=Path("cats.memory"), out=Path("cats.parquet")).to_file
        True
    """

    out: Path = option(
        MISSING,
        "A new folder, or a new file that ends in .parquet.",
        kind=Path,
        example=Literal("DIR"),
    )
    thumbnails: bool = option(False, "Write the thumbnails and a page of them, index.html, too.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.to_file and self.thumbnails:
            raise OptionError(
                named(
                    "{out} is {!r} and {thumbnails} needs a folder for its files; give one, as in "
                    "{}",
                    str(self.out),
                    Option("out", str(self.out.with_suffix(""))),
                )
            )

    @property
    def to_file(self) -> bool:
        """Whether one file is written in place of a folder."""
        return self.out.suffix == ".parquet"
