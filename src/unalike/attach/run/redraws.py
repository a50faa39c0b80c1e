"""Combine the runs of one guided call: the first, and those that draw images again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unalike.attach.run.guard import Guard, PlainGuard, steering
from unalike.attach.run.outputs import Place, blanked, flagged, pixels, taken
from unalike.attach.run.report import (
    Decoded,
    ImageReport,
    Nearest,
    Report,
    nearest_neighbours,
    tightest,
)
from unalike.attach.run.session import Session
from unalike.errors import ShieldError, UnsupportedError
from unalike.guidance.method import Method


class Redraws:
    """The runs of one call: the first, and one for each time that images were drawn again.

    An image is taken from the run that drew it last. Those that were outside the protected sets
    stay as they were first drawn.

    Args:
        session: of the first run.
        output: what the pipeline returned.
        finished: guards by which finished images are measured, and those inside count as inside;
            none where what the session measured counts alone.

    Raises:
        AttachmentError: when the scheduler was never stepped.
        ShieldError: when there is a shield and the last step was not reached, so that nothing was
            checked.

    Attributes:
        inside: the numbers of the images that are inside a protected set.
        images: how many images there are.
    """

    def __init__(self, session: Session, output: Any, finished: Sequence[Guard] = ()) -> None:
        self._finished = tuple(finished)
        self.images = len(session.groups)
        self._runs: list[_Drawn] = []
        self._choice: list[Place] = [(0, i) for i in range(self.images)]
        self._drawn, self._restarted = [1] * self.images, [0] * self.images
        self._calls = 0
        self.inside = self._inside(session, output, range(self.images))

    def add(
        self,
        session: Session,
        output: Any,
        *,
        rows: Sequence[int] | None = None,
        restarted: bool = False,
        calls: int = 0,
    ) -> None:
        """Add a run that drew the images inside again.

        Args:
            session, output: of the run.
            rows: the numbers of the images that it made, where it made fewer than all.
            restarted: whether it went on from their own latents, and not from other noise.
            calls: how many evaluations it took to choose that noise.
        """
        own = list(range(self.images) if rows is None else rows)
        self._calls += calls
        still = self._inside(session, output, own)
        for i in self.inside:
            (self._restarted if restarted else self._drawn)[i] += 1
            self._choice[i] = len(self._runs) - 1, own.index(i)
        self.inside = [i for i in self.inside if i in still]

    def reach(self, guards: Sequence[Guard]) -> float:
        """The largest distance of an image inside from the nearest protected latent, where
        another space than that of latents decides too; else 0.
        """
        guard, latents = steering(guards), self.latents()
        if len(guards) < 2 or not isinstance(guard, PlainGuard) or latents is None:
            return 0.0
        return float(guard.nearest(latents[self.inside])[1].max())

    @property
    def flagged(self) -> list[int]:
        """The numbers of the images that the pipeline's safety checker withheld."""
        own = [flagged(run.output, run.images) for run in self._runs]
        return [i for i, (run, row) in enumerate(self._choice) if row in own[run]]

    @property
    def kept(self) -> list[int]:
        """The numbers of the images that are outside, and that no safety checker withheld."""
        gone = {*self.inside, *self.flagged}
        return [i for i in range(self.images) if i not in gone]

    @property
    def failures(self) -> dict[int, ShieldError]:
        """The reasons why images that are inside could not be moved out, by their number."""
        places = {i: self._choice[i] for i in self.inside}
        found = {i: self._runs[run].session.failures.get(row) for i, (run, row) in places.items()}
        return {i: error for i, error in found.items() if error is not None}

    def latents(self) -> Tensor | None:
        """The final latents (B, …) of all images; None where they are not known."""
        rows = [run.session.latents for run in self._runs]
        if any(latents is None for latents in rows):
            return None
        return torch.stack(
            [part[row] for run, row in self._choice if (part := rows[run]) is not None]
        )

    def output(self) -> Any:
        """Assemble the output: each image from its last run, the images inside blank."""
        output = self._taken()
        return blanked(output, self.inside, self.images) if self.inside else output

    def commit(self) -> None:
        """Adds the images that are kept to the memory, where there is one and the last step was
        reached.
        """
        latents = self.latents()
        if latents is None:
            return
        seeds = [self._runs[run].reports[row].seed for run, row in self._choice]
        self._first.commit(latents, self.kept, seeds)

    def report(
        self, methods: Sequence[Method], guards: Sequence[Guard] = (), *, as_latents: bool
    ) -> Report:
        """Report the call, image by image.

        Args:
            methods: as they were used.
            guards: of the protected sets; they measure finished images that were not measured yet.
            as_latents: whether the call was asked for latents in place of images.
        """
        first = self._first
        decoded = [] if as_latents else self._decoded(guards)
        neighbours = self._neighbours()
        images = [
            self._image(i, neighbours[i], [of_shield[i] for of_shield in decoded])
            for i in range(self.images)
        ]
        shields = [guard.shield.summary() for guard in guards]
        return Report(
            images=images,
            steps=first.steps,
            space=first.space,
            finished=first.finished,
            methods=first.used(methods),
            shield=next(iter(shields), None),
            unguided=first.unguided,
            calls=self._calls + sum(run.calls for run in self._runs),
            reused=first.reused,
            shields=shields,
        )

    @property
    def _first(self) -> Session:
        return self._runs[0].session

    def _taken(self) -> Any:
        outputs, sizes = [run.output for run in self._runs], [run.images for run in self._runs]
        return taken(outputs, sizes, self._choice)

    def _inside(self, session: Session, output: Any, rows: Sequence[int]) -> list[int]:
        """The numbers of the images of a new run that are inside, as latents or finished."""
        images = len(session.groups)
        shown = pixels(output, images) if self._finished and session.finished else None
        decoded = [] if shown is None else [_measured(guard, shown) for guard in self._finished]
        session.see(decoded)
        reports = session.images()
        self._runs.append(_Drawn(session, output, reports, decoded))
        finished = {i for own in decoded for i, d in enumerate(own) if d is not None and d.inside}
        return [rows[i] for i in sorted({*session.inside, *finished})]

    def _image(
        self, number: int, nearest: Nearest | None, decoded: Sequence[Decoded | None]
    ) -> ImageReport:
        run, row = self._choice[number]
        own, first = self._runs[run].reports[row], self._runs[0].reports[number]
        found = own.certificates
        if decoded:
            found = [replace(c, decoded=d) for c, d in zip(found, decoded, strict=True)]
        return replace(
            own,
            index=number,
            group=first.group,
            attempts=self._drawn[number],
            restarts=self._restarted[number],
            refused=number in self.inside,
            flagged=number in self.flagged,
            nearest=nearest,
            certificate=tightest(found),
            certificates=found,
        )

    def _neighbours(self) -> list[Nearest | None]:
        """The nearest neighbour of each image that is kept, among those of the batch and the
        memory.
        """
        latents, kept = self.latents(), self.kept
        result: list[Nearest | None] = [None] * self.images
        if latents is None:
            return result
        for i, near in zip(
            kept, nearest_neighbours(latents[kept], self._first.remembered), strict=True
        ):
            result[i] = (
                replace(near, index=kept[near.index])
                if near is not None and near.source == "batch"
                else near
            )
        return result

    def _decoded(self, guards: Sequence[Guard]) -> list[list[Decoded | None]]:
        """For each shield the place of each finished image; none where they are no such images."""
        if self._finished:
            measured = [[*run.decoded] for run in self._runs]
            if not all(measured):
                return []
            return [
                [measured[run][k][row] for run, row in self._choice]
                for k in range(len(self._finished))
            ]
        shown = pixels(self._taken(), self.images) if guards else None
        return [] if shown is None else [_measured(guard, shown) for guard in guards]


@dataclass(frozen=True)
class _Drawn:
    """A run: its session, what the pipeline returned, a report of each image, and for each shield
    the place of each finished image, where that counts.
    """

    session: Session
    output: Any
    reports: list[ImageReport]
    decoded: list[list[Decoded | None]]

    @property
    def images(self) -> int:
        return len(self.reports)

    @property
    def calls(self) -> int:
        """Evaluations of one image by the model."""
        session = self.session
        return (session.steps + session.predictions - session.reused) * self.images


def _measured(guard: Guard, shown: Tensor) -> list[Decoded | None]:
    """The place of each finished image (B, 3, h, w), as 8 bits a channel."""
    try:
        index, distance = guard.nearest_to_images((shown * 255).round() / 255)
    except (
        UnsupportedError
    ):  # without an encoder there is no second measurement, and the certificate says so
        return [None] * len(shown)
    rows: list[int] = index.tolist()
    ids, reach = guard.shield.ids, guard.shield.reach
    return [Decoded(ids[k], d, d < reach) for k, d in zip(rows, distance.tolist(), strict=True)]
