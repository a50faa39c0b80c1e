"""The images that are encoded for the benchmark: glyphs, mosaics of them, dead leaves with glyphs
among them, crops of photographs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from unalike.models.emoji.data import entries, load_images

SIDE = 128
_SEED = 20_241_125
_SMALLEST, _LARGEST = 2.0, 96.0  # radii of the discs in pixels
_DISCS = 4096  # of one scene at most; it ends as soon as all is covered
_GLYPHS_AMONG = 0.15  # share of the leaves that are glyphs


@dataclass(frozen=True)
class Kinds:
    """How many images of each kind: glyphs one by one, mosaics of four, scenes of dead leaves,
    crops of two photographs.
    """

    glyphs: int = 3_650
    mosaics: int = 1_150
    leaves: int = 1_750
    crops: int = 450

    def counts(self) -> dict[str, int]:
        """Name → number, in the order in which they are made; no crops where scikit-learn, which
        brings the photographs, is missing.
        """
        crops = self.crops if find_spec("sklearn") else 0
        return {
            "glyphs": self.glyphs,
            "mosaics": self.mosaics,
            "leaves": self.leaves,
            "crops": crops,
        }


def picture(kind: str, number: int) -> Tensor:
    """One image (3, 128, 128) in [0, 1], always the same for the same kind and number.

    - `glyphs`: the emoji of that number, enlarged twofold.
    - `mosaics`: four glyphs in the four corners, the same one (even numbers) or four of one group
      (odd ones): what the emoji model, trained at half that side, draws at this size.
    - `leaves`: discs of one colour or small glyphs that hide each other, each radius `r` with a
      density of `r⁻³` between 2 and 96 pixels: a model of natural images with their statistics at
      all scales (Lee, Mumford & Huang 2001, "Occlusion Models for Natural Images").
    - `crops`: squares of 128 to 384 pixels at a random place of the two photographs that
      scikit-learn brings, mirrored at random.
    """
    return _MAKERS[kind](
        number,
        torch.Generator().manual_seed(_SEED + 1_000_003 * list(_MAKERS).index(kind) + number),
    )


def _glyph(number: int, generator: torch.Generator) -> Tensor:
    return _resized(load_images()[number] / 255, SIDE)


def _mosaic(number: int, generator: torch.Generator) -> Tensor:
    if number % 2:
        chosen = entries()[int(torch.randint(len(entries()), (), generator=generator))]
        same = sorted({entry.image for entry in entries() if entry.group == chosen.group})
        images = [same[i] for i in torch.randint(len(same), (4,), generator=generator).tolist()]
    else:
        images = [_shuffled()[number // 2]] * 4
    a, b, c, d = (load_images()[i] / 255 for i in images)
    return torch.cat([torch.cat([a, b], dim=2), torch.cat([c, d], dim=2)], dim=1)


@cache
def _shuffled() -> list[int]:
    """The numbers of all glyphs: no two mosaics of one glyph are the same."""
    return torch.randperm(
        len(load_images()), generator=torch.Generator().manual_seed(_SEED)
    ).tolist()


def _leaves(number: int, generator: torch.Generator) -> Tensor:
    scene, bare = torch.zeros(3, SIDE, SIDE), torch.ones(SIDE, SIDE, dtype=torch.bool)
    # The inverse of the distribution of a density r⁻³ between the two radii.
    u = torch.rand(_DISCS, generator=generator)
    radii = (_SMALLEST**-2 - u * (_SMALLEST**-2 - _LARGEST**-2)).rsqrt().tolist()
    places = (
        torch.rand(_DISCS, 2, generator=generator) * (SIDE + 2 * _LARGEST) - _LARGEST
    ).tolist()
    colours = _colours(generator)
    glyph = torch.where(
        torch.rand(_DISCS, generator=generator) < _GLYPHS_AMONG, 1, 0
    ) * torch.randint(1, 1 + len(load_images()), (_DISCS,), generator=generator)
    for i, number_of_glyph in enumerate(glyph.tolist()):
        _lay(
            scene,
            bare,
            places[i],
            radii[i],
            colours[i],
            number_of_glyph - 1 if radii[i] >= 8 else -1,
        )
        if not bare.any():
            break
    scene[:, bare] = colours[0][:, None]
    return scene


def _colours(generator: torch.Generator) -> Tensor:
    """(_DISCS, 3): around a few hues of the scene, so that scenes differ as a whole, as photographs
    do.
    """
    hues = torch.rand(6, 3, generator=generator)
    own = hues[torch.randint(6, (_DISCS,), generator=generator)]
    return (own + 0.15 * torch.randn(_DISCS, 3, generator=generator)).clamp(0, 1)


def _lay(
    scene: Tensor, bare: Tensor, place: list[float], radius: float, colour: Tensor, glyph: int
) -> None:
    """Puts a leaf under those that lie there already: it shows where the scene is still bare."""
    (x, y), r = place, int(radius) + 1
    left, right, top, bottom = (
        max(0, int(x) - r),
        min(SIDE, int(x) + r + 1),
        max(0, int(y) - r),
        min(SIDE, int(y) + r + 1),
    )
    if left >= right or top >= bottom:
        return
    down, across = torch.arange(top, bottom)[:, None] - y, torch.arange(left, right)[None, :] - x
    shown = bare[top:bottom, left:right] & (down.square() + across.square() < radius**2)
    if not shown.any():
        return
    part = scene[:, top:bottom, left:right]
    if glyph >= 0:
        side = 2 * r + 1
        leaf = _resized(load_images()[glyph] / 255, side)
        row, column = top - (int(y) - r), left - (int(x) - r)
        part[:, shown] = leaf[:, row : row + bottom - top, column : column + right - left][:, shown]
    else:
        part[:, shown] = colour[:, None]
    bare[top:bottom, left:right] &= ~shown


def _crop(number: int, generator: torch.Generator) -> Tensor:
    photograph = _photographs()[number % len(_photographs())]
    side = int(torch.randint(SIDE, 3 * SIDE + 1, (), generator=generator))
    top, left = (
        int(torch.randint(length - side + 1, (), generator=generator))
        for length in photograph.shape[1:]
    )
    crop = _resized(photograph[:, top : top + side, left : left + side], SIDE)
    return crop.flip(-1) if torch.rand((), generator=generator) < 0.5 else crop


@cache
def _photographs() -> list[Tensor]:
    from sklearn.datasets import load_sample_images

    return [
        torch.from_numpy(photograph.copy()).permute(2, 0, 1) / 255
        for photograph in load_sample_images().images
    ]


def _resized(image: Tensor, side: int) -> Tensor:
    return interpolate(
        image[None], size=(side, side), mode="bicubic", antialias=True, align_corners=False
    )[0].clamp(0, 1)


_MAKERS: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "glyphs": _glyph,
    "mosaics": _mosaic,
    "leaves": _leaves,
    "crops": _crop,
}
