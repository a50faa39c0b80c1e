import pytest
from PIL import Image, ImageColor

from unalike.runs import grid
from unalike.runs.grid import Band, Cell, Panel, draw_grid


def cells(n, *, framed=(), size=(64, 64), colour="blue"):
    return [Cell(Image.new("RGB", size, colour), i in framed) for i in range(n)]


def count(sheet, colour):
    return sum(n for n, c in sheet.getcolors(1 << 24) if c == ImageColor.getrgb(colour))


def test_every_image_is_drawn_when_prompts_and_panels_differ_in_number():
    sheet = draw_grid(
        [
            Band("cat", [Panel("a", cells(3)), Panel("b", cells(2))]),
            Band("dog", [Panel("b", cells(4))]),
        ]
    )
    assert count(sheet, "blue") == 9 * 128 * 128


def test_frame_is_around_marked_images_alone_when_some_are_marked():
    assert count(draw_grid([Band("cat", [Panel("a", cells(4))])]), grid._FRAME) == 0
    one, two = (
        count(draw_grid([Band("cat", [Panel("a", cells(4, framed=f))])]), grid._FRAME)
        for f in ((1,), (1, 2))
    )
    assert two == 2 * one > 0


@pytest.mark.parametrize(
    ("size", "expected"),
    [((16, 16), 96 * 96), ((64, 64), 128 * 128), ((1024, 512), 256 * 128), ((100, 200), 200 * 100)],
)
def test_image_keeps_its_shape_when_magnified_or_reduced(size, expected):
    assert count(draw_grid([Band("cat", [Panel("a", cells(1, size=size))])]), "blue") == expected


def test_sheet_says_so_when_there_are_more_images_than_it_shows(monkeypatch):
    monkeypatch.setattr(grid, "IMAGES_SHOWN", 4)
    full, cut = (draw_grid([Band("cat", [Panel("a", cells(n))])]) for n in (4, 5))
    assert count(cut, "blue") == 4 * 128 * 128
    assert cut.height == full.height + 24


def test_sheet_is_wide_enough_when_the_legend_is_longer_than_the_images():
    plain, legend = (
        draw_grid([Band("cat", [Panel("a", cells(1))])]),
        draw_grid([Band("cat", [Panel("a", cells(1))])], ["a long line " * 8]),
    )
    assert legend.width > plain.width
    assert legend.crop((legend.width - 20, 0, legend.width, legend.height)).getcolors() == [
        (20 * legend.height, (255, 255, 255))
    ]
