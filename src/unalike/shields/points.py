"""Protected points in memory, rounded and checked, with the facts of a stored set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from unalike.errors import NumericsError, OptionError
from unalike.shields.bounds import Index
from unalike.shields.vectors import LARGEST, Resident, Vectors
from unalike.tensors import real_numbers


@dataclass(frozen=True)
class Points:
    """Protected points ready to be searched, and the facts that were settled when they were stored.

    Attributes:
        vectors: (n, d).
        shape: of one point, (…), of d numbers.
        rounding, embedding, radius_source: as in `Shield`.
        checksum: of the set on disk; None where it is computed from the points.
        index: of the same vectors; None to search without one.
    """

    vectors: Vectors
    shape: tuple[int, ...]
    rounding: float = 0.0
    embedding: str | None = None
    radius_source: Mapping[str, Any] | None = None
    checksum: str | None = None
    index: Index | None = None

    @classmethod
    def of(cls, latents: Tensor) -> Self:
        """Take the rows of a tensor (m, …), rounded to float32.

        Raises:
            OptionError: for anything else, and for no rows.
            NumericsError: for NaN, infinity and numbers beyond 1e15.
        """
        numbers = real_numbers("latents", latents)
        if not isinstance(latents, Tensor) or numbers.ndim < 2 or numbers.numel() == 0:
            got = (
                f"of shape {tuple(latents.shape)} and {latents.dtype}"
                if isinstance(latents, Tensor)
                else f"a {type(latents).__name__}"
            )
            raise OptionError(
                f"latents is {got}; allowed: a tensor (m, …) of real numbers with at least one "
                "row, as in Shield(latents, space=…, radius=…)"
            )
        given = numbers.flatten(1).cpu().double()
        if not (given.abs() <= LARGEST).all():
            raise NumericsError(
                f"latents has NaN, or numbers beyond {LARGEST:g}; a protected latent must be finite"
            )
        rows = given.float().contiguous()
        rounding = float((given - rows.double()).norm(dim=1).max())
        return cls(Resident(rows.numpy()), tuple(latents.shape[1:]), rounding)
