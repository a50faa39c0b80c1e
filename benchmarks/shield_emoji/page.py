"""What the copying benchmark shows: tables, the distribution of distances, and pairs to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.base import brute_force_table, interval, read_rows, table
from benchmarks.figure import COLOURS, drawn
from benchmarks.shield_emoji.settings import GUIDANCE_SCALE, STEPS

PAIRS = 8
ROUNDING = 1e-4
"""An image is inside where it is nearer than the radius by more than this share of it: SPELL alone
ends on the surface, up to rounding.
"""
ROWS, GAPS, BRUTE_FORCE = "images.parquet", "gaps.parquet", "brute_force.json"
Row = dict[str, Any]


def page(folder: Path, rows: Sequence[Row]) -> str:
    """The section of the documentation."""
    radii = sorted({r["radius"] for r in rows if r["guard"] == "exact"})
    every = chosen(rows, "none")
    parts = [
        "## Shield: how many images are copies, and what keeping them out costs",
        "How many images of the emoji model are copies of the images that it was trained on, "
        "without and with a shield around all of them, and what does that cost? `python -m "
        "benchmarks shield_emoji`",
        f"{len(every)} images for {len({r['prompt'] for r in every})} prompts, half of them full "
        f"names of one image, half head words of many, with {STEPS} steps and CFG "
        f"{GUIDANCE_SCALE:g}. Inside is an image whose final latent is nearer than the radius to "
        f"that of a training image by more than {ROUNDING:.2%} of it, and to the last bit where "
        "it is nearer at all, measured by brute force against images encoded anew. The exact "
        "shield is SPELL with the search of this package and the check after the last step; IVF "
        "is SPELL as it was published, with an approximate search (Faiss, √n cells) and no check. "
        "Right are images whose nearest glyph is one that the prompt asks for, shown are those "
        "that the judge accepts as that: what is kept away from all glyphs cannot be shown "
        "exactly. Intervals are 95%, over prompts.",
        _main(rows, radii),
        "Most of what is moved at the end is moved by a millionth: one ball and SPELL lead "
        f"exactly to its surface, and rounding decides. Balls overlap: {_overlap(folder, radii)}",
        _verified(folder),
        "Encoded again are the finished images, rounded to 8 bits: what others can measure. The "
        "autoencoder leads many back towards the image that their latent was moved away from, so "
        "what is kept out in latent space is not kept out there.",
        _image(rows),
        "On every fourth prompt, beside the approximate search:",
        _compared(rows, radii),
        _flags(rows),
        (
            "![Distances to the nearest training "
            "image](../benchmarks/results/shield_emoji/distances.png)"
        ),
        (
            "![Images, the training images that they copy, and the same seeds with the "
            "shield](../benchmarks/results/shield_emoji/pairs.png)"
        ),
    ]
    return "\n\n".join(part for part in parts if part)


def chosen(
    rows: Sequence[Row], guard: str, radius: float = 0.0, nprobe: int = 0, protected: str = "all"
) -> list[Row]:
    """The rows of a setting."""
    setting = (guard, radius, nprobe, protected)
    return [r for r in rows if (r["guard"], r["radius"], r["nprobe"], r["protected"]) == setting]


def share(rows: Sequence[Row], value: Callable[[Row], float], form: str = "{:.2%}") -> str:
    """The mean over images of a value, with its interval over prompts."""
    prompts = list(dict.fromkeys(r["prompt"] for r in rows))
    means = torch.tensor(
        [[value(r) for r in rows if r["prompt"] == prompt] for prompt in prompts],
        dtype=torch.float64,
    ).mean(dim=1)
    low, high = interval(means)
    return f"{form.format(means.mean().item())} ({form.format(low)} to {form.format(high)})"


def _columns(own: Sequence[Row], plain: Sequence[Row], radius: float) -> list[str]:
    inside, deeper = (sum(r["distance"] < part * radius for r in own) for part in (1, 1 - ROUNDING))
    again = [r["again"] < radius for r in own if r["again"] is not None]
    seconds, base = (sum(r["seconds"] for r in part) / len(part) for part in (own, plain))
    return [
        f"{deeper} of {len(own)} ({deeper / len(own):.2%})",
        str(inside),
        f"{sum(again) / len(again):.1%}" if again else "",
        share(own, lambda r: r["guided"] > 0, "{:.0%}"),
        f"{sum(r['moved'] for r in own) / len(own):.1%}",
        share(own, lambda r: r["right"], "{:.1%}"),
        share(own, lambda r: r["shown"], "{:.1%}"),
        f"{1000 * seconds:.0f} ms ({seconds / base - 1:+.1%})",
    ]


_HEAD = [
    "inside",
    "to the last bit",
    "encoded again",
    "guided",
    "moved at the end",
    "right",
    "shown",
    "time per image",
]


def _main(rows: Sequence[Row], radii: Sequence[float]) -> str:
    lines, plain = [], chosen(rows, "none")
    for radius in radii:
        lines.append([f"{radius:g}", "none", *_columns(plain, plain, radius)])
        lines.append(
            [f"{radius:g}", "exact", *_columns(chosen(rows, "exact", radius), plain, radius)]
        )
    return table(["radius", "shield", *_HEAD], lines)


def _image(rows: Sequence[Row]) -> str:
    """The guard of the finished image, beside the others on the same images."""
    own = [r for r in rows if r["guard"] == "image"]
    if not own:
        return ""
    radius, kept = own[0]["radius"], [r for r in own if not r["refused"]]
    same = {(r["prompt"], r["seed"]) for r in own}
    few = [r for r in rows if (r["prompt"], r["seed"]) in same]
    plain, exact = chosen(few, "none"), chosen(few, "exact", radius)
    lines = [
        [name, *_columns(part, plain, radius)[:-1]]
        for name, part in (
            ("none", plain),
            ("exact, in latent space", exact),
            ("of the finished image", kept),
        )
    ]
    return (
        f"A shield of the finished image, `--space latents:emoji`, holds there too: of {len(own)} "
        f"images at radius {radius:g} {len(own) - len(kept)} were refused, and "
        f"{sum(r['again'] < radius for r in kept)} of the others are inside when they are encoded "
        "again. Every step decodes and encodes the batch, and follows gradients for the images "
        "inside, which takes many times as long:\n\n" + table(["shield", *_HEAD[:-1]], lines)
    )


def _compared(rows: Sequence[Row], radii: Sequence[float]) -> str:
    prompts = {r["prompt"] for r in rows if r["guard"] == "ivf"}
    few = [r for r in rows if r["prompt"] in prompts]
    plain, lines = chosen(few, "none"), []
    for radius in radii:
        lines.append([f"{radius:g}", "none", *_columns(plain, plain, radius)])
        for nprobe in sorted({r["nprobe"] for r in few if r["guard"] == "ivf"}):
            lines.append(
                [
                    f"{radius:g}",
                    f"IVF, {nprobe} probed",
                    *_columns(chosen(few, "ivf", radius, nprobe), plain, radius),
                ]
            )
        lines.append(
            [f"{radius:g}", "exact", *_columns(chosen(few, "exact", radius), plain, radius)]
        )
    return table(["radius", "shield", *_HEAD], lines)


def _overlap(folder: Path, radii: Sequence[float]) -> str:
    gaps = torch.tensor([row["distance"] for row in read_rows(folder / GAPS)], dtype=torch.float64)
    shares = ", ".join(
        f"{(gaps < 2 * radius).double().mean().item():.0%} at radius {radius:g}" for radius in radii
    )
    return (
        f"of the {len(gaps)} images so many have a neighbour whose ball meets their own: {shares}."
    )


def _verified(folder: Path) -> str:
    found = brute_force_table(folder / BRUTE_FORCE, 6)
    if not found:
        return ""
    return (
        "`benchmarks/brute_force.py`, which shares no code with the package and compares each "
        "final latent with each protected vector in float64, says of the images drawn beside the "
        "exact shields:\n\n" + found
    )


def _flags(rows: Sequence[Row]) -> str:
    own = [r for r in rows if r["protected"] == "flags"]
    if not own:
        return ""
    twins = {(r["prompt"], r["seed"]): r["digest"] for r in chosen(rows, "none")}
    same = [r for r in own if r["digest"] == twins[r["prompt"], r["seed"]]]
    flags = [r for r in own if "flag" in r["prompt"].lower()]
    others = [r for r in own if r not in flags]
    radius = own[0]["radius"]
    kept = sum(r in same for r in others)
    text = (
        f"With the flags alone protected (radius {radius:g}), {kept} of the {len(others)} images "
        "of other prompts are the same bit by bit"
    )
    if flags:
        text += (
            f", and of the {len(flags)} images of flags {sum(r in same for r in flags)} are; "
            f"{sum(r['distance'] < radius for r in flags)} of those are inside"
        )
    return text + "."


def draw_distances(rows: Sequence[Row], folder: Path) -> None:
    """Write `distances.png`: the share of images nearer to a training image than a distance,
    without and with each shield.
    """
    radii = sorted({r["radius"] for r in rows if r["guard"] == "exact" and r["protected"] == "all"})
    with drawn(folder / "distances.png", 6, 3.4) as figure:
        panel = figure.subplots()
        for i, radius in enumerate([0.0, *radii]):
            own = chosen(rows, "exact", radius) if radius else chosen(rows, "none")
            distances = torch.tensor([r["distance"] for r in own]).sort().values
            heights = torch.arange(1, len(own) + 1) / len(own)
            label = f"shield of radius {radius:g}" if radius else "no shield"
            panel.step(
                distances,
                heights,
                where="post",
                color=COLOURS[i],
                label=label,
                linestyle=("-", "--", "-.", ":")[i % 4],
            )
        panel.set_xlim(0, 15)
        panel.set(
            xlabel="distance to the nearest training image (latents)",
            ylabel="share of images nearer",
        )
        panel.legend(loc="lower right")


def draw_pairs(rows: Sequence[Row], folder: Path) -> None:
    """Write `pairs.png`: the closest unguarded image of some prompts, the image that it copies,
    and its seed beside each shield.
    """
    from benchmarks.shield_emoji.draw import drawn_before, picture

    radii = sorted({r["radius"] for r in rows if r["guard"] == "exact" and r["protected"] == "all"})
    plain = sorted(chosen(rows, "none"), key=lambda r: r["distance"])
    prompts = list(dict.fromkeys(r["prompt"] for r in plain))
    spread = [
        prompts[i * len(prompts) // min(PAIRS, len(prompts))]
        for i in range(min(PAIRS, len(prompts)))
    ]
    first = [next(r for r in plain if r["prompt"] == prompt) for prompt in spread]
    names = ["no shield", "training image", *(f"radius {radius:g}" for radius in radii)]
    with drawn(folder / "pairs.png", 1.15 * len(first) + 1.2, 1.2 * len(names) + 0.2) as figure:
        panels = figure.subplots(len(names), len(first), squeeze=False)
        for k, row in enumerate(first):
            own = [
                drawn_before(folder, "none-all-0-0", row["prompt"], row["seed"]),
                picture(row["nearest"]),
            ]
            own += [
                drawn_before(folder, f"exact-all-{radius:g}-0", row["prompt"], row["seed"])
                for radius in radii
            ]
            for panel, image in zip(panels[:, k], own, strict=True):
                panel.imshow(image.permute(1, 2, 0).numpy())
                panel.set(xticks=[], yticks=[])
                panel.spines[:].set_visible(False)
            panels[0][k].set_title(
                row["prompt"] if len(row["prompt"]) < 18 else row["prompt"][:16] + "…", fontsize=7
            )
        for panel, name in zip(panels[:, 0], names, strict=True):
            panel.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
