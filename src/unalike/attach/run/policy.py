"""Policies for images inside the protected set: move them out, draw them again, refuse them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from unalike.attach.diffusers.host import Host
from unalike.attach.run.fewer import fewer_images
from unalike.attach.run.randomness import copied, derived_seed, occurrences
from unalike.attach.run.report import Report
from unalike.errors import OptionError, RefusedError, ShieldError, UnsupportedError, named

REDRAW, MOVE, REGENERATE, REFUSE = POLICIES = ("redraw", "move", "regenerate", "refuse")
ATTEMPTS = 3
RESTARTS = (0.5, 0.25)
"""The shares of the schedule that are left out when a finished image is restarted, one after the
other: the earliest level last.
"""
_NAMED = 5


@dataclass(frozen=True)
class Policy:
    """A policy for images whose final latent lies in a protected ball; none is returned.

    Args:
        on_violation: "move" out of the balls after the last step; "redraw" where the finished image
            is inside, from earlier and earlier noise levels while SPELL steers it away, and then
            from other seeds; "regenerate", draw again from other seeds alone; "refuse" to return
            it. What cannot be moved out, and what is still inside when it was drawn again for the
            last time, is refused too.
        attempts: how often an image is drawn again from another seed at most, with "redraw" and
            "regenerate".

    Raises:
        OptionError: for anything else than these, and for a number of attempts where nothing is
            drawn again.

    Example:
        >>> Policy("regenerate", 2).redraws, Policy("move").redraws
        (2, 0)
    """

    on_violation: str = REDRAW
    attempts: int = ATTEMPTS

    def __post_init__(self) -> None:
        if self.on_violation not in POLICIES:
            raise OptionError(
                f"on_violation is {self.on_violation!r}; allowed: {', '.join(map(repr, POLICIES))}"
            )
        if (
            isinstance(self.attempts, bool)
            or not isinstance(self.attempts, int)
            or self.attempts < 1
        ):
            raise OptionError(
                f"attempts is {self.attempts!r}; allowed: a whole number of at least 1, as in "
                f"attempts={ATTEMPTS}"
            )
        if self.attempts != ATTEMPTS and self.on_violation not in (REDRAW, REGENERATE):
            raise OptionError(
                f"attempts is {self.attempts} and on_violation is {self.on_violation!r}, which "
                "draws nothing again; leave attempts out, or "
                "set on_violation='redraw'"
            )

    @property
    def redraws(self) -> int:
        """The largest number of times that an image is drawn again from another seed."""
        return self.attempts if self.on_violation in (REDRAW, REGENERATE) else 0

    def redraws_of(self, pipe: Any, arguments: Mapping[str, Any]) -> int:
        """The same for a call of a pipeline: "redraw" leaves other seeds out where there are none,
        for there is no generator, or the noise is given as `latents`.

        Raises:
            OptionError: with "regenerate" and explicit latents.
        """
        fixed = arguments.get("latents") is not None
        if self.on_violation == REDRAW and (fixed or "generator" not in Host(pipe).parameters):
            return 0
        if self.redraws == 0 or not fixed:
            return self.redraws
        raise OptionError(
            "latents are given and on_violation is 'regenerate': images of fixed noise cannot be "
            "drawn again; leave latents out, or use on_violation='redraw', 'move' or 'refuse'"
        )

    @property
    def finished(self) -> bool:
        """Whether images count as they are finished, and not their latents alone."""
        return self.on_violation == REDRAW

    @property
    def restarts(self) -> tuple[float, ...]:
        """The shares of the schedule that are left out when an image is restarted, in order."""
        return RESTARTS if self.on_violation == REDRAW else ()

    def require(self, pipe: Any, *, shields: int) -> None:
        """Check that the policy can be kept with this pipeline.

        Raises:
            OptionError: when there is no shield that a policy could be for, and to move images out
                of several.
            UnsupportedError: when images are to be drawn again and the pipeline cannot be told from
                which noise.
        """
        if shields > 1 and self.on_violation == MOVE:
            raise OptionError(
                named(
                    "{on_violation} is 'move' and there are {} shields: an image that is moved out "
                    "of one may be moved into another; use {on_violation='redraw'}, or give one "
                    "{shield}",
                    shields,
                )
            )
        if not shields and self.on_violation != REDRAW:
            raise OptionError(
                f"on_violation is {self.on_violation!r} and there is no shield; pass one, as in "
                "guide(pipe, shield=Shield.open(folder))"
            )
        if self.on_violation == REGENERATE and "generator" not in Host(pipe).parameters:
            raise UnsupportedError(
                f"{type(pipe).__name__} takes no generator, so images cannot be drawn again from "
                "other noise; use on_violation='move' or "
                "'refuse'"
            )


class Redraw:
    """Make the arguments of a call that draws some of its images again.

    Images that are drawn anew get generators of new seeds (`derived_seed`), the others copies of
    their own, so that they are what they were to the rest of the batch. Images that share a
    generator are all drawn anew where one of them is. Without a generator the call is repeated as
    it is, and the pipeline goes on with torch's own random numbers.

    Args:
        arguments: of the call, by name, before it was made: the generators are copied as they are
            then.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self._arguments = dict(arguments)
        self._generator = copied(arguments.get("generator"))

    def same(self) -> dict[str, Any]:
        """Make the arguments of the call as it was made."""
        return {**self._arguments, "generator": copied(self._generator)}

    def fewer(self, rows: Sequence[int], images: int) -> Redraw | None:
        """That of a call that makes some of the images alone, each as in the whole call; None where
        the arguments of single images cannot be told apart.

        Args:
            rows: numbers of the images.
            images: how many the call makes.
        """
        own = self.same()
        fewer = fewer_images(own, rows, images)
        return None if fewer is None else Redraw(fewer)

    def arguments(
        self,
        rows: Sequence[int],
        images: int,
        attempt: int,
        choices: Mapping[int, int] | None = None,
    ) -> dict[str, Any]:
        """Make the arguments of a call that draws these images again.

        Args:
            rows: numbers of images.
            images: how many the call makes.
            attempt: 1 for the first time that images are drawn again.
            choices: for images the number of the seed, among those that an attempt may take; 0
                unless given.
        """
        known, choices = self._generator, choices or {}
        if known is None:
            return self._arguments
        own = list(known) if isinstance(known, list | tuple) else [known]
        if len(own) != images:
            again = [
                _seeded(own[0], _seed_again(own[0], attempt, i, choices.get(i, 0)))
                for i in range(images)
            ]
            return {**self._arguments, "generator": again}
        anew = {id(own[i]): choices.get(i, 0) for i in rows}
        kept, places = copied(own), occurrences(own)
        again = [
            _seeded(g, _seed_again(g, attempt, place or None, anew[id(g)]))
            if id(g) in anew
            else kept[i]
            for i, (g, place) in enumerate(zip(own, places, strict=True))
        ]
        return {**self._arguments, "generator": again}


def refusal(
    output: Any,
    report: Report,
    refused: list[int],
    failures: Mapping[int, ShieldError],
    policy: Policy,
    choices: Sequence[str] = (MOVE, REDRAW),
) -> RefusedError:
    """Build the error that names the refused images and the reasons.

    Args:
        output: of the pipeline, the refused images blank.
        report: with the certificates of all images.
        refused: their numbers.
        failures: why images could not be moved out, by their number.
        policy: that was followed.
        choices: the policies that the host could follow in its place.
    """
    named = "; ".join(_place(report, i) for i in refused[:_NAMED])
    more = f"; and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
    reasons = "".join(
        f". {reason[0].upper()}{reason[1:]}"
        for reason in dict.fromkeys(str(error) for error in failures.values())
    )
    times = "1 time" if policy.attempts == 1 else f"{policy.attempts} times"
    tried = {
        MOVE: "they could not be moved out",
        REDRAW: f"they were restarted, and drawn again {times}",
        REGENERATE: f"they were drawn again {times}",
        REFUSE: "on_violation is 'refuse'",
    }[policy.on_violation]
    others = " or ".join(repr(name) for name in choices if name != policy.on_violation)
    other_policy = f"use on_violation={others}, " if others else ""
    instead = (
        "ask for something else, "
        if policy.finished
        else f"add SPELL() to the methods, {other_policy}"
    )
    return RefusedError(
        f"{len(refused)} of {len(report.images)} images are inside the protected set and are not "
        f"returned ({tried}): {named}{more}"
        f"{reasons}. The others are in this error's output, where these are blank. Draw from other "
        f"seeds, {instead}or give the shield a smaller radius",
        output=output,
        report=report,
        refused=refused,
    )


def _seed_again(generator: torch.Generator, attempt: int, place: int | None, choice: int) -> int:
    return derived_seed(generator, attempt, place, *([choice] if choice else []))


def _seeded(like: torch.Generator, seed: int) -> torch.Generator:
    return torch.Generator(device=like.device).manual_seed(seed)


def _place(report: Report, number: int) -> str:
    image = report.images[number]
    prompt = f" ({image.prompt!r})" if image.prompt else ""
    certificate = image.certificate
    if certificate is None:
        return f"image {number}{prompt}"
    found, decoded = certificate, certificate.decoded
    place = decoded if found.margin >= 0 and decoded is not None else found
    return (
        f"image {number}{prompt} is {place.distance:.6g} from {place.nearest_id!r}, "
        f"radius {found.radius:g}"
    )
