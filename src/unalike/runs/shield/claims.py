"""Compare the record, the table and the files of a run: numbers that follow from others.

Distances are another matter (`verify`): they follow from latents and images alone.
"""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from unalike.runs.folder import IMAGES, METADATA, RECORD, SAMPLES, UNGUIDED, image_path
from unalike.runs.scoring import PLAINLY_CHANGED
from unalike.runs.settings import POLICIES
from unalike.runs.shield.evidence import Row
from unalike.runs.summary import BOTH, certified_of
from unalike.shields import Shield

_ROUNDING = 1e-9
_INSIDE = re.compile(r"certificate(_\d+)?_decoded_inside")
_OF_IMAGES = ("image_sha256", "change", "nearest_source", "nearest_index", "nearest_distance")
_COMMAND = {
    "--num": "num",
    "--seed": "seed",
    "--steps": "steps",
    "--batch-size": "batch_size",
    "--guidance-scale": "guidance_scale",
}


def differences_of_record(record: Mapping[str, Any], protected: Shield) -> Iterator[str]:
    """Contradictions of the record with the protected set, and with itself."""
    shield, images = record["shield"], record["images"]
    embedded = protected.embedding is not None
    certified = certified_of(str(shield["on_violation"]), embedded=embedded)
    for name, true in {**protected.summary(), "certified": certified}.items():
        if shield.get(name) != true:
            yield (
                f"{RECORD}: the {name} of the protected set is {shield.get(name)!r}, and {true!r} "
                "in the set itself"
            )
    if shield["on_violation"] not in POLICIES:
        yield f"{RECORD}: on_violation is {shield['on_violation']!r}; allowed: {POLICIES}"
    used = record.get("methods_as_used")
    names = [m["name"] for m in record["methods"]]
    if used is not None and [m["name"] for m in used] != names:
        yield f"{RECORD}: methods_as_used are others than methods, {', '.join(names)}"
    seeds, num, planned = record.get("seeds"), record["num"], _planned(record)
    if record.get("rows"):
        pass  # each row has seeds of its own
    elif record["candidates"] > 1:
        if seeds is not None:
            yield (
                f"{RECORD}: seeds is {seeds!r}, and each image is chosen from "
                f"{record['candidates']} candidates"
            )
    elif not isinstance(seeds, list) or seeds != [record["seed"] + i for i in range(len(seeds))]:
        yield f"{RECORD}: seeds is {seeds!r}, and they follow from its seed, {record['seed']}"
    elif len(seeds) != num:
        yield f"{RECORD}: num is {num}, and there are {len(seeds)} seeds"
    if images["planned"] != planned:
        yield (
            f"{RECORD}: images.planned is {images['planned']}, and {planned} follows from its "
            "prompts and num"
        )
    yield from _of_command(record)


def _of_command(record: Mapping[str, Any]) -> Iterator[str]:
    """Contradictions of the command that repeats the run with the settings beside it."""
    try:
        words = shlex.split(record["command"])
    except ValueError as error:
        yield f"{RECORD}: its command cannot be read ({error})"
        return
    settings = {flag: record[name] for flag, name in _COMMAND.items() if record[name] is not None}
    for flag, value in {**settings, "--on-violation": record["shield"]["on_violation"]}.items():
        own = [after for word, after in pairwise(words) if word == flag]
        if own != [str(value)]:
            yield f"{RECORD}: its command has {flag} {' '.join(own)}, and the record {value!r}"
    methods = [m["name"] for m in record["methods"]]
    if [after for word, after in pairwise(words) if word == "--method"] != methods:
        yield f"{RECORD}: its command has other methods than {', '.join(methods)}"
    if ("--compare" in words) != record["compare"]:
        yield f"{RECORD}: compare is {record['compare']}, and its command says otherwise"
    for prompt in () if record.get("rows") else record["prompts"]:
        if prompt not in words and f"--prompt={prompt}" not in words:
            yield f"{RECORD}: the prompt {prompt!r} is not in its command"


def differences_of_rows(
    run: Path, record: Mapping[str, Any], rows: Sequence[Row], protected: Shield
) -> Iterator[str]:
    """Contradictions of the table with the record, and with the files in the folder."""
    planned = _planned(record)
    for index, times in Counter(row["index"] for row in rows).items():
        if times > 1:
            yield f"{SAMPLES} has {times} rows of image {index}"
    for row in rows:
        if not 0 <= row["index"] < planned:
            yield f"{SAMPLES} has image {row['index']}, and {RECORD} plans {planned}"
            continue
        for name, true in _expected(record, row, protected).items():
            if row.get(name) != true:
                yield (
                    f"{image(row)}: {name} is {row.get(name)!r} in {SAMPLES}, and {true!r} by "
                    f"{RECORD}"
                )
        yield from _of_policy(record, row, protected)
        yield from _of_steps(record, row)
    if record["finished"] and len(rows) < planned:
        yield f"{RECORD} says that all {planned} images were drawn, and {SAMPLES} has {len(rows)}"
    for folder, column in ((IMAGES, "image"), (UNGUIDED, "unguided_image")):
        known = {row[column] for row in rows}
        for path in sorted((run / folder).glob("*")):
            if path.name != METADATA and f"{folder}/{path.name}" not in known:
                yield (
                    f"{folder}/{path.name} is there and {SAMPLES} does not list it, so it has no "
                    "certificate"
                )
    yield from _of_counts(record, rows)
    yield from _of_guidance(record, [row for row in rows if not row["refused"]])


def _planned(record: Mapping[str, Any]) -> int:
    if record.get("rows"):
        return record["images"]["planned"]
    return len(record["prompts"]) * record["num"]


def _expected(record: Mapping[str, Any], row: Row, protected: Shield) -> dict[str, Any]:
    """The columns of a row that follow from the record and the protected set."""
    kind = record.get("format") or "png"
    own, twin = (image_path(row["index"], kind, guided=guided) for guided in (True, False))
    shared = {key: record[key] for key in ("steps", "guidance_scale", "batch_size")}
    return {
        **_planned_of(record, row),
        **({"drawn_seed": row["seed"]} if row.get("attempts") == 1 else {}),
        "image": None if row["refused"] else own,
        "unguided_image": twin if record["compare"] else None,
        **shared,
        "model": record["model"]["name"],
        "methods": ", ".join(m["name"] for m in record["methods"]),
        "certificate_radius": protected.radius,
        "certificate_space": protected.space,
        "certificate_checksum": protected.checksum,
        **(dict.fromkeys(_OF_IMAGES) if row["refused"] else {}),
    }


def _planned_of(record: Mapping[str, Any], row: Row) -> dict[str, Any]:
    """Prompt and seed of a row; nothing where they come from a file that the record only names."""
    if record.get("rows"):
        return {}
    prompt, place = divmod(row["index"], record["num"])
    seed = {} if record["candidates"] > 1 else {"seed": record["seed"] + place}
    return {"prompt": record["prompts"][prompt], "prompt_index": prompt, **seed}


def _of_policy(record: Mapping[str, Any], row: Row, protected: Shield) -> Iterator[str]:
    """Contradictions of a row with the policy for images inside the protected set."""
    policy, most = record["shield"].get("on_violation"), record["shield"].get("attempts") or 0
    if row["certificate_moved"] and policy != "move":
        yield (
            f"{image(row)}: certificate_moved is True in {SAMPLES}, and on_violation is "
            f"{policy!r} in {RECORD}"
        )
    if not 1 <= (row.get("attempts") or 0) <= 1 + most:
        yield (
            f"{image(row)}: attempts is {row.get('attempts')!r} in {SAMPLES}; by {RECORD} it is 1 "
            f"to {1 + most}"
        )
    distance, margin = row.get("certificate_distance"), row.get("certificate_margin")
    if row["refused"] and distance is not None:
        own = distance - protected.reach
        if margin is None or not math.isclose(margin, own, abs_tol=_ROUNDING * distance):
            yield (
                f"{image(row)}: certificate_margin is {margin!r} in {SAMPLES}, and {own!r} "
                "follows from its distance"
            )
        inside = record["shield"].get("certified") == BOTH and row.get("certificate_decoded_inside")
        others = record.get("further_shields")  # it may be inside one of them
        if own >= 0 and not protected.embedding and not inside and not others:
            yield (
                f"{image(row)}: it is refused, and outside by its certificate_distance of "
                f"{distance!r}"
            )


def _of_steps(record: Mapping[str, Any], row: Row) -> Iterator[str]:
    """Compare the steps at which SPELL moved the prediction with those at which it acted."""
    evaluations = max((len(g["share_of_predicted_image"]) for g in record["guidance"]), default=0)
    own = [
        round(share * evaluations)
        for name, share in row.items()
        if (name == "active_spell" or name.startswith("active_spell-")) and share is not None
    ]
    claimed = row.get("certificate_steps_moved")
    if row.get("restarts"):  # in fewer steps than the others, so that a share is of another number
        if (claimed or 0) > 0 and not any(own):
            yield (
                f"{image(row)}: certificate_steps_moved is {claimed!r} in {SAMPLES}, and SPELL "
                "acted in no step"
            )
        return
    most = min(sum(own), evaluations) if evaluations else claimed
    if claimed is None or (evaluations and not max(own, default=0) <= claimed <= (most or 0)):
        yield (
            f"{image(row)}: certificate_steps_moved is {claimed!r} in {SAMPLES}, and "
            f"{max(own, default=0)} follows from the steps at which SPELL acted"
        )


def _of_counts(record: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[str]:
    kept = [row for row in rows if not row["refused"]]
    inside = [_any_inside(row) for row in kept]
    changed = [row.get("change") for row in kept]
    counts = {
        "finished": len(kept),
        "refused": len(rows) - len(kept),
        "moved": sum(bool(row["certificate_moved"]) for row in rows),
        "restarted": sum((row.get("restarts") or 0) > 0 for row in rows),
        "drawn_again": sum((row.get("attempts") or 0) > 1 for row in rows),
        "decoded_inside": None if None in inside else sum(map(bool, inside)),
        "plainly_changed": sum(c is not None and c > PLAINLY_CHANGED for c in changed)
        if record["compare"]
        else None,
    }
    for name, count in counts.items():
        claimed = record["images"].get(name)
        if claimed != count:
            yield f"{RECORD}: images.{name} is {claimed!r}, and {count!r} by {SAMPLES}"


def _any_inside(row: Row) -> bool | None:
    """Whether a finished image is inside any of the protected sets; None where it is not known."""
    found = [value for name, value in row.items() if _INSIDE.fullmatch(name)]
    return None if None in found else any(found)


def _of_guidance(record: Mapping[str, Any], kept: Sequence[Row]) -> Iterator[str]:
    """Compare the means in the record with the columns of each method."""
    for entry in record["guidance"]:
        name, sizes = entry["method"], entry["share_of_predicted_image"]
        for column, claimed in (
            (f"active_{name}", entry["active"]),
            (f"correction_{name}", entry.get("size", _mean(sizes))),
        ):
            own = _mean([v for row in kept if (v := row.get(column)) is not None])
            if not same(claimed, own):
                yield (
                    f"{RECORD}: {name} has a mean of {claimed!r}, and {column} of {SAMPLES} one "
                    f"of {own!r}"
                )


def same(claimed: float | None, computed: float | None, relative: float = _ROUNDING) -> bool:
    """Whether two numbers are the same but for rounding; None is the same as None alone.

    Example:
        >>> same(1.0, 1.0 + 1e-12), same(1.0, None), same(0.0, 1e-12)
        (True, False, True)
    """
    if claimed is None or computed is None:
        return claimed is computed
    return math.isclose(claimed, computed, rel_tol=relative, abs_tol=_ROUNDING)


def image(row: Row) -> str:
    """Name of a row in messages."""
    return f"image {row['index']}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
