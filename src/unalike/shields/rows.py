"""Check and round vectors before they are stored, and measure the rounding."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np
from torch import Tensor

from unalike.errors import NumericsError, OptionError
from unalike.shields.vectors import LARGEST


def stored_rows(
    vectors: Tensor, names: Sequence[str], shape: tuple[int, ...], dtype: str
) -> tuple[np.ndarray, float]:
    """Rows (m, d) in their stored precision, and the largest norm of their rounding errors.

    Args:
        vectors: (m, …) or flat, (m, d).
        names: one for each, for messages.
        shape: of one vector.
        dtype: "float16" or "float32".

    Raises:
        OptionError: for vectors of another shape, or another number of names.
        NumericsError: for NaN, infinity, and what is beyond the largest number of the precision;
            the message names the input.

    Example:
        >>> import torch
        >>> stored_rows(torch.tensor([[1.0, 2.0], [0.0, 1 + 2**-11]]), ["a", "b"], (2,), "float16")
        (array([[1., 2.],
               [0., 1.]], dtype=float16), 0.00048828125)
    """
    d = int(np.prod(shape))
    if tuple(vectors.shape[1:]) not in (shape, (d,)) or len(vectors) != len(names):
        got = f"{len(names)} names and vectors of shape {tuple(vectors.shape)}"
        raise OptionError(
            f"there are {got}; allowed: one name for each of (m, {', '.join(map(str, shape))})"
        )
    x = vectors.detach().flatten(1).double().cpu().numpy()
    _require(
        np.isfinite(x),
        names,
        "has NaN or infinite values; a protected image or latent must be finite",
    )
    _require(
        np.abs(x) <= LARGEST,
        names,
        f"has numbers beyond {LARGEST:g}, which no search here can compare",
    )
    with np.errstate(over="ignore"):
        rows = x.astype(dtype)
    _require(
        np.isfinite(rows),
        names,
        f"is beyond the largest number of {dtype}; store the set in float32",
    )
    rows += 0  # no -0, so that equal vectors have equal bytes
    return rows, float(np.linalg.norm(x - rows.astype(np.float64), axis=1).max(initial=0.0))


def require_new(names: Sequence[str], done: Set[str]) -> None:
    """Refuse names of inputs that cannot be written, repeat, or are in `done`.

    Raises:
        OptionError: otherwise.
    """
    for i, name in enumerate(names):
        if not name or any(0xD800 <= ord(c) < 0xE000 for c in name):
            raise OptionError(
                f"the name of input {i} is {name!r}; allowed: text that can be written as UTF-8, "
                "such as a file name"
            )
    taken = next((name for name in names if name in done), None)
    if taken is not None or len(set(names)) < len(names):
        what = f"{taken!r} is in the set already" if taken is not None else "a name is given twice"
        raise OptionError(f"{what}; give each input once, leaving out those in Writer.done")


def _require(allowed: np.ndarray, names: Sequence[str], reason: str) -> None:
    fits = allowed.all(axis=1)
    if not fits.all():
        bad = [names[i] for i in np.flatnonzero(~fits).tolist()]
        raise NumericsError(
            f"the vector of {bad[0]!r}{f' and {len(bad) - 1} more' if len(bad) > 1 else ''} "
            f"{reason}"
        )
