"""The settings that are compared: equally many for each method."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

Methods = Mapping[str, Mapping[str, Any]]
INDEPENDENT = "independent sampling"
ANCESTRAL = "ancestral sampling"
AUTO = "Auto"


@dataclass(frozen=True)
class Trial:
    """One setting of one method.

    Args:
        family: the method, as tables call it.
        guidance_scale: weight of classifier-free guidance.
        methods: name → options; none for independent sampling.
        memory: whether samples are drawn in batches of eight, of which later ones know the earlier,
            in place of all at once.
        candidates: options of `unalike.attach.Candidates`; none where seeds are not chosen.
    """

    family: str
    guidance_scale: float
    methods: Methods = field(default_factory=dict)
    memory: bool = False
    candidates: Mapping[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> str:
        """The options in words, as in "strength 0.1", of several methods with their names."""
        named = len(self.methods) > 1
        parts = [
            f"{method} {name} {value}" if named else f"{name} {value}"
            for method, options in self.methods.items()
            for name, value in options.items()
        ]
        return ", ".join([*parts, *(f"{name} {value}" for name, value in self.candidates.items())])

    @property
    def setting(self) -> str:
        """Options and guidance scale in words, as in "strength 0.1, CFG 2.5"."""
        scale = f"CFG {self.guidance_scale:g}"
        return f"{self.options}, {scale}" if self.options else scale

    @property
    def key(self) -> str:
        """What tells it from all others."""
        parts: list[Any] = [self.family, self.guidance_scale, self.methods, self.memory]
        return json.dumps([*parts, self.candidates] if self.candidates else parts, sort_keys=True)

    @classmethod
    def from_key(cls, key: str) -> Trial:
        """The trial of a key."""
        return cls(*json.loads(key))

    def with_memory(self) -> Trial:
        """The same in batches that know the earlier ones."""
        return replace(self, memory=True)


def families(task: str) -> dict[str, list[Trial]]:
    """Eight trials for each method: for most of them two strengths at four weights of
    classifier-free guidance.

    Ancestral sampling is `Auto` with nothing to be unlike, which leaves the noise that it draws
    anew. Strengths are those around the publications' that leave the images of these models whole;
    larger ones were tried on a few prompts and break them.
    """
    scales = (1.5, 2.0, 3.0, 7.5) if task == "emoji" else (1.0, 1.5, 2.0, 4.0)
    weights = (
        (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.5, 7.5)
        if task == "emoji"
        else (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
    )
    above = (2.0, 3.0, 4.0, 7.5) if task == "emoji" else (1.5, 2.0, 3.0, 4.0)
    kicks = (10.0, 30.0) if task == "emoji" else (1.0, 3.0)  # latents of 1,024 numbers, and of 256
    radii = (
        (0.1, 0.25) if task == "emoji" else (0.4, 0.6)
    )  # at 0.25 no ball is ever touched on the digits
    return {
        INDEPENDENT: [Trial(INDEPENDENT, weight) for weight in weights],
        "IntervalGuidance": _grid(
            "IntervalGuidance",
            above,
            "interval",
            {"sigma_low": 0.28, "sigma_high": 2.9},
            {"sigma_low": 0.28, "sigma_high": 5.42},
        ),
        "CADS": _grid("CADS", scales, "cads", {"noise_scale": 0.1}, {"noise_scale": 0.25}),
        "ParticleGuidance": _grid(
            "ParticleGuidance", scales, "particle", *({"strength": strength} for strength in kicks)
        ),
        "VendiGuidance": _grid(
            "VendiGuidance", scales, "vendi", {"strength": 0.02}, {"strength": 0.05}
        ),
        "SPARKE as published": _grid(
            "SPARKE as published",
            scales,
            "sparke",
            *({"target": "x_t", "every": 5, "strength": strength} for strength in (0.02, 0.05)),
        ),
        "SPARKE on x0": _grid(
            "SPARKE on x0",
            scales,
            "sparke",
            *({"strength": strength, "stop": 0.6} for strength in (0.1, 0.2)),
        ),
        "SPELL": _grid("SPELL", scales, "spell", *({"factor": factor} for factor in radii)),
        ANCESTRAL: [
            Trial(ANCESTRAL, weight, {"auto": {"batch": False, "memory": False}})
            for weight in weights
        ],
        AUTO: _grid(AUTO, scales, "auto", {}, {"strength": 0.8}),
    }


def _grid(
    family: str, scales: Sequence[float], method: str, *options: Mapping[str, Any]
) -> list[Trial]:
    return [Trial(family, scale, {method: chosen}) for scale, chosen in product(scales, options)]
