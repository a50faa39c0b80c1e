"""What the benchmark of regions shows: changes inside and outside by prompt, and images with the
region's outline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks.base import interval, read_rows, table
from benchmarks.figure import COLOURS, drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS, FIGURE = "images.parquet", "regions.png"
Row = dict[str, Any]
_MEASURED, _SIDES = ("latents", "pixels"), ("inside", "outside")


@dataclass(frozen=True)
class Shown:
    """Pictures of one case.

    Args:
        title: what they are.
        images: for each row its name and images (n, 3, h, w) in [0, 1]; the last row's get the
            outline.
        regions: (n, h, w) bool.
    """

    title: str
    pictures: dict[str, Tensor]
    regions: Tensor


def draw_figure(cases: Sequence[Shown], folder: Path) -> None:
    """Write the figure: for each case its rows of images, two cases side by side."""
    lines, columns = -(-len(cases) // 2), min(2, len(cases))
    with drawn(folder / FIGURE, 5.6 * columns, 2.75 * lines) as figure:
        parts = figure.subfigures(lines, columns, squeeze=False).flatten()
        for part, case in zip(parts, cases, strict=False):
            part.suptitle(case.title, fontsize=9)
            panels = part.subplots(len(case.pictures), len(case.regions), squeeze=False)
            for row, (name, pictures) in zip(panels, case.pictures.items(), strict=True):
                for panel, picture, region in zip(row, pictures, case.regions, strict=True):
                    panel.imshow(picture.permute(1, 2, 0).numpy())
                    panel.set(xticks=[], yticks=[])
                    panel.grid(visible=False)
                    panel.spines[:].set_visible(False)
                    if name == list(case.pictures)[-1]:
                        _outline(panel, region)
                row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=7)


def _outline(panel: Axes, region: Tensor) -> None:
    """Draw a line around a region (h, w), also where it ends at the image's edge."""
    height, width = region.shape
    padded = torch.nn.functional.pad(region.float(), (1, 1, 1, 1))
    panel.contour(
        range(-1, width + 1),
        range(-1, height + 1),
        padded.numpy(),
        levels=[0.5],
        colors=COLOURS[3],
        linewidths=1.2,
    )
    panel.set(xlim=(-1.5, width + 0.5), ylim=(height + 0.5, -1.5))


def page(folder: Path) -> str:
    """The section of the documentation."""
    rows = read_rows(folder / ROWS)
    families = {
        family: [r for r in rows if r["family"] == family]
        for family in dict.fromkeys(r["family"] for r in rows)
    }
    images = 1 + max(r["image"] for r in rows)
    parts = [
        "## Regions: does guidance stay where it was asked for?",
        "`SPARKE(region=…)` corrects the prediction in a box, a mask, or where the model's "
        "attention sees words, and nowhere else. What becomes of the image? `python -m benchmarks "
        "regions`",
        f"{images} images of each prompt of the emoji model, 20 steps, CFG 3, without guidance, "
        "guided everywhere and guided in the region, all from the same seeds. Changes are against "
        "the image without guidance: of final latents the root mean square, of pixels the mean "
        "absolute difference, in percent of the range. A word's region is read anew at each step; "
        "inside is what was in it at any step, outside what never was. Intervals are 95%, by a "
        "bootstrap over prompts.",
        _exact(rows),
        *(_family(name, own) for name, own in families.items()),
        (
            "![Images without guidance, guided everywhere, and in the "
            f"region](../benchmarks/results/regions/{FIGURE})"
        ),
        "What this does not show: that the rest stays as it was. The correction is zero there, "
        "but the denoiser sees the whole image at the next step and answers to what changed, so "
        "that the rest moves too, the more the earlier the correction was: in the first steps the "
        "whole image follows. Words are no better than the model's attention, here on 8×8 places: "
        "a word that is not in the image is found somewhere all the same, and other places at "
        "each step.",
    ]
    return "\n\n".join(parts)


def _exact(rows: Sequence[Row]) -> str:
    outside, inside = (max(r[name] for r in rows) for name in ("largest_outside", "largest_inside"))
    return (
        f"Over all {len(rows)} guided images and all steps the largest correction of a prediction "
        f"outside of the region, as the scheduler got it, was {outside:g}; inside it was "
        f"{inside:.2g}."
    )


def _family(name: str, rows: Sequence[Row]) -> str:
    prompts = {
        prompt: [r for r in rows if r["prompt"] == prompt]
        for prompt in dict.fromkeys(r["prompt"] for r in rows)
    }
    words = name == "words"
    columns = [
        *(
            [
                "prompt",
                "word",
                "share of the image at a step",
                "at any step",
                "first and last step agree",
            ]
            if words
            else ["prompt"]
        ),
        *(
            f"{how}{what} inside / outside"
            for how in ("", "guided everywhere: ")
            for what in _MEASURED
        ),
    ]
    lines = []
    for prompt, own in prompts.items():
        where = [
            own[0]["region"],
            *(f"{_mean(own, name):.0%}" for name in ("share_of_a_step", "share", "agreement")),
        ]
        changes = [
            _pair(own, f"{how}_{what}") for how in ("region", "everywhere") for what in _MEASURED
        ]
        lines.append([prompt, *(where if words else []), *changes])
    first, (within, out) = rows[0], (f"region_pixels_{side}" for side in _SIDES)
    until = f"until {first['stop']:.0%} of the steps" if first["stop"] < 1 else "at all steps"
    where = "where the model sees a word" if words else "in the left half"
    sentences = [
        f"**{name.capitalize()}**: {where}, strength {first['strength']:g} {until}. "
        f"{_summary(list(prompts.values()))}"
    ]
    if words:
        sentences.append(
            "The region of the first step and that of the last have "
            f"{_mean(rows, 'agreement'):.0%} of what is in either in common."
        )
    more = [
        f"“{prompt}”"
        for prompt, own in prompts.items()
        if round(_mean(own, out), 3) > round(_mean(own, within), 3)
    ]
    if more:
        sentences.append(f"Pixels change more outside than inside of {', '.join(more)}.")
    return " ".join(sentences) + "\n\n" + table(columns, lines)


def _summary(prompts: Sequence[Sequence[Row]]) -> str:
    """Changes with the region as shares of those with guidance everywhere, and of the outside as a
    share of the inside.
    """
    values = {
        (how, what, side): torch.tensor(
            [_mean(own, f"{how}_{what}_{side}") for own in prompts], dtype=torch.float64
        )
        for how in ("region", "everywhere")
        for what in _MEASURED
        for side in _SIDES
    }

    def share(what: str, side: str, of: tuple[str, str]) -> str:
        pairs = torch.stack([values["region", what, side], values[of[0], what, of[1]]], dim=1)
        pairs = pairs[~pairs.isnan().any(dim=1)]
        if not len(pairs):
            return "–"
        low, high = interval(
            pairs, lambda drawn: drawn[:, :, 0].sum(dim=1) / drawn[:, :, 1].sum(dim=1)
        )
        return f"{(pairs[:, 0].sum() / pairs[:, 1].sum()).item():.0%} ({low:.0%} to {high:.0%})"

    return (
        f"Outside, pixels change {share('pixels', 'outside', ('everywhere', 'outside'))} as much "
        "as with guidance everywhere, latents "
        f"{share('latents', 'outside', ('everywhere', 'outside'))}; inside, pixels "
        f"{share('pixels', 'inside', ('everywhere', 'inside'))}. With the region, pixels outside "
        f"change {share('pixels', 'outside', ('region', 'inside'))} as much as inside."
    )


def _mean(rows: Sequence[Row], name: str) -> float:
    """The mean over the images that have it; NaN where none has."""
    found = [r[name] for r in rows if r[name] is not None]
    return sum(found) / len(found) if found else float("nan")


def _pair(rows: Sequence[Row], name: str) -> str:
    """The means inside and outside."""
    values = [_mean(rows, f"{name}_{side}") for side in _SIDES]
    return " / ".join(
        "–" if v != v else f"{v:.1%}" if name.endswith("pixels") else f"{v:.2f}" for v in values
    )
