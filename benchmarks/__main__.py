"""`python -m benchmarks [NAME]`: list the benchmarks, or run one."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.table import BENCHMARKS, available, measure
from unalike.cli.progress import progress_bar
from unalike.errors import OptionError, StoreError, UnalikeError, UnsupportedError

PROGRAM = "python -m benchmarks"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Measure what the methods do and what they cost. The folder gets the "
        "measurements as Parquet, the figures, and environment.json. After Ctrl-C (exit code 130) "
        "the same command goes on from what was measured.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="benchmark; omit it to list them")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder [bench-NAME]")
    parser.add_argument(
        "--models", nargs="+", metavar="MODEL", help="of fewstep: measure these models alone [all]"
    )
    parser.add_argument("--smoke", action="store_true", help="tiny run; checks that it works")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; errors end as one sentence on standard error."""
    given = _parser().parse_args(arguments)
    folder = Path(f"bench-{given.name}") if given.out is None else given.out
    try:
        if given.name is None:
            _list(as_json=given.json)
        else:
            _run(given.name, folder, given.models, smoke=given.smoke, as_json=given.json)
    except (OptionError, StoreError, UnsupportedError) as error:
        return _failed(str(error), 2)
    except (UnalikeError, OSError, MemoryError) as error:
        return _failed(str(error) or type(error).__name__, 1)
    except KeyboardInterrupt:
        return _failed(f"interrupted; the same command goes on with what is in {folder}", 130)
    return 0


def _failed(message: str, code: int) -> int:
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    return code


def _list(*, as_json: bool) -> None:
    questions = {name: BENCHMARKS[name].question for name in available()}
    if as_json:
        print(json.dumps(questions, indent=2, ensure_ascii=False))
    else:
        print("\n".join(f"{name}  {question}" for name, question in questions.items()))


def _run(
    name: str, folder: Path, models: Sequence[str] | None, *, smoke: bool, as_json: bool
) -> None:
    with progress_bar("measuring", hidden=as_json) as progress:
        page = measure(name, folder, smoke=smoke, progress=progress, models=models)
    if as_json:
        document = {"benchmark": name, "smoke": smoke, "folder": str(folder), "page": page}
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print(f"{page}\n\nmeasurements and figures are in {folder}")


if __name__ == "__main__":
    sys.exit(main())
