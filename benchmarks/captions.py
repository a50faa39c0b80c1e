"""Captions with several images each, from a table of images and their captions: `python -m
benchmarks.captions TABLE --out DIR`.

The table has a line an image, `url TAB caption`, without a header, as that of CC12M. What comes out
is for measuring diversity against the images that really belong to a caption.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.caption_table import HOST, Group, Progress, Table, grouped, repeated_captions
from unalike.errors import OptionError, StoreError, UnalikeError

GENERATED = (
    "Display larger image",
    "This image may contain",
    "This is the product title",
    "Image result for",
)
PERSON = "<PERSON>"
RANGES = (6, 11, 21, 31, 41, 51)  # where the rows of the table of splits begin, after the first
_SECOND_LEVEL = frozenset(
    ["ac", "co", "com", "edu", "gov", "mil", "ne", "net", "or", "org"]
)  # no sites below a country's domain


@dataclass(frozen=True, kw_only=True)
class CaptionFilters:
    """Which captions are kept, and how they are split.

    Args:
        least, most: how many images a caption may have.
        domain: what makes two images come from one place, "site" (`example.com`, whatever stands
            before it) or "suffix" (`com`).
        domain_share: captions are left out where that share of their images or more comes from one
            place; above 1 none is.
        validation: how many captions are split off at random for validation; the others are for the
            test.
        seed: of that split.

    Raises:
        OptionError: for an option outside its allowed values.
    """

    least: int = 4
    most: int = 128
    domain: str = "site"
    domain_share: float = 0.5
    validation: int = 554
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise OptionError(
                f"least is {self.least} and most is {self.most}; 1 <= least <= most, as in "
                "least=4, most=128"
            )
        if self.domain not in ("site", "suffix"):
            raise OptionError(
                f"domain is {self.domain!r}; allowed: 'site', 'suffix', as in domain='site'"
            )
        if not self.domain_share > 0:
            raise OptionError(
                f"domain_share is {self.domain_share}; it must be above 0, as in domain_share=0.5"
            )
        if self.validation < 0:
            raise OptionError(
                f"validation is {self.validation}; it must be a number of captions, 0 or more, as "
                "in validation=554"
            )
        if self.seed < 0:
            raise OptionError(f"seed is {self.seed}; it must be 0 or more, as in seed=0")


def build_captions(
    table: Path | str,
    out: Path | str,
    filters: CaptionFilters | None = None,
    *,
    skip_bad: bool = False,
    progress: Progress = lambda share: None,
) -> dict[str, Any]:
    """Captions with several images each; into a folder, with what each filter left. Returns what is
    in its `captions.json`.

    Images are grouped by their caption, letter by letter; kept are captions of 4 to 128 images,
    then those of which no site has half of the images or more (albums under one title), then those
    without a string that software wrote, then those without a person's name, which CC12M replaced
    by `<PERSON>`. What is left is split at random. Images are never filtered: copies belong to the
    distribution.

    ```
    OUT/captions.parquet   caption, split, images, urls, rows (from 1, in the table)
    OUT/captions.json      settings, counts after each filter, images per caption in each split
    OUT/skipped.tsv        row and reason of rows left out, where there were any
    ```

    Source: Kirchhof et al. 2025, "Shielded Diffusion" (arXiv:2410.06025), Appendix E: 5,554
    captions from CC12M, 554 for validation. Departures: the share of the domain filter is ours, as
    the text at hand lacks the paper's, and its "top-level domain" is read as the site, since albums
    are what it is to find; `domain="suffix"` takes it by the letter.

    Args:
        table: UTF-8 text, a line an image: URL, tab, caption.
        out: a folder that is not there yet, or empty.
        filters: `CaptionFilters()` where none are given.
        skip_bad: leave out rows that are no URL and caption, and list them, in place of refusing
            the table.
        progress: called with the share of the work that is done.

    Raises:
        StoreError: for a table that is not there, has such rows, or of which no caption is left,
            and for a folder that has files.
        OptionError: where not more captions are left than `validation`.

    Cost: the table is read twice. Memory: about 9 bytes a row, and the rows of captions that occur
    `least` times or more.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> lines = [f"http://{site}.org/1.jpg{chr(9)}a red kite{chr(10)}" for site in "abcd"]
        >>> _ = (folder / "table.tsv").write_text("".join(lines))
        >>> filters = CaptionFilters(validation=0)
        >>> found = build_captions(folder / "table.tsv", folder / "out", filters)
        >>> found["splits"]["test"]
        {'captions': 1, 'images': 4}
    """
    path, folder, filters = Path(table), Path(out), CaptionFilters() if filters is None else filters
    if not path.is_file():
        raise StoreError(
            f"there is no table {str(path)!r}; pass the path of a text file of lines url TAB "
            "caption"
        )
    with _whole_folder(folder) as partial:
        rows = Table(path, partial / "skipped.tsv" if skip_bad else None)
        repeated, captions = repeated_captions(
            rows.read(lambda share: progress(share / 2)), filters.least
        )
        rows.check()
        groups = grouped(rows.read(lambda share: progress(0.5 + share / 2)), repeated, filters.most)
        kept, steps = _filtered(groups, filters)
        split = _split(kept, filters)
        record = {
            "table": {
                "name": path.name,
                "bytes": path.stat().st_size,
                "rows": rows.good,
                "captions": captions,
                "skipped": dict(rows.bad),
            },
            "settings": asdict(filters),
            "filters": steps,
            "splits": {
                s: _counts(g for c, g in kept.items() if split[c] == s)
                for s in ("validation", "test")
            },
            "images_per_caption": _ranges(kept, split, filters),
        }
        _write(partial, kept, split, record)
    return record


def place(url: str, domain: str) -> str:
    """What stands for where an image is from: its site, or the last part of it alone.

    A site is the last two parts of the host, or three below the second-level domains of countries
    (`example.co.uk`); an address of numbers is one as a whole.

    Example:
        >>> url = "https://img7.example.co.uk/kite.jpg"
        >>> place(url, "site"), place(url, "suffix")
        ('example.co.uk', 'uk')
    """
    found = HOST.match(url)
    host = found[1].lower().rstrip(".") if found else ""
    parts = host.split(".")
    if all(part.isdigit() for part in parts):
        return host
    if domain == "suffix":
        return parts[-1]
    below = len(parts) > 2 and len(parts[-1]) == 2 and parts[-2] in _SECOND_LEVEL
    return ".".join(parts[-3 if below else -2 :])


def _filtered(
    groups: Mapping[str, Group], filters: CaptionFilters
) -> tuple[dict[str, Group], list[dict[str, Any]]]:
    """What the filters leave, one after the other, and how much each did."""

    def mixed(_: str, group: Group) -> bool:
        places = Counter(place(url, filters.domain) for url in group.urls)
        return places.most_common(1)[0][1] < filters.domain_share * group.images

    passes: dict[str, Callable[[str, Group], bool]] = {
        f"{filters.least} to {filters.most} images": lambda _, group: (
            filters.least <= group.images <= filters.most
        ),
        f"no {filters.domain} with a share of {filters.domain_share:g} or more": mixed,
        "not written by software": lambda caption, _: (
            not any(words in caption for words in GENERATED)
        ),
        f"without {PERSON}": lambda caption, _: PERSON not in caption,
    }
    kept, steps = dict(groups), []
    for name, keeps in passes.items():
        kept = {caption: group for caption, group in kept.items() if keeps(caption, group)}
        steps.append({"filter": name, **_counts(kept.values())})
    return dict(sorted(kept.items())), steps


def _counts(groups: Iterable[Group]) -> dict[str, int]:
    images = [group.images for group in groups]
    return {"captions": len(images), "images": sum(images)}


def _split(kept: Mapping[str, Group], filters: CaptionFilters) -> dict[str, str]:
    """The split of each caption; it depends on the captions and the seed, not on the order of the
    table.
    """
    if not kept:
        raise StoreError(
            "no caption of the table passes the filters; take a larger table, or wider filters, "
            "such as least=2"
        )
    if filters.validation >= len(kept):
        raise OptionError(
            f"validation is {filters.validation} and {len(kept)} captions are left after the "
            f"filters; it must be below, as in validation={len(kept) // 10}"
        )
    chosen = set(
        np.random.default_rng(filters.seed).permutation(len(kept))[: filters.validation].tolist()
    )
    return {caption: "validation" if i in chosen else "test" for i, caption in enumerate(kept)}


def _ranges(
    kept: Mapping[str, Group], split: Mapping[str, str], filters: CaptionFilters
) -> list[dict[str, Any]]:
    """How many captions of each split have how many images, in the ranges of the paper's table."""
    starts = [
        filters.least,
        *(start for start in RANGES if filters.least < start <= filters.most),
        filters.most + 1,
    ]
    table = []
    for low, end in pairwise(starts):
        inside = Counter(
            split[caption] for caption, group in kept.items() if low <= group.images < end
        )
        table.append(
            {
                "images": f"{low} to {end - 1}",
                "validation": inside["validation"],
                "test": inside["test"],
            }
        )
    return table


def _write(
    folder: Path, kept: Mapping[str, Group], split: Mapping[str, str], record: Mapping[str, Any]
) -> None:
    columns = {
        "caption": pa.array(kept, pa.string()),
        "split": pa.array([split[caption] for caption in kept], pa.string()),
        "images": pa.array([group.images for group in kept.values()], pa.int32()),
        "urls": pa.array([group.urls for group in kept.values()], pa.list_(pa.string())),
        "rows": pa.array([group.rows for group in kept.values()], pa.list_(pa.int64())),
    }
    pq.write_table(pa.table(columns), folder / "captions.parquet")
    (folder / "captions.json").write_text(
        json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8"
    )


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write to, which becomes `out` when all went well and is removed when
    not.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(
            f"output folder {str(out)!r} is not empty; choose another with out= (--out), or "
            "remove it first"
        )
    partial = out.absolute().parent / f".{out.name}.partial-{os.getpid()}"
    partial.mkdir(parents=True)
    try:
        yield partial
        if out.exists():
            out.rmdir()
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.captions",
        description="Captions with several images each, from a table.",
    )
    parser.add_argument(
        "table",
        type=Path,
        metavar="TABLE",
        help="UTF-8 text, a line an image: URL, tab, caption; no header",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write, not there yet or empty",
    )
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out rows that are no URL and caption, and list them",
    )
    helps = {
        "least": "images of a caption at least",
        "most": "and at most",
        "validation": "captions split off",
        "seed": "of the split",
    }
    for name, text in helps.items():
        parser.add_argument(
            f"--{name}",
            type=int,
            default=getattr(CaptionFilters, name),
            help=f"{text} [%(default)s]",
        )
    parser.add_argument(
        "--domain",
        choices=("site", "suffix"),
        default=CaptionFilters.domain,
        help="where images come from [%(default)s]",
    )
    parser.add_argument(
        "--domain-share",
        type=float,
        default=CaptionFilters.domain_share,
        help="share of one such place, left out from [%(default)s]",
    )
    given = vars(parser.parse_args(arguments))
    table, out, skip_bad = given.pop("table"), given.pop("out"), given.pop("skip_bad")
    try:
        record = build_captions(table, out, CaptionFilters(**given), skip_bad=skip_bad)
    except UnalikeError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    sys.stdout.write(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
