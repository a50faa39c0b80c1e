"""What the copy benchmark shows: tables, and pairs to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.base import brute_force_table, interval, read_rows, table, write_rows
from benchmarks.copies.draw import image_of, returned
from benchmarks.copies.edits import edits_section
from benchmarks.copies.settings import (
    FINISHED,
    GUARDS,
    LATENT_RADIUS,
    MODELS,
    NONE,
    PUBLISHED,
    Setting,
    answered,
)
from benchmarks.figure import drawn
from unalike.models.emoji import features
from unalike.models.emoji.copies import COPY
from unalike.models.emoji.data import load_images
from unalike.scores import vendi

ROWS, VARIETY, BRUTE_FORCE = "images.parquet", "variety.parquet", "brute_force.json"
PAIRS = 10
_GUARDS = {
    NONE: "none",
    "ivf": "SPELL, approximate search, as published",
    PUBLISHED: "SPELL, exact, moved at the end",
    FINISHED: "finished images, drawn again",
}
_SETS = {"all": "All training images", "flags": "Flags", "hearts": "Hearts of one colour"}
Row = dict[str, Any]


def page(folder: Path, rows: Sequence[Row]) -> str:
    """The section of the documentation."""
    models = [name for name in MODELS if any(r["model"] == name for r in rows)]
    parts = [
        "## Shield: what people call a copy",
        "How many finished images show a protected one, without a shield, with the published one, "
        "and with one of finished images? `python -m benchmarks copies`",
        "Protected are all images that the models were trained on, their flags of countries, or "
        "their hearts of one colour. The published shields are of latents with radius "
        f"{LATENT_RADIUS:g}. The last one is of two sets: the same latents, and copy-detection "
        f"descriptors (`emoji-copies`) with radius {COPY:g}; finished images count, and what is "
        "inside is restarted, drawn from other seeds, and refused. Every finished image was "
        "rounded to 8 bits, encoded again and compared with every protected one by brute force. "
        "Named is an image that the judge of the emoji model, which the shields do not know, "
        "takes for a protected one. Right are those that it takes for one that the prompt asks "
        "for, of all that were returned. Intervals are 95%, over prompts. Refused with an answer "
        "counts the prompts alone that have a right image which is not protected.",
    ]
    for model in models:
        steps, scale = MODELS[model].steps, MODELS[model].guidance_scale
        parts += [
            f"### `{model}`, {steps} steps, guidance scale {scale:g}",
            tables_of(model, rows, folder),
            _where_few_are_redrawn([r for r in rows if r["model"] == model]),
        ]
    parts += [
        edits_section(folder),
        _verified(folder),
        "![Images without a shield, the protected images that they are nearest to, and the same "
        "seeds with each shield](../benchmarks/results/copies/pairs.png)",
        "The pairs are the first image of each prompt, whatever it shows; black ones are refused.",
    ]
    return "\n\n".join(part for part in parts if part)


def tables_of(model: str, rows: Sequence[Row], folder: Path) -> str:
    """The tables of a model, one for each protected set."""
    parts = []
    for name, title in _SETS.items():
        own = [r for r in rows if r["model"] == model and r["protected"] == name]
        if own:
            parts += [f"**{title}** protected:", _table(own, folder)]
    return "\n\n".join(parts)


def _where_few_are_redrawn(rows: Sequence[Row]) -> str:
    """What the shield of finished images costs where fewer than a tenth are drawn again."""
    groups: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for r in rows:
        own = groups.setdefault((r["protected"], r["prompt"]), {})
        own.setdefault(r["guard"], []).append(r)
    few = [
        own
        for own in groups.values()
        if FINISHED in own and sum(r["restarts"] > 0 for r in own[FINISHED]) < 0.1 * len(own[NONE])
    ]
    if not few:
        return ""
    kept, plain = ([r for own in few for r in own[guard]] for guard in (FINISHED, NONE))
    seconds = sum(r["seconds"] for r in kept) / sum(r["seconds"] for r in plain)
    return (
        f"For the {len(few)} pairs of a set and a prompt where fewer than a tenth of the images "
        f"were drawn again, {sum(r['restarts'] > 0 for r in kept)} of {len(kept)} in all, the "
        f"shield of finished images took ×{seconds:.2f} the time of none: every finished image is "
        "encoded again and described."
    )


def short_tables(folder: Path) -> str:
    """The tables of the model in few steps, and how they are to be read."""
    model = next(iter(MODELS))
    return (
        f"Measured on `{model}` in {MODELS[model].steps} steps. Inside as copies are finished "
        f"images nearer than {COPY:g} to a protected one in `emoji-copies`; named are those that "
        "the judge of the emoji model takes for a protected one:\n\n"
        + tables_of(model, read_rows(folder / ROWS), folder)
    )


def _table(rows: Sequence[Row], folder: Path) -> str:
    variety = {
        (r["model"], r["protected"], r["guard"], r["prompt"]): r["vendi"]
        for r in read_rows(folder / VARIETY)
    }
    plain = [r for r in rows if r["guard"] == NONE]
    seconds = sum(r["seconds"] for r in plain) / max(1, len(plain))
    calls = sum(r["evaluations"] for r in plain) / max(1, len(plain))
    lines = []
    for guard in GUARDS:
        own = [r for r in rows if r["guard"] == guard]
        kept = [r for r in own if not r["refused"]]
        if not own:
            continue
        could = [r for r in own if answered(r["prompt"], r["protected"])]
        inside = sum(r["copies"] < COPY for r in kept)
        scores = [
            v for (m, p, g, _), v in variety.items()
            if (m, p, g) == (own[0]["model"], own[0]["protected"], guard) and v is not None
        ]  # fmt: skip
        lines.append(
            [
                _GUARDS[guard],
                f"{inside} of {len(kept)}",
                _share(kept, lambda r: r["named"]),
                f"{sum(r['refused'] for r in own)} of {len(own)}",
                f"{sum(r['refused'] for r in could)} of {len(could)}" if could else "–",
                _share(kept, lambda r: r["right"]),
                f"{sum(scores) / len(scores):.2f}" if scores else "–",
                f"×{sum(r['evaluations'] for r in own) / len(own) / calls:.2f}",
                f"×{sum(r['seconds'] for r in own) / len(own) / seconds:.2f}",
            ]
        )
    return table(
        [
            "shield",
            "inside as copies",
            "named",
            "refused",
            "refused with an answer",
            "right",
            "Vendi score",
            "evaluations",
            "time",
        ],
        lines,
    )


def _share(rows: Sequence[Row], value: Callable[[Row], bool]) -> str:
    """The share of images with its interval over prompts."""
    if not rows:
        return "–"
    prompts = list(dict.fromkeys(r["prompt"] for r in rows))
    counts = torch.tensor(
        [
            [sum(value(r) for r in rows if r["prompt"] == p), sum(r["prompt"] == p for r in rows)]
            for p in prompts
        ],
        dtype=torch.float64,
    )
    low, high = interval(counts, _ratio)
    return f"{counts[:, 0].sum() / counts[:, 1].sum():.1%} ({low:.1%} to {high:.1%})"


def _ratio(drawn: Tensor) -> Tensor:
    total = drawn.sum(dim=1)
    return total[:, 0] / total[:, 1]


def add_variety(rows: Sequence[Row], folder: Path) -> None:
    """Write `variety.parquet`: the Vendi score of the returned images of each prompt, on the
    judge's features; None where there are fewer than two.
    """
    keys = dict.fromkeys((r["model"], r["protected"], r["guard"], r["prompt"]) for r in rows)
    found = []
    for model, protected, guard, prompt in keys:
        images = returned(Setting(model, protected, guard).name, prompt, folder)
        score = vendi(features(images)) if len(images) > 1 else None
        names = {"model": model, "protected": protected, "guard": guard, "prompt": prompt}
        found.append({**names, "vendi": score})
    write_rows(folder / VARIETY, found)


def _verified(folder: Path) -> str:
    found = brute_force_table(folder / BRUTE_FORCE, 4)
    if not found:
        return ""
    return (
        "`benchmarks/brute_force.py`, which shares no code with the package, says of the "
        "descriptors of the images that were returned:\n\n" + found
    )


def draw_pairs(rows: Sequence[Row], folder: Path) -> None:
    """Write `pairs.png`: for prompts of the model in few steps with all images protected the first
    image, the protected one that it is nearest to, and the same seed with each shield.
    """
    first = next(iter(MODELS))
    name = "all" if any(r["protected"] == "all" for r in rows) else rows[0]["protected"]
    plain = [
        r for r in rows
        if (r["model"], r["protected"], r["guard"], r["seed"]) == (first, name, NONE, 0)
    ]  # fmt: skip
    plain = plain[:: max(1, len(plain) // PAIRS)][:PAIRS]
    guards = [g for g in GUARDS if any(r["guard"] == g for r in rows)]
    titles = ["no shield", "protected", *(_SHORT[g] for g in guards if g != NONE)]
    with drawn(folder / "pairs.png", 1.1 * len(plain) + 1.4, 1.15 * len(titles) + 0.3) as figure:
        panels = figure.subplots(len(titles), len(plain), squeeze=False)
        for k, row in enumerate(plain):
            shown = {
                g: image_of(Setting(first, name, g).name, row["prompt"], 0, folder) for g in guards
            }
            pictures = [shown[NONE], load_images()[row["nearest"]] / 255]
            pictures += [shown[g] for g in guards if g != NONE]
            for panel, image in zip(panels[:, k], pictures, strict=True):
                panel.imshow(image.permute(1, 2, 0).numpy())
                panel.set(xticks=[], yticks=[])
                panel.spines[:].set_visible(False)
            prompt = row["prompt"]
            panels[0][k].set_title(prompt if len(prompt) < 16 else prompt[:14] + "…", fontsize=7)
        for panel, title in zip(panels[:, 0], titles, strict=True):
            panel.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8)


_SHORT = {"ivf": "SPELL, IVF", PUBLISHED: "SPELL, moved", FINISHED: "finished images"}
