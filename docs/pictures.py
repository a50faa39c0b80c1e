"""Draws the images of the README and of the models' cards: `python docs/pictures.py`, two minutes
on two cores.

None of the samples is picked: the seeds are the first ones.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # training is a package of the repository

import unalike
from training.digits.measure import draw as draw_digits
from training.emoji.measure import draw
from unalike.models import digits
from unalike.models.emoji.data import captions, entries, load_images
from unalike.pipelines.catalogue import MODELS
from unalike.pipelines.loading import load

PICTURES = Path(__file__).parent / "pictures"
COMPARED = ("thumbs up", "farmer", "police officer", "train")
HEADS = (
    "heart", "cat", "flag", "clock", "bird", "fruit", "face", "person running", "animal", "drink",
    "car", "zodiac", "kiss", "police officer",
)  # fmt: skip
SEEDS = 12


def compare(pipe: Any) -> Image.Image:
    """Eight images of each prompt in four steps: plain, and with `Auto`, both from seeds 0 to 7."""
    guided = unalike.guide(pipe, unalike.Auto())
    sides = [
        [draw(call, [prompt] * 8, seed=0, guidance_scale=1.0, steps=4) for prompt in COMPARED]
        for call in (pipe, guided)
    ]
    left = sheet(COMPARED, sides[0], label=100)
    right = sheet([""] * len(COMPARED), sides[1], label=24)
    page = Image.new("RGB", (left.width + right.width, left.height + 28), "white")
    font = ImageFont.load_default(size=15)
    for part, x, title in (
        (left, 0, "plain: 4 steps"),
        (right, left.width, "Auto: 4 steps, 7 evaluations"),
    ):
        page.paste(part, (x, 28))
        pen = ImageDraw.Draw(page)
        pen.text((x + (100 if x == 0 else 24), 4), title, "#1b1b1f", font)
    return page


def few_step() -> Image.Image:
    """Eight seeds of each head word in four, two and one steps."""
    rows: list[list[Tensor]] = []
    for name in ("emoji-turbo", "emoji-turbo-2", "emoji-turbo-1"):
        pipe = quiet(name)
        steps = MODELS[name].steps
        rows.append([draw(pipe, [p] * 8, seed=0, guidance_scale=1.0, steps=steps) for p in HEADS])
    gap = torch.ones(1, *rows[0][0].shape[1:])
    return sheet(HEADS, [torch.cat([a, gap, b, gap, c]) for a, b, c in zip(*rows, strict=True)])


def flow() -> Image.Image:
    """Eight seeds of each head word."""
    call = partial(quiet("emoji-flow"), **MODELS["emoji-flow"].arguments)
    rows = [draw(call, [p] * 8, seed=0, guidance_scale=2.0, steps=28) for p in HEADS]
    return sheet(HEADS, rows)


def quiet(name: str) -> Any:
    """A shipped model without its progress bar."""
    pipe = load(name)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def heads(pipe: Any, guidance_scale: float) -> Image.Image:
    """Samples of head words without guidance, a row a prompt, a column a seed."""
    rows = [draw(pipe, [prompt] * SEEDS, seed=0, guidance_scale=guidance_scale) for prompt in HEADS]
    return sheet(HEADS, rows)


def names(pipe: Any) -> Image.Image:
    """A sample of every sixtieth full name at CFG 3, above the glyph of that name."""
    every = range(0, len(entries()), 60)
    drawn = draw(pipe, [captions()[i].full for i in every], seed=0, guidance_scale=3.0)
    glyphs = load_images()[[entries()[i].image for i in every]] / 255
    rows = [part for both in zip(drawn.split(16), glyphs.split(16), strict=True) for part in both]
    return sheet(["drawn", "meant"] * (len(rows) // 2), rows, label=70)


def handwriting(pipe: Any) -> Image.Image:
    """The first six real images of each digit, and six samples at each of three guidance scales,
    enlarged three times.
    """
    side, columns, head = 48, 6, 30
    scales = (1.0, 2.0, 4.0)
    page = Image.new("RGB", ((side * columns + 12) * (1 + len(scales)), head + side * 10), "white")
    for i, title in enumerate(["real", *(f"CFG {scale:g}" for scale in scales)]):
        left = i * (side * columns + 12)
        ImageDraw.Draw(page).text((left + 4, 6), title, "#1b1b1f", ImageFont.load_default(size=15))
        for label in range(10):
            real = digits.load_images()[digits.truth(label)[:columns]] / 255
            row = (
                real
                if i == 0
                else draw_digits(pipe, [label] * columns, seed=0, guidance_scale=scales[i - 1])
            )
            for j, picture in enumerate((255 * row).round().byte().permute(0, 2, 3, 1)):
                tile = Image.fromarray(picture.numpy()).resize(
                    (side, side), Image.Resampling.NEAREST
                )
                page.paste(tile, (left + side * j, head + side * label))
    return page


def sheet(
    labels: Sequence[str], rows: Sequence[Tensor], *, side: int = 64, label: int = 130
) -> Image.Image:
    """Pictures (n, 3, 64, 64) in [0, 1], a row for each label."""
    page = Image.new(
        "RGB", (label + side * max(len(row) for row in rows), side * len(rows)), "white"
    )
    for i, (text, row) in enumerate(zip(labels, rows, strict=True)):
        ImageDraw.Draw(page).text(
            (8, side * i + side // 2 - 8), text, "#1b1b1f", ImageFont.load_default(size=15)
        )
        for j, picture in enumerate((255 * row).round().byte().permute(0, 2, 3, 1)):
            page.paste(Image.fromarray(picture.numpy()), (label + side * j, side * i))
    return page


def main() -> None:
    """Draw and save all of them."""
    PICTURES.mkdir(exist_ok=True)
    pipe = quiet("emoji")
    pages = {
        "compare": compare(quiet("emoji-turbo")),
        "turbo": few_step(),
        "flow": flow(),
        "heads-cfg3": heads(pipe, 3.0),
        "heads-cfg7.5": heads(pipe, 7.5),
        "names": names(pipe),
    }
    pages["digits"] = handwriting(quiet("digits"))
    for name, page in pages.items():
        page.save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
