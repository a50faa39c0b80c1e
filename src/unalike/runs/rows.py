"""Files of prompts: a row a prompt, with its number of images, seed and arguments.

    .txt                 a prompt a line; a line that begins with # is a prompt too
    .csv .tsv .parquet   a column `prompt` and, where wanted, others
    .jsonl               {"prompt": "a cat", "n": 4} in each line
    .json                [{"prompt": "a cat", "n": 4}, …], or ["a cat", …]
    -                    standard input: objects as in .jsonl, or a prompt a line

The columns are `prompt` (or `caption`, `text`), `n` (`num`, `num_images`), `seed`,
`negative_prompt` (`negative`), `id` (`name`, `key`), `group`, and any argument of the pipeline's
call, such as `height` or `guidance_scale`; `steps` stands for `num_inference_steps`. An empty cell
is not given. Text is UTF-8, with or without a byte order mark; lines end in LF, CRLF or CR.

All bad rows are found at once, before anything is loaded. Neither torch nor diffusers is imported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from inspect import Parameter
from pathlib import Path
from typing import Any, BinaryIO

from unalike.errors import Option, OptionError, close_to, named, shown
from unalike.files import fault_of_reading
from unalike.options import LARGEST_SEED
from unalike.runs.columns import NAMES, Column, column, misfit, unknown, value_of
from unalike.runs.faults import Faults
from unalike.runs.tables import Table, TableRow, prompt_table
from unalike.runs.wildcards import Wildcards, has_wildcards

_FIELDS = ("prompt", "id", "n", "seed", "negative_prompt", "group")
_ALLOWED = (
    "a .txt with a prompt a line; a .csv, .tsv, .jsonl, .json or .parquet with a column prompt; or "
    "- for standard input"
)


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A row of a file of prompts; None is what the run has for all rows.

    Args:
        line: its first line in the file, or its row or entry in Parquet and JSON; the first is 1.
        prompt: what to draw.
        id: its own name, or the number of the row as text; no two rows have the same.
        n: images of it.
        seed: of its first image; image `i` has `seed + i`.
        negative_prompt: what not to draw.
        group: images of rows with one group are kept unlike each other; None: by prompt.
        arguments: further arguments of the pipeline's call: numbers, tuples of numbers, true,
            false, and text. Rows may share it.
    """

    line: int
    prompt: str
    id: str
    n: int | None = None
    seed: int | None = None
    negative_prompt: str | None = None
    group: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


def read_rows(
    path: Path | str,
    *,
    stdin: BinaryIO | None = None,
    expand: bool = False,
    wildcards: Path | None = None,
    num: int = 8,
    seed: int = 0,
    option: str = "prompts",
) -> list[PromptRow]:
    """The rows of a file of prompts, in order.

    Args:
        path: of the file; `-` for standard input.
        stdin: read in place of the process's own standard input.
        expand: choose among `{red|blue}` and the lines of `__file__`, in prompts and negative
            prompts. A row that has them becomes a row an image: row `id` becomes `id-0`, `id-1`, …
            The choice follows from the text and the image's seed alone. Rows without them stay as
            they are.
        wildcards: folder of the files that `__file__` names; turns `expand` on.
        num: images of a row that does not say.
        seed: of the first image of a row that does not say.
        option: the name of the option that gave the path, for messages.

    Raises:
        RowsError: for bad rows, all at once: an empty prompt, a value that is not allowed, an id
            given twice, a column that rows cannot have, images that an earlier row draws too.
        OptionError: for a file that cannot be read, is of another kind, or has no prompt; for
            wildcards without dynamicprompts.

    Cost: 1,000,000 rows take 7 s as plain text and up to 20 s with several columns, and 0.5 GB.

    Example:
        >>> import io
        >>> for row in read_rows("-", stdin=io.BytesIO(b'{"prompt": "cat", "n": 2, "height": 64}')):
        ...     row.prompt, row.n, row.id, dict(row.arguments)
        ('cat', 2, '1', {'height': 64})
        >>> read_rows("-", stdin=io.BytesIO(b'{"prompt": "cat", "n": 0}'))
        Traceback (most recent call last):
            ...
        unalike.errors.RowsError: prompts is '-', which has 1 fault:
          line 1 has n 0; allowed: a whole number at least 1 and at most 100,000
    """
    chooser = None if wildcards is None else Wildcards(Path(wildcards))
    try:
        table = prompt_table(path, stdin)
        faults = Faults(table.unit)
        rows = list(_checked(table, faults))
        if not rows and not faults.found:
            raise ValueError("it has no prompt")
    except (OSError, ValueError) as error:
        raise OptionError(
            named(
                "{} is {!r}: {}; allowed: {}",
                Option(option),
                str(path),
                fault_of_reading(error),
                _ALLOWED,
            )
        ) from error
    _find_repeats(rows, num, seed, faults)
    if expand or wildcards is not None:
        rows = list(_expanded(rows, chooser, num, seed, faults))
        if not faults.found:
            _find_repeats(rows, num, seed, faults)
    _find_same_ids(rows, faults)
    faults.refuse(named("{} is {!r}, which has", Option(option), str(path)))
    return rows


def require_arguments(
    rows: Iterable[PromptRow],
    allowed: Mapping[str, Parameter] | Iterable[str],
    pipeline: str,
    *,
    option: str = "prompts",
) -> None:
    """Refuse columns that the pipeline's call does not take, all at once.

    Args:
        rows: of a file.
        allowed: the parameters of the call, whose annotations say which values they take; or only
            their names.
        pipeline: its name, for messages.
        option: the name of the option that gave the file, for messages.

    Raises:
        RowsError: for a column that is no argument, at its first row, and for values of another
            type than the call's annotations have.

    Example:
        >>> rows = [PromptRow(1, "cat", "1", arguments={"hieght": 64})]
        >>> require_arguments(rows, ["prompt", "height"], "a pipeline")
        Traceback (most recent call last):
            ...
        unalike.errors.RowsError: prompts has 1 fault:
          line 1 has the column 'hieght', which is no argument of a pipeline; did you mean ...
    """
    parameters = allowed if isinstance(allowed, Mapping) else dict.fromkeys(allowed)
    variable = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
    known = {k: p for k, p in parameters.items() if p is None or p.kind not in variable}
    faults, reported = Faults("line"), set()
    for row in rows:
        given = dict(row.arguments)
        if row.negative_prompt is not None:
            given["negative_prompt"] = row.negative_prompt
        for name, value in given.items():
            parameter = known.get(name)
            fault = misfit(name, value, parameter) if parameter is not None else None
            if fault:
                faults.add(row.line, fault)
            elif name not in known and name not in reported:
                reported.add(name)
                faults.add(row.line, unknown(name, known, pipeline))
    faults.refuse(named("{} has", Option(option)))


def _checked(table: Table, faults: Faults) -> Iterator[PromptRow]:
    """The good rows of a table; what is wrong with the others goes to the faults."""
    columns: dict[str, Column] = {}
    shared: dict[Any, dict[str, Any]] = {}
    for number, row in enumerate(table.rows, 1):
        if row.fault:
            faults.add(row.number, row.fault)
            continue
        first = not columns
        for header in row.values:
            if header not in columns:
                columns[header] = own = column(header)
                if own.fault:
                    faults.add(row.number, own.fault)
        if table.header and first:
            _require_prompt(columns)
        found = _values(row, columns, table.typed, faults)
        if found is not None:
            own = {name: found.pop(name) for name in _FIELDS if name in found}
            key = tuple((name, type(value), value) for name, value in found.items())
            own.setdefault("id", str(number))
            yield PromptRow(row.number, **own, arguments=shared.setdefault(key, found))


def _values(
    row: TableRow, columns: Mapping[str, Column], typed: bool, faults: Faults
) -> dict[str, Any] | None:
    """What a row's columns stand for, and the values; None for a bad row."""
    found: dict[str, Any] = {}
    before = len(faults.found)
    for header, cell in row.values.items():
        own = columns[header]
        if own.fault:
            continue
        try:
            value = value_of(own.name, cell, typed=typed)
        except ValueError as error:
            faults.add(row.number, str(error))
            continue
        if value is not None and own.name in found:
            faults.add(row.number, f"has {own.name} in two columns; keep one of them")
        elif value is not None:
            found[own.name] = value
    if len(faults.found) > before:
        return None
    if "prompt" not in found:
        faults.add(row.number, "has no prompt")
        return None
    return found


def _require_prompt(columns: Mapping[str, Column]) -> None:
    """Refuse a header without prompts."""
    if any(own.name == "prompt" for own in columns.values()):
        return
    headers = ", ".join(columns) or "none"
    close = next((c for c in columns if close_to(c, NAMES["prompt"])), None)
    advice = f"rename {close!r}" if close else "name the column of prompts so"
    if len(columns) == 1 and any(mark in headers for mark in ";\t"):
        advice = "separate the columns of a .csv by commas"
    raise ValueError(
        f"it has the columns {headers}; one of them has to be {' or '.join(NAMES['prompt'])}; "
        f"{advice}"
    )


def _find_repeats(rows: list[PromptRow], num: int, seed: int, faults: Faults) -> None:
    """Find rows whose images an earlier row draws too, and seeds that are too large."""
    often = {p for p, count in Counter(row.prompt for row in rows).items() if count > 1}
    alike: dict[Any, list[tuple[int, int, PromptRow]]] = {}
    for row in rows:
        first = seed if row.seed is None else row.seed
        last = first + (num if row.n is None else row.n) - 1
        if last > LARGEST_SEED:
            faults.add(
                row.line, f"has seed {first}; allowed: at most 2**63 less the number of its images"
            )
        if row.prompt in often:
            arguments = frozenset((k, type(v), v) for k, v in row.arguments.items())
            alike.setdefault((row.prompt, row.negative_prompt, arguments), []).append(
                (first, last, row)
            )
    for same in alike.values():
        same.sort(key=lambda own: (own[0], own[2].line))
        reach = same[0]
        for own in same[1:]:
            if own[0] <= reach[1]:
                early, late = sorted((own[2].line, reach[2].line))
                faults.add(
                    late,
                    f"draws images of {faults.unit} {early} again, the same prompt from the same "
                    f"seed {own[0]}; delete it and raise n there, or give it another seed",
                )
            reach = max(reach, own, key=lambda r: r[1])


def _expanded(
    rows: Iterable[PromptRow], chooser: Wildcards | None, num: int, seed: int, faults: Faults
) -> Iterator[PromptRow]:
    """The rows, with a row an image in place of those that have wildcards."""
    for row in rows:
        texts = [row.prompt, row.negative_prompt or ""]
        if not any(map(has_wildcards, texts)):
            yield row
            continue
        chooser = chooser or Wildcards()
        try:
            choose = [chooser.template(t) if has_wildcards(t) else None for t in texts]
            for i in range(num if row.n is None else row.n):
                own = (seed if row.seed is None else row.seed) + i
                prompt, negative = (
                    t if c is None else c(own) for c, t in zip(choose, texts, strict=True)
                )
                yield replace(
                    row,
                    prompt=prompt,
                    negative_prompt=negative or None,
                    id=f"{row.id}-{i}",
                    n=1,
                    seed=own,
                )
        except ValueError as error:
            faults.add(row.line, error.args[0])


def _find_same_ids(rows: Iterable[PromptRow], faults: Faults) -> None:
    first: dict[str, int] = {}
    for row in rows:
        line = first.setdefault(row.id, row.line)
        if line != row.line:
            faults.add(
                row.line,
                f"has the id {shown(row.id)}, as {faults.unit} {line} has; give every row an id of "
                "its own, or none",
            )
