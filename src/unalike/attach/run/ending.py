"""Measure the final latents of a run against its shields, and certify each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unalike.attach.run.guard import Guard, Moved, moved_out
from unalike.attach.run.report import Certificate, Decoded
from unalike.errors import ShieldError


@dataclass(frozen=True)
class _Measured:
    """The final latents as one shield sees them.

    Attributes:
        guard: of the shield.
        moved: what came of moving them out, where that was asked for.
        nearest, distance: name and distance of the nearest protected point of each image.
    """

    guard: Guard
    moved: Moved
    nearest: Sequence[str]
    distance: list[float]

    @property
    def inside(self) -> list[int]:
        """The numbers of the images that end in a ball."""
        rows = zip(self.moved.inside.tolist(), self.distance, strict=True)
        reach = self.guard.shield.reach
        return [i for i, (inside, distance) in enumerate(rows) if inside or not distance >= reach]

    def certificate(self, image: int, steps_moved: int) -> Certificate:
        """That of an image, whose prediction SPELL moved at so many steps."""
        shield, distance = self.guard.shield, self.distance[image]
        return Certificate(
            nearest_id=self.nearest[image],
            distance=distance,
            radius=shield.radius,
            margin=distance - shield.reach,
            moved=bool(self.moved.moved[image]),
            space=shield.space,
            checksum=shield.checksum,
            steps_moved=steps_moved,
        )


class Ending:
    """The final latents of a run, those inside a protected set moved out.

    Args:
        guards: of the protected sets; at most one where they move.
        move: whether what is inside is moved out; else it is only measured.
        finished: whether the finished images will be told by `see`, so that guards of images need
            not decode the latents for themselves.

    Attributes:
        latents: the final latents (B, …); None before there are any, and where they are lost.
        reached: whether there were any.
    """

    def __init__(self, guards: Sequence[Guard], move: bool, *, finished: bool = False) -> None:
        self._guards = tuple(guards)
        self._move = move
        self._finished = finished
        self._found: list[_Measured | None] = []
        self.latents: Tensor | None = None
        self.reached = False

    def measure(self, latents: Tensor, *, movable: bool = True) -> Tensor | None:
        """Measures the final latents (B, …); what is to take their place where one was moved.

        May be called again with other latents, where these were changed meanwhile; what was moved
        before counts as moved.
        """
        self.latents, self.reached, before = latents, True, self._found
        self._found, changed = [], None
        for i, guard in enumerate(self._guards):
            if self._finished and guard.of_images:
                self._found.append(None)
                continue
            moved = self._moved(guard, self.latents, movable=movable)
            if moved.moved.any():
                self.latents = changed = moved.latents
            earlier = before[i] if before else None
            if earlier is not None:
                moved = replace(moved, moved=moved.moved | earlier.moved.moved)
            self._found.append(_placed(guard, moved, self.latents))
        return changed

    def see(self, finished: Sequence[Sequence[Decoded | None]]) -> None:
        """Takes what was measured of the finished images for each guard that measures those."""
        for i, places in enumerate(finished):
            known = [place for place in places if place is not None]
            if self._found[i] is not None or len(known) < len(places) or self.latents is None:
                continue
            self._found[i] = _Measured(
                self._guards[i],
                _unmoved(self.latents),
                nearest=[place.nearest_id for place in known],
                distance=[place.distance for place in known],
            )

    @property
    def _measured(self) -> list[_Measured]:
        """A measurement for each guard, made here where the finished images did not give it."""
        for i, found in enumerate(self._found):
            if found is None and self.latents is not None:
                guard, latents = self._guards[i], self.latents
                moved = self._moved(guard, latents, movable=False)
                self._found[i] = _placed(guard, moved, latents)
        return [found for found in self._found if found is not None]

    def _moved(self, guard: Guard, latents: Tensor, *, movable: bool) -> Moved:
        if self._move and movable:
            return moved_out(guard, latents)
        return replace(_unmoved(latents), inside=guard.inside(latents))

    @property
    def inside(self) -> list[int]:
        """The numbers of the images that end in a protected ball."""
        return sorted({i for found in self._measured for i in found.inside})

    @property
    def failures(self) -> dict[int, ShieldError]:
        """The reasons why images could not be moved out, by the number of the image."""
        return {i: error for m in self._measured for i, error in m.moved.failures.items()}

    def certificates(self, steps_moved: Sequence[int]) -> list[list[Certificate]]:
        """Those of each image, one for each shield.

        Args:
            steps_moved: for each image, at how many steps SPELL moved its prediction.
        """
        return [
            [found.certificate(i, steps) for found in self._measured]
            for i, steps in enumerate(steps_moved)
        ]


def _placed(guard: Guard, moved: Moved, latents: Tensor) -> _Measured:
    """A guard's measurement of latents, after moving them out."""
    index, distance = guard.nearest(latents)
    ids, rows = guard.shield.ids, list[int](index.tolist())
    return _Measured(guard, moved, [ids[k] for k in rows], distance.tolist())


def _unmoved(latents: Tensor) -> Moved:
    none = torch.zeros(len(latents), dtype=torch.bool, device=latents.device)
    return Moved(latents, none, none, {})
