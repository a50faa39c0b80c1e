"""Draw images again whose finished image is inside the protected set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from unalike.attach.diffusers.evaluation import evaluate
from unalike.attach.run.encoders import Encoder
from unalike.attach.run.guard import Guard, inside_any
from unalike.attach.run.policy import Redraw
from unalike.guidance.method import Method
from unalike.guidance.spell import LAST, SPELL

STEERING = 1.5
"""SPELL's overcompensation while an image is restarted: the autoencoder takes part of a move back.
"""
WIDER = 1.25
"""A factor on the distance of images inside from the protected latents: SPELL keeps restarted ones
that far away, where features decide.
"""
SEEDS = 4
"""The seeds that are tried for an image in one attempt, at most, by their first predictions."""


def steered(methods: Sequence[Method]) -> list[Method]:
    """The methods, and SPELL around the protected set where none of them is."""
    if any(isinstance(method, SPELL) and method.shield for method in methods):
        return list(methods)
    return [*methods, SPELL(batch=False, memory=False, overcompensation=STEERING, stop=LAST)]


def with_other_seeds(
    pipe: Any,
    redraw: Redraw,
    rows: Sequence[int],
    images: int,
    attempt: int,
    *,
    guards: Sequence[Guard],
    encoder: Encoder | None,
    groups: Sequence[int] | Tensor | None,
) -> tuple[dict[str, Any], int]:
    """The arguments of a call that draws images from other seeds: for each image the first of up to
    `SEEDS` whose first predictions are outside the protected set, or the last of them; and how many
    evaluations of an image were spent to find them.

    Args:
        pipe: a diffusers pipeline.
        redraw: of the call.
        rows: numbers of the images.
        images: how many the call makes.
        attempt: 1 for the first time.
        guards: of the protected sets; none to take the first seed.
        encoder, groups: as of `guide`.
    """
    choices, left, calls = dict.fromkeys(rows, 0), list(rows), 0
    for choice in range(SEEDS if guards else 0):
        choices.update(dict.fromkeys(left, choice))
        asked = redraw.arguments(rows, images, attempt, choices)
        if choice + 1 == SEEDS or asked.get("generator") is None:
            break
        found = evaluate(pipe, asked, "auto", encoder=encoder, groups=groups)
        calls += found.calls
        inside = inside_any(guards, found.x0).tolist()
        left = [row for row in left if inside[row]]
        if not left:
            break
    return redraw.arguments(rows, images, attempt, choices), calls
