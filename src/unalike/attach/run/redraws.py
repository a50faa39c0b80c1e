"""Combine the runs of one guided call: the first, and those that draw images again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unalike.attach.run.guard import Guard
from unalike.attach.run.outputs import blanked, flagged, pixels, taken
from unalike.attach.run.report import (
    Certificate,
    Decoded,
    ImageReport,
    Nearest,
    Report,
    nearest_neighbours,
)
from unalike.attach.run.session import Session
from unalike.errors import ShieldError, UnsupportedError
from unalike.guidance.method import Method


class Redraws:
    """The runs of one call: the first, and one for each time that images were drawn again.

    An image is taken from the run that drew it last. Those that were outside the protected set stay
    as they were first drawn.

    Args:
        session: of the first run.
        output: what the pipeline returned.
        finished: where finished images are measured, and those inside count as inside; None where
            what the session measured counts alone.

    Raises:
        AttachmentError: when the scheduler was never stepped.
        ShieldError: when there is a shield and the last step was not reached, so that nothing was
            checked.

    Attributes:
        inside: the numbers of the images that are inside the protected set.
        images: how many images there are.
    """

    def __init__(self, session: Session, output: Any, finished: Guard | None = None) -> None:
        self._sessions, self._outputs = [session], [output]
        self._reports = [session.images()]
        self._finished = finished
        self.images = len(self._reports[0])
        self.inside = self._inside(session, output)
        self._choice = [0] * self.images
        self._drawn, self._restarted = [1] * self.images, [0] * self.images
        self._calls = 0

    def add(
        self, session: Session, output: Any, *, restarted: bool = False, calls: int = 0
    ) -> None:
        """Add a run that drew the images inside again: from their own latents, where they were
        `restarted`, or from other noise, which took so many evaluations (`calls`) to choose.
        """
        self._calls += calls
        for i in self.inside:
            (self._restarted if restarted else self._drawn)[i] += 1
        self._sessions.append(session)
        self._outputs.append(output)
        self._reports.append(session.images())
        for i in self.inside:
            self._choice[i] = len(self._sessions) - 1
        still = set(self._inside(session, output))
        self.inside = [i for i in self.inside if i in still]

    @property
    def flagged(self) -> list[int]:
        """The numbers of the images that the pipeline's safety checker withheld."""
        own = [flagged(output, self.images) for output in self._outputs]
        return [i for i, run in enumerate(self._choice) if i in own[run]]

    @property
    def kept(self) -> list[int]:
        """The numbers of the images that are outside, and that no safety checker withheld."""
        gone = {*self.inside, *self.flagged}
        return [i for i in range(self.images) if i not in gone]

    @property
    def failures(self) -> dict[int, ShieldError]:
        """The reasons why images that are inside could not be moved out, by their number."""
        found = {i: self._of(i).failures.get(i) for i in self.inside}
        return {i: error for i, error in found.items() if error is not None}

    def latents(self) -> Tensor | None:
        """The final latents (B, …) of all images; None where they are not known."""
        rows = [session.latents for session in self._sessions]
        if any(latents is None for latents in rows):
            return None
        return torch.stack(
            [part[i] for i, run in enumerate(self._choice) if (part := rows[run]) is not None]
        )

    def output(self) -> Any:
        """Assemble the output: each image from its last run, the images inside blank."""
        output = taken(self._outputs, self._choice)
        return blanked(output, self.inside, self.images) if self.inside else output

    def commit(self) -> None:
        """Adds the images that are kept to the memory, where there is one and the last step was
        reached.
        """
        latents = self.latents()
        if latents is None:
            return
        seeds = [self._reports[run][i].seed for i, run in enumerate(self._choice)]
        self._sessions[0].commit(latents, self.kept, seeds)

    def report(self, methods: Sequence[Method], guard: Guard | None, *, as_latents: bool) -> Report:
        """Report the call, image by image.

        Args:
            methods: as they were used.
            guard: measures the finished images once more; None without a shield.
            as_latents: whether the call was asked for latents in place of images.
        """
        first = self._sessions[0]
        decoded = [None] * self.images if guard is None or as_latents else self._decoded(guard)
        neighbours = self._neighbours()
        images = [
            self._image(self._reports[run][i], neighbours[i], decoded[i])
            for i, run in enumerate(self._choice)
        ]
        return Report(
            images=images,
            steps=first.steps,
            space=first.space,
            finished=first.finished,
            methods=first.used(methods),
            shield=None if guard is None else guard.shield.summary(),
            unguided=first.unguided,
            calls=self._calls
            + sum(s.steps + s.predictions - s.reused for s in self._sessions) * self.images,
            reused=first.reused,
        )

    def _of(self, image: int) -> Session:
        return self._sessions[self._choice[image]]

    def _inside(self, session: Session, output: Any) -> list[int]:
        """The numbers of the images of a run that are inside, as latents or finished."""
        shown = None if self._finished is None else pixels(output, self.images)
        if self._finished is None or shown is None:
            return session.inside
        found = self._measured(self._finished, shown)
        finished = {i for i, decoded in enumerate(found) if decoded is not None and decoded.inside}
        return sorted({*session.inside, *finished})

    def _image(
        self, report: ImageReport, nearest: Nearest | None, decoded: Decoded | None
    ) -> ImageReport:
        certificate: Certificate | None = report.certificate
        if certificate is not None:
            certificate = replace(certificate, decoded=decoded)
        return replace(
            report,
            attempts=self._drawn[report.index],
            restarts=self._restarted[report.index],
            refused=report.index in self.inside,
            flagged=report.index in self.flagged,
            nearest=nearest,
            certificate=certificate,
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
            kept, nearest_neighbours(latents[kept], self._sessions[0].remembered), strict=True
        ):
            result[i] = (
                replace(near, index=kept[near.index])
                if near is not None and near.source == "batch"
                else near
            )
        return result

    def _decoded(self, guard: Guard) -> Sequence[Decoded | None]:
        shown = pixels(taken(self._outputs, self._choice), self.images)
        return [None] * self.images if shown is None else self._measured(guard, shown)

    def _measured(self, guard: Guard, shown: Tensor) -> Sequence[Decoded | None]:
        """The place of each finished image (B, 3, h, w), as 8 bits a channel."""
        try:
            index, distance = guard.nearest_to_images((shown * 255).round() / 255)
        except (
            UnsupportedError
        ):  # without an encoder there is no second measurement, and the certificate says so
            return [None] * self.images
        rows: list[int] = index.tolist()
        ids, reach = guard.shield.ids, guard.shield.reach
        return [Decoded(ids[k], d, d < reach) for k, d in zip(rows, distance.tolist(), strict=True)]
