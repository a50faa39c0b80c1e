"""The images of a run: which there are, what identifies each, and which are drawn together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from unalike.errors import OptionError, named
from unalike.options import LARGEST_SEED
from unalike.runs.rows import PromptRow
from unalike.runs.samples import Planned


def planned_images(prompts: Sequence[str], num: int, seed: int) -> list[Planned]:
    """All images of some prompts in order, `num` of each; image `i` of a prompt has the seed
    `seed + i`.

    Example:
        >>> [(p.prompt, p.seed) for p in planned_images(["cat", "dog"], 2, 5)]
        [('cat', 5), ('cat', 6), ('dog', 5), ('dog', 6)]
    """
    return [
        Planned(k * num + i, prompt, k, seed + i)
        for k, prompt in enumerate(prompts)
        for i in range(num)
    ]


def planned_rows(rows: Sequence[PromptRow], num: int, seed: int, most: int) -> list[Planned]:
    """All images of the rows of a file, in order.

    Args:
        rows: of the file.
        num: images of a row that does not say how many.
        seed: the first seed of a row that does not say it.
        most: how many images a run may have.

    Raises:
        OptionError: where there are more, or a seed is too large.
    """
    total = sum(num if row.n is None else row.n for row in rows)
    if total > most:
        raise OptionError(
            named(
                "the file asks for {:,} images; allowed: at most {:,} in a run. Split the file, or "
                "ask for fewer of each, as in {num=4}",
                total,
                most,
            )
        )
    plan: list[Planned] = []
    for number, row in enumerate(rows):
        first = seed if row.seed is None else row.seed
        count = num if row.n is None else row.n
        if first > LARGEST_SEED - count:
            raise OptionError(
                named("line {} has the seed {}; allowed: at most 2**63 - 1", row.line, first)
            )
        plan += [
            Planned(
                len(plan) + i,
                row.prompt,
                number,
                first + i,
                row.negative_prompt,
                row.arguments,
                row.group,
                row.id,
            )
            for i in range(count)
        ]
    return plan


def with_items(plan: Iterable[Planned], identity: str) -> list[Planned]:
    """The images, each with its item:

        SHA-256 of (identity, prompt, negative prompt, seed, arguments, group)

    Args:
        plan: the images.
        identity: of model and settings, see `unalike.runs.identity`.
    """
    return [replace(planned, item=_item(planned, identity)) for planned in plan]


def batches(plan: Sequence[Planned], size: int) -> list[list[Planned]]:
    """The images that are drawn together: in order, at most `size`, with the same arguments.

    They depend on the plan alone, so that a run that is gone on with draws the same.

    Example:
        >>> plan = planned_images(["cat", "dog"], 3, 0)
        >>> [[p.index for p in batch] for batch in batches(plan, 4)]
        [[0, 1, 2, 3], [4, 5]]
    """
    result: list[list[Planned]] = []
    for planned in plan:
        last = result[-1] if result else None
        if last and len(last) < size and _together(last[0], planned):
            last.append(planned)
        else:
            result.append([planned])
    return result


def _together(first: Planned, planned: Planned) -> bool:
    return first.arguments == planned.arguments and (
        (first.negative_prompt is None) == (planned.negative_prompt is None)
    )


def _item(planned: Planned, identity: str) -> str:
    return hashlib.sha256(f"{identity}\n{_text(planned)}".encode()).hexdigest()


def _text(planned: Planned) -> str:
    told = (planned.prompt, planned.negative_prompt, planned.seed, planned.group)
    return json.dumps([*told, _sorted(planned.arguments)], ensure_ascii=False, sort_keys=True)


def _sorted(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: arguments[name] for name in sorted(arguments)}
