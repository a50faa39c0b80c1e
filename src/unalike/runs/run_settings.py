"""The settings of `unalike run`, checked before anything is loaded; torch is not imported."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

from unalike.errors import Literal, Option, OptionError, named
from unalike.options import option
from unalike.runs.settings import AUTO, DrawSettings

MOST_IMAGES = 10_000_000
LEAST_SHARD = 1 << 20
MOST_PARTS = 10_000
LOCAL = "local"
"""A Ray cluster of this machine alone."""


@dataclass(frozen=True, kw_only=True)
class RunSettings(DrawSettings):
    """The settings of `unalike run`, one field an option of the same name.

    Args:
        source: file with the prompts, or "-" for standard input; see `unalike.runs.rows`.
        wildcards: folder of word lists; prompts with `{red|blue}` or `__file__` are then one prompt
            an image.
        shard_size: bytes of a WebDataset shard; None for a file an image.
        devices: draw with a process on each of these devices, as in ("cuda:0", "cuda:1") or
            "cuda:0,cuda:1"; none for one worker in this process.
        ray: draw with workers on a Ray cluster: "auto" for the one that runs, "local" for one on
            this machine alone, or the address of its head, as in "10.0.0.1:6379".
        ray_workers: how many; None for as many as the cluster has room for.
        ray_gpus: that each worker has; 0.5 for two on a GPU, 0 for the CPU; None for 1 where the
            cluster has any.
        shard: draw every `k`-th batch alone, "i/k" with i from 0, into a folder of its own in the
            output folder; `merge` joins them.
        merge: draw nothing, and join the parts that are in the output folder.

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

    devices: tuple[str, ...] | str = option(
        (),
        "Draw on several devices of this machine, a process each.",
        kind=tuple,
        example=("cpu", "cpu"),
    )
    ray: str | None = option(
        None,
        "Draw on a Ray cluster: auto for the one that runs, local, or HOST:PORT.",
        kind=str,
        choices=(None,),
        example=AUTO,
    )
    ray_workers: int | None = option(
        None,
        "Workers on Ray. [default: as many as there is room for]",
        kind=int,
        low=1,
        high=10_000,
        choices=(None,),
        example=4,
    )
    ray_gpus: float | None = option(
        None,
        "GPUs of each worker on Ray; 0.5 for two on one, 0 for none. [default: 1 if there are any]",
        kind=float,
        low=0,
        high=64,
        choices=(None,),
        example=0.5,
    )
    shard: str | None = option(
        None,
        "Draw part i of k alone, i from 0, into OUT/shard-i-of-k; for arrays of jobs.",
        kind=str,
        choices=(None,),
        example="0/4",
    )
    merge: bool = option(False, "Draw nothing; join the parts in the output folder.")

    def __post_init__(self) -> None:
        if isinstance(self.devices, str):
            names = tuple(name.strip() for name in self.devices.split(","))
            object.__setattr__(self, "devices", names)
        super().__post_init__()
        self._require_one_place()
        if self.shard_size is not None and self.compare:
            raise OptionError(
                named(
                    "{compare} and {shard_size} are given, and shards hold guided images alone; "
                    "leave one of them out"
                )
            )

    @property
    def numbered_shard(self) -> tuple[int, int] | None:
        """Number and count of the parts; None where the run has none."""
        return None if self.shard is None else parse_shard(self.shard)

    def _require_one_place(self) -> None:
        """Refuse several kinds of workers at once, and options of one that is not asked for."""
        kinds = {
            "devices": bool(self.devices),
            "ray": self.ray is not None,
            "shard": self.shard is not None,
            "merge": self.merge,
        }
        several = [name for name, given in kinds.items() if given]
        if len(several) > 1:
            raise OptionError(
                named("{} and {} are given; give one of them", *map(Option, several[:2]))
            )
        for name in ("ray_workers", "ray_gpus"):
            if getattr(self, name) is not None and self.ray is None:
                raise OptionError(
                    named(
                        "{} is {}, and there is no cluster; name it, as in {ray='auto'}",
                        Option(name),
                        getattr(self, name),
                    )
                )
        if several and several[0] in ("devices", "ray") and self.device != AUTO:
            raise OptionError(
                named(
                    "{device} is {!r}, and {} says where to draw; leave one of them out",
                    self.device,
                    Option(several[0]),
                )
            )
        if self.ray is not None:
            _require_address(self.ray)
        if self.shard is not None:
            parse_shard(self.shard)
        if several and several[0] in ("shard", "merge") and self.out is None:
            raise OptionError(
                named(
                    "{} needs the folder that all parts share; give it, as in {out=DIR}",
                    Option(several[0]),
                )
            )
        if self.merge and self.overwrite:
            raise OptionError(
                named("{merge} and {overwrite} are given, and merging keeps all; give one of them")
            )


def parse_shard(text: str) -> tuple[int, int]:
    """Number and count of "i/k".

    Raises:
        OptionError: for another text.

    Example:
        >>> parse_shard("3/8")
        (3, 8)
    """
    words = text.split("/")
    if len(words) == 2 and all(word.isascii() and word.isdigit() for word in words):
        number, count = int(words[0][:9]), int(words[1][:9])
        if number < count <= MOST_PARTS:
            return number, count
    raise OptionError(
        named(
            "{shard} is {!r}; allowed: i/k with i from 0 to k - 1, and k at most {:,}, as in {}",
            text,
            MOST_PARTS,
            Option("shard", "0/4"),
        )
    )


def _require_address(address: str) -> None:
    """Refuse what is no address of a Ray cluster."""
    host, colon, port = address.rpartition(":")
    number = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0
    if address in (AUTO, LOCAL) or (colon and host and 0 < number < 1 << 16 and "/" not in host):
        return
    raise OptionError(
        named(
            "{ray} is {!r}; allowed: auto, local, or HOST:PORT of the head of a cluster, run on a "
            "machine of that cluster, as in {}",
            address,
            Option("ray", "10.0.0.1:6379"),
        )
    )
