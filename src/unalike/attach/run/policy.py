"""Policies for images inside the protected set: move them out, draw them again, refuse them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from unalike.attach.diffusers.host import Host
from unalike.attach.run.randomness import copied, derived_seed, occurrences
from unalike.attach.run.report import Report
from unalike.errors import OptionError, RefusedError, ShieldError, UnsupportedError

MOVE, REGENERATE, REFUSE = POLICIES = ("move", "regenerate", "refuse")
ATTEMPTS = 3
_NAMED = 5


@dataclass(frozen=True)
class Policy:
    """A policy for images whose final latent lies in a protected ball; none is returned.

    Args:
        on_violation: "move" out of the balls after the last step; "regenerate", draw again from
            other noise; "refuse" to return it. What cannot be moved out, and what is still inside
            when it was drawn again for the last time, is refused too.
        attempts: how often an image is drawn again at most, with "regenerate".

    Raises:
        OptionError: for anything else than these, and for a number of attempts where nothing is
            drawn again.

    Example:
        >>> Policy("regenerate", 2).redraws, Policy("move").redraws
        (2, 0)
    """

    on_violation: str = MOVE
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
        if self.attempts != ATTEMPTS and self.on_violation != REGENERATE:
            raise OptionError(
                f"attempts is {self.attempts} and on_violation is {self.on_violation!r}, which "
                "draws nothing again; leave attempts out, or "
                "set on_violation='regenerate'"
            )

    @property
    def redraws(self) -> int:
        """The largest number of times that an image is drawn again."""
        return self.attempts if self.on_violation == REGENERATE else 0

    def require(self, pipe: Any, *, shielded: bool) -> None:
        """Check that the policy can be kept with this pipeline.

        Raises:
            OptionError: when there is no shield that a policy could be for.
            UnsupportedError: when images are to be drawn again and the pipeline cannot be told from
                which noise.
        """
        if not shielded and self.on_violation != MOVE:
            raise OptionError(
                f"on_violation is {self.on_violation!r} and there is no shield; pass one, as in "
                "guide(pipe, shield=Shield.open(folder))"
            )
        if self.redraws and "generator" not in Host(pipe).parameters:
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

    Raises:
        OptionError: for a call with explicit latents.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        if arguments.get("latents") is not None:
            raise OptionError(
                "latents are given and on_violation is 'regenerate': images of fixed noise cannot "
                "be drawn again; leave latents out, or "
                "use on_violation='move' or 'refuse'"
            )
        self._arguments = dict(arguments)
        self._generator = copied(arguments.get("generator"))

    def arguments(self, rows: Sequence[int], images: int, attempt: int) -> dict[str, Any]:
        """Make the arguments of a call that draws these images again.

        Args:
            rows: numbers of images.
            images: how many the call makes.
            attempt: 1 for the first time that images are drawn again.
        """
        known = self._generator
        if known is None:
            return self._arguments
        own = list(known) if isinstance(known, list | tuple) else [known]
        if len(own) != images:
            again = [_seeded(own[0], derived_seed(own[0], attempt, i)) for i in range(images)]
            return {**self._arguments, "generator": again}
        anew, kept, places = {id(own[i]) for i in rows}, copied(own), occurrences(own)
        again = [
            _seeded(g, derived_seed(g, attempt, place or None)) if id(g) in anew else kept[i]
            for i, (g, place) in enumerate(zip(own, places, strict=True))
        ]
        return {**self._arguments, "generator": again}


def refusal(
    output: Any,
    report: Report,
    refused: list[int],
    failures: Mapping[int, ShieldError],
    policy: Policy,
    choices: Sequence[str] = (MOVE, REGENERATE),
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
        REGENERATE: f"they were drawn again {times}",
        REFUSE: "on_violation is 'refuse'",
    }[policy.on_violation]
    others = " or ".join(repr(name) for name in choices if name != policy.on_violation)
    instead = f"use on_violation={others}, " if others else ""
    return RefusedError(
        f"{len(refused)} of {len(report.images)} images are inside the protected set and are not "
        f"returned ({tried}): {named}{more}"
        f"{reasons}. The others are in this error's output, where these are blank. Draw from other "
        "seeds, add SPELL() to the methods, "
        f"{instead}or give the shield a smaller radius",
        output=output,
        report=report,
        refused=refused,
    )


def _seeded(like: torch.Generator, seed: int) -> torch.Generator:
    return torch.Generator(device=like.device).manual_seed(seed)


def _place(report: Report, number: int) -> str:
    image = report.images[number]
    prompt = f" ({image.prompt!r})" if image.prompt else ""
    certificate = image.certificate
    if certificate is None:
        return f"image {number}{prompt}"
    return (
        f"image {number}{prompt} is {certificate.distance:.6g} from {certificate.nearest_id!r}, "
        f"radius {certificate.radius:g}"
    )
