"""The measured tables in the cards of `emoji-turbo` and `emoji-flow`."""

from collections.abc import Mapping, Sequence
from typing import Any


def turbo_tables(record: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A row a model: full names, and right images, variety and likeness over the forty prompts."""
    lines = [
        "| model | steps | full names right | precision | distinct of 32 | coverage | similarity |",
        "|---|---|---|---|---|---|---|",
    ]
    for own in record:
        row, names = own["summary"][0], own.get("full_names")
        name = own["model"] + ("" if names else f", guidance scale {row['guidance_scale']:g}")
        right = f"{names['named']:.1%}" if names else ""
        lines.append(
            f"| `{own['model']}`{name.removeprefix(own['model'])} | {own['steps']} | {right} | "
            f"{row['precision']:.0%} | {row['distinct']:.1f} | {row['share_of_possible']:.0%} | "
            f"{own['similarity']:.2f} |"
        )
    every = next(own["every"] for own in record if "every" in own)
    lines += [
        "",
        "Full names: how often the nearest image is the right one, "
        + ("of all of them" if every == 1 else f"of every {every}th")
        + ". Precision, distinct right images and coverage: as on the card of `emoji`. Similarity: "
        "the mean cosine between the images of a prompt (`unalike.models.emoji.features`).",
    ]
    return {"turbo": "\n".join(lines)}


def flow_tables(record: Mapping[str, Any]) -> dict[str, str]:
    """A row a guidance scale: right images and variety over the forty prompts, and full names."""
    lines = [
        "| CFG | full names right | accepted | precision | distinct right images | coverage |",
        "|---|---|---|---|---|---|",
    ]
    for row in record["summary"]:
        names = record["full_names"].get(str(row["guidance_scale"]))
        right = f"{names['named']:.1%} | {names['named_and_shown']:.1%}" if names else " | "
        lines.append(
            f"| {row['guidance_scale']:g} | {right} | {row['precision']:.0%} | "
            f"{row['distinct']:.1f} of {record['samples']} samples | "
            f"{row['share_of_possible']:.0%} |"
        )
    every = record["every"]
    which = "every full name" if every == 1 else f"every {every}th full name"
    lines += ["", f"{record['steps']} steps; full names: {which}, drawn once."]
    return {"flow": "\n".join(lines)}
