"""`grid.png`: all images of a run on one sheet, beside the unguided images of the same seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from unalike.images import read_image

PROMPTS_SHOWN = 24
IMAGES_SHOWN = 64
_GAP, _PANEL_GAP, _MARGIN, _LINE = 6, 40, 20, 24
_INK, _PAPER, _FRAME = "#1b1b1f", "#ffffff", "#c2410c"


@dataclass(frozen=True)
class Cell:
    """One image of the sheet and whether it gets a frame."""

    image: Image.Image
    framed: bool = False


@dataclass(frozen=True)
class Panel:
    """Images under one heading."""

    heading: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Band:
    """One prompt: its panels side by side."""

    caption: str
    panels: Sequence[Panel]


def draw_grid(bands: Sequence[Band], legend: Sequence[str] = ()) -> Image.Image:
    """The sheet, a band for each prompt, `legend` below.

    At most `PROMPTS_SHOWN` bands of `IMAGES_SHOWN` images a panel are drawn; a line of the legend
    says so where there are more.

    Args:
        bands: at least one, with at least one image.
        legend: lines of text.

    Example:
        >>> cells = [Cell(Image.new("RGB", (64, 64), "red"))] * 4
        >>> draw_grid([Band("heart", [Panel("guided", cells)])], ["seeds 0 to 3"]).mode
        'RGB'
    """
    most = max(len(p.cells) for b in bands for p in b.panels)
    lines = list(legend)
    if len(bands) > PROMPTS_SHOWN or most > IMAGES_SHOWN:
        lines.append(
            f"the first {min(len(bands), PROMPTS_SHOWN)} prompts and {min(most, IMAGES_SHOWN)} "
            "images of each are shown here"
        )
    bands = bands[:PROMPTS_SHOWN]
    columns = math.ceil(math.sqrt(min(most, IMAGES_SHOWN)))
    side = _tile_side(next(c for b in bands for p in b.panels for c in p.cells).image)
    panel_width = columns * (side + _GAP) - _GAP
    panels = max(len(b.panels) for b in bands)
    font = ImageFont.load_default(size=15)
    wide = max([font.getlength(t) for t in (*lines, *(b.caption for b in bands))], default=0)
    width = 2 * _MARGIN + max(
        panels * (panel_width + _PANEL_GAP) - _PANEL_GAP, min(math.ceil(wide), 1600)
    )
    heights = [_band_height(b, columns, side) for b in bands]
    sheet = Image.new("RGB", (width, 2 * _MARGIN + sum(heights) + _LINE * len(lines)), _PAPER)
    draw, top = ImageDraw.Draw(sheet), _MARGIN
    for band, height in zip(bands, heights, strict=True):
        draw.text((_MARGIN, top), band.caption, _INK, ImageFont.load_default(size=18))
        for i, panel in enumerate(band.panels):
            _draw_panel(
                sheet,
                panel,
                left=_MARGIN + i * (panel_width + _PANEL_GAP),
                top=top + _LINE,
                columns=columns,
                side=side,
            )
        top += height
    for line in lines:
        draw.text((_MARGIN, top), line, _INK, font)
        top += _LINE
    return sheet


def _draw_panel(
    sheet: Image.Image, panel: Panel, *, left: int, top: int, columns: int, side: int
) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.text((left, top), panel.heading, _INK, ImageFont.load_default(size=15))
    for i, cell in enumerate(panel.cells[:IMAGES_SHOWN]):
        x, y = left + i % columns * (side + _GAP), top + _LINE + i // columns * (side + _GAP)
        sheet.paste(_tile(cell.image, side), (x, y))
        if cell.framed:
            draw.rectangle((x - 2, y - 2, x + side + 1, y + side + 1), outline=_FRAME, width=3)


def _band_height(band: Band, columns: int, side: int) -> int:
    rows = math.ceil(min(max(len(p.cells) for p in band.panels), IMAGES_SHOWN) / columns)
    return 2 * _LINE + rows * (side + _GAP) + _LINE // 2


def _tile_side(image: Image.Image) -> int:
    """Small images are magnified by a whole factor to 96 pixels or more, large ones reduced to
    256.
    """
    side = max(image.size)
    return min(256, side * math.ceil(96 / side))


def _tile(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    tile = Image.new("RGB", (side, side), _PAPER)
    small = read_image(image).resize(
        size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    )
    tile.paste(small, ((side - size[0]) // 2, (side - size[1]) // 2))
    return tile
