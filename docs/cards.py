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


def copy_tables(record: Mapping[str, Any]) -> dict[str, str]:
    """A row an edit: how far edited images are from their own, and how many are missed."""
    lines = ["| edit | median distance | 95% | missed |", "|---|---|---|---|"]
    for name, (median, most, _) in record["distances"].items():
        missed = record["missed"][name]
        lines.append(f"| {name} | {median:.2f} | {most:.2f} | {missed:.1%} |")
    _, five, half = record["others"]
    lines += [
        "",
        f"Measured on the {record['images']} images of every tenth base name, which it was not "
        f"trained on. Two images are taken for copies below a distance of {record['copy']:g}; "
        "missed are the edited images beyond it. Of pairs of images of different base names "
        f"{record['mistaken_pairs']:.3%} are nearer than that. The nearest of all 3,650 images "
        f"with another base name is at {half:.2f} in the median and at {five:.2f} for one in "
        f"twenty; for {record['mistaken']:.0%} it is nearer than the limit, such as six o'clock "
        "for seven o'clock and the orange square for the yellow one. So with all images "
        "protected many that are no copies are refused, and with a few hardly any.",
    ]
    return {"copies": "\n".join(lines)}
