"""Build the digits data set from scikit-learn's copy: `python -m training digits dataset`.

Writes `images.png` (all images, lossless, 16×16 each, 60 to a row) and `labels.txt` (their
digits, 60 to a line), in the order that scikit-learn has them in.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training import options

COLUMNS, SIDE, WHITE, INK = 60, 16, 255, 16  # INK is the largest value of the original pixels


def enlarge(ink: np.ndarray) -> np.ndarray:
    """One image (16, 16) uint8, dark on white, of the 8×8 amounts of ink from 0 to 16."""
    grey = np.round(WHITE - ink * (WHITE / INK)).astype(np.uint8)
    return np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def build(out: Path) -> None:
    """Write both files."""
    from sklearn.datasets import load_digits

    originals: Any = load_digits()
    pictures = np.stack([enlarge(ink) for ink in originals["images"]])
    rows = -(-len(pictures) // COLUMNS)
    sheet = np.full((rows * COLUMNS, SIDE, SIDE), WHITE, np.uint8)
    sheet[: len(pictures)] = pictures
    sheet = (
        sheet.reshape(rows, COLUMNS, SIDE, SIDE)
        .transpose(0, 2, 1, 3)
        .reshape(rows * SIDE, COLUMNS * SIDE)
    )
    labels = "".join(str(label) for label in originals["target"])
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(out / "images.png", optimize=True)
    (out / "labels.txt").write_text(
        "\n".join(labels[i : i + COLUMNS] for i in range(0, len(labels), COLUMNS)) + "\n",
        encoding="utf-8",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run this step from the command line."""
    parser = options.parser("digits", "dataset", __doc__)
    parser.add_argument("--out", type=Path, required=True)
    build(parser.parse_args(arguments).out)
