"""Measure the final latents of a run against a shield, and certify each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from unalike.attach.run.guard import Guard, Moved, moved_out
from unalike.attach.run.report import Certificate
from unalike.errors import ShieldError


class Ending:
    """The final latents of a run, those inside the protected set moved out.

    Args:
        guard: of the protected set; None where there is none.
        move: whether it moves out what is inside; else it only measures.

    Attributes:
        latents: the final latents (B, …); None before there are any, and where they are lost.
        reached: whether there were any.
    """

    def __init__(self, guard: Guard | None, move: bool) -> None:
        self._guard = guard
        self._move = move
        self._moved: Moved | None = None
        self._nearest: tuple[list[int], list[float]] = [], []
        self.latents: Tensor | None = None
        self.reached = False

    def measure(self, latents: Tensor, *, movable: bool = True) -> Tensor | None:
        """Measures the final latents (B, …); what is to take their place where one was moved.

        May be called again with other latents, where these were changed meanwhile; what was moved
        before counts as moved.
        """
        self.latents, self.reached, before = latents, True, self._moved
        if self._guard is None:
            return None
        if self._move and movable:
            moved = moved_out(self._guard, latents)
        else:
            none = torch.zeros(len(latents), dtype=torch.bool, device=latents.device)
            moved = Moved(latents, none, self._guard.inside(latents), {})
        self.latents = moved.latents
        index, distance = self._guard.nearest(self.latents)
        self._nearest = index.tolist(), distance.tolist()
        self._moved = moved if before is None else replace(moved, moved=moved.moved | before.moved)
        return self.latents if moved.moved.any() else None

    @property
    def inside(self) -> list[int]:
        """The numbers of the images that end in a protected ball."""
        if self._guard is None or self._moved is None:
            return []
        rows = zip(self._moved.inside.tolist(), self._nearest[1], strict=True)
        reach = self._guard.shield.reach
        return [i for i, (inside, distance) in enumerate(rows) if inside or not distance >= reach]

    @property
    def failures(self) -> dict[int, ShieldError]:
        """The reasons why images could not be moved out, by the number of the image."""
        return {} if self._moved is None else self._moved.failures

    def certificates(self, steps_moved: Sequence[int]) -> list[Certificate | None]:
        """One for each image; None without a shield.

        Args:
            steps_moved: for each image, at how many steps SPELL moved its prediction.
        """
        if self._guard is None or self._moved is None:
            return [None] * len(steps_moved)
        shield = self._guard.shield
        return [
            Certificate(
                nearest_id=shield.ids[k],
                distance=distance,
                radius=shield.radius,
                margin=distance - shield.reach,
                moved=was_moved,
                space=shield.space,
                checksum=shield.checksum,
                steps_moved=steps,
            )
            for k, distance, was_moved, steps in zip(
                *self._nearest, self._moved.moved.tolist(), steps_moved, strict=True
            )
        ]
