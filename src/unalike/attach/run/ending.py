"""Measure the final latents of a run against its shields, and certify each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unalike.attach.run.guard import Guard, Moved, moved_out
from unalike.attach.run.report import Certificate
from unalike.errors import ShieldError


@dataclass(frozen=True)
class _Measured:
    """The final latents as one shield sees them.

    Attributes:
        guard: of the shield.
        moved: what came of moving them out, where that was asked for.
        index, distance: of the nearest protected point of each image.
    """

    guard: Guard
    moved: Moved
    index: list[int]
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
            nearest_id=shield.ids[self.index[image]],
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

    Attributes:
        latents: the final latents (B, …); None before there are any, and where they are lost.
        reached: whether there were any.
    """

    def __init__(self, guards: Sequence[Guard], move: bool) -> None:
        self._guards = tuple(guards)
        self._move = move
        self._measured: list[_Measured] = []
        self.latents: Tensor | None = None
        self.reached = False

    def measure(self, latents: Tensor, *, movable: bool = True) -> Tensor | None:
        """Measures the final latents (B, …); what is to take their place where one was moved.

        May be called again with other latents, where these were changed meanwhile; what was moved
        before counts as moved.
        """
        self.latents, self.reached, before = latents, True, self._measured
        self._measured, changed = [], None
        for i, guard in enumerate(self._guards):
            moved = self._moved(guard, self.latents, movable=movable)
            if moved.moved.any():
                self.latents = changed = moved.latents
            if before:
                moved = replace(moved, moved=moved.moved | before[i].moved.moved)
            index, distance = guard.nearest(self.latents)
            self._measured.append(_Measured(guard, moved, index.tolist(), distance.tolist()))
        return changed

    def _moved(self, guard: Guard, latents: Tensor, *, movable: bool) -> Moved:
        if self._move and movable:
            return moved_out(guard, latents)
        none = torch.zeros(len(latents), dtype=torch.bool, device=latents.device)
        return Moved(latents, none, guard.inside(latents), {})

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
