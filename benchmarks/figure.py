"""Figures: one look for all of them, legible in black and white and to the colour-blind; the only
importer of matplotlib.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.errors import UnsupportedError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#8C6D31",
    "#7F7F7F",
    "#882255",
)
"""The palette of Okabe and Ito 2008 without its yellow, which is hard to see on white, then a
brown, a grey and a wine red.
"""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
"""One for each colour, so that colour is never the only difference."""

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def require_matplotlib() -> None:
    """Refuse at the beginning of a run what could not be drawn at its end.

    Raises:
        UnsupportedError: where matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise UnsupportedError(
            "the benchmarks draw figures with matplotlib, "
            "which is not installed; pip install -e '.[dev]'"
        )


@contextmanager
def drawn(path: Path, width: float, height: float) -> Iterator[Figure]:
    """An empty figure of that size in inches, written to `path` as PNG when it is drawn: whole or
    not at all, the same bytes for the same drawing.

    Raises:
        UnsupportedError: where matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        partial = path.with_suffix(".partial")
        figure.savefig(partial, format="png", dpi=150, metadata={"Software": None})
    partial.replace(path)
