"""Compare the distances of certificates with those measured again by brute force."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from unalike.runs.folder import LATENTS, SAMPLES
from unalike.runs.numbers import number
from unalike.runs.shield.brute_force import Found, nearest
from unalike.runs.shield.claims import image
from unalike.runs.shield.evidence import Latents, Row
from unalike.shields import Shield

LATENT_TOLERANCE, DECODED_TOLERANCE = 1e-9, 1e-3
"""By how much a distance may differ from the certificate's, as a share of it. Latents are on disk
bit by bit; an image that is encoded in another batch or on another device differs in the last bits
of its latent.
"""
_SURFACE = 1e-3
"""The most that a latent that was moved out may be beyond the radius, as a share of it."""


def nearest_by_image(
    points: Mapping[int, np.ndarray], protected: Shield, relative: float, absolute: float = 0.0
) -> dict[int, Found]:
    """The nearest protected vectors of points (d,), by the number of the image."""
    found = (
        nearest(
            np.array(list(points.values())), protected.vectors, relative=relative, absolute=absolute
        )
        if points
        else []
    )
    return dict(zip(points, found, strict=True))


def differences_of_latents(
    kept: Sequence[Row], latents: Latents, found: Mapping[int, Found], protected: Shield
) -> Iterator[str]:
    """Check that latents are of the set's space, and moved ones on the surface of a ball."""
    if kept and latents.space != protected.space:
        yield f"{LATENTS} is of {latents.space!r}, and the set of {protected.space!r}"
    for row, latent in zip(kept, latents.rows, strict=True):
        beyond = found[row["index"]].distance - protected.reach
        most = _SURFACE * protected.reach + 2 * latents.rounding * float(np.linalg.norm(latent))
        if row["certificate_moved"] and beyond > most:
            yield (
                f"{image(row)}: certificate_moved is True in {SAMPLES}, and its latent is "
                f"{number(beyond)} beyond the radius, where none is moved to"
            )


def differences_of_certified(
    row: Row, found: Found | None, protected: Shield, tolerance: float
) -> Iterator[str]:
    """Differences of a certificate from what was measured, and a ball that the image is in."""
    if found is None:
        return
    if found.distance < protected.reach:
        yield (
            f"{image(row)}: it is inside the protected set, {found.distance!r} from "
            f"{protected.ids[found.rows[0]]!r}"
        )
    yield from _unlike(row, "certificate_distance", found.distance, tolerance)
    yield from _unlike(
        row, "certificate_margin", found.distance - protected.reach, 0.0, tolerance * found.distance
    )
    yield from _nearest_unlike(row, "certificate_nearest", found, protected)


def finished_inside(row: Row, found: Found | None, protected: Shield) -> Iterator[str]:
    """The ball that a finished image is in, where those are certified."""
    if found is not None and found.distance < protected.reach:
        yield (
            f"{image(row)}: the finished image is inside the protected set, {found.distance!r} "
            f"from {protected.ids[found.rows[0]]!r}"
        )


def differences_of_decoded(row: Row, found: Found | None, protected: Shield) -> Iterator[str]:
    """Differences of the certificate of a finished image from what was measured."""
    if found is None:
        return
    slack = DECODED_TOLERANCE * protected.reach
    yield from _unlike(
        row, "certificate_decoded_distance", found.distance, DECODED_TOLERANCE, slack
    )
    yield from _nearest_unlike(row, "certificate_decoded_nearest", found, protected)
    claimed = row["certificate_decoded_distance"]
    if claimed is not None and row.get("certificate_decoded_inside") != (claimed < protected.reach):
        yield (
            f"{image(row)}: certificate_decoded_inside does not fit certificate_decoded_distance, "
            f"which is {claimed!r}"
        )


def _unlike(
    row: Row, name: str, computed: float, relative: float, absolute: float = 0.0
) -> Iterator[str]:
    claimed = row.get(name)
    if claimed is None or not math.isclose(claimed, computed, rel_tol=relative, abs_tol=absolute):
        yield f"{image(row)}: {name} is {claimed!r} in {SAMPLES}, and {computed!r} computed again"


def _nearest_unlike(row: Row, name: str, found: Found, protected: Shield) -> Iterator[str]:
    if row.get(name) not in {protected.ids[k] for k in found.rows}:
        yield (
            f"{image(row)}: {name} is {row.get(name)!r} in {SAMPLES}, and "
            f"{protected.ids[found.rows[0]]!r} computed again"
        )
