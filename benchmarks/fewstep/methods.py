"""The methods that are compared, and their settings: equally many for each.

A new method is one entry in `_families`, and one in `ALONE` if it sees each image by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from benchmarks.fewstep.models import Model
from benchmarks.pareto.trials import ANCESTRAL, AUTO, Trial

PLAIN = "plain sampling"
LOWER = "lower guidance scale"
SETTINGS = 6
"""Trials of each method but those in `OTHERWISE`."""

FIRST_STEP = "FirstStepBase"
ONE_PASS = f"{AUTO}, each step once"
RESTARTS = "steps taken again"
OTHERWISE = frozenset({PLAIN, FIRST_STEP})
"""Methods with other numbers of trials: plain sampling has one, and the LoRA of a model can be left
out at each number of first steps but all.
"""

ALONE = frozenset(
    {
        PLAIN,
        LOWER,
        ANCESTRAL,
        "IntervalGuidance",
        "CADS",
        "PinkNoise",
        "DAVE",
        FIRST_STEP,
        RESTARTS,
        "SeedVariance",
        "TSR",
    }
)
"""Methods that draw an image as they do without the others of its group: the same images, in groups
of any size.
"""

Options = Mapping[str, Any]


def plain(model: Model) -> Trial:
    """The setting that all others are compared with."""
    return Trial(PLAIN, model.guidance_scale)


def families(model: Model) -> dict[str, list[Trial]]:
    """The trials of each method that can act on a model.

    The strengths are around those of the publications and of `benchmarks.pareto`. With few steps
    they are larger and the windows are shares of a step: what is pushed at the first step is
    repaired by the later ones.
    """
    found = {PLAIN: [plain(model)]}
    if model.guidance_scale > 1:
        found[LOWER] = _lower(model)
        found["IntervalGuidance"] = _tuned(model, "IntervalGuidance", "interval", _intervals())
    if model.steps > 1:
        etas = [0.2, 0.4, 0.55, 0.7, 0.85, 1.0]
        apart = {"batch": False, "memory": False, "candidates": 1}
        found[ANCESTRAL] = _tuned(model, ANCESTRAL, "auto", [{"eta": e, **apart} for e in etas])
    for family, (method, settings) in _methods(few=model.few).items():
        found[family] = _tuned(model, family, method, settings)
    if model.lora and model.steps > 1:
        windows = [{"stop": k / model.steps} for k in range(1, model.steps)]
        found[FIRST_STEP] = _tuned(model, FIRST_STEP, "firststep", windows)
    for count in (2, 4):
        found[f"choice of {count}"] = [
            Trial(f"choice of {count}", model.guidance_scale, candidates={"count": count, **how})
            for how in _CHOICES
        ]
    return found | _combined(model) | _parts_of_auto(model)


def _parts_of_auto(model: Model) -> dict[str, list[Trial]]:
    """What `Auto` does in few steps, in parts: the repulsion that costs no evaluation, and steps
    that are taken again without any.
    """
    if not model.few or model.steps == 1:
        return {}
    strengths = [
        {"strength": s, "passes": 1, "candidates": 1} for s in (0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
    ]
    none = {"strength": 1e-9, "candidates": 1}  # 0 would leave all else out too
    passes = [{**none, "passes": p, "eta": e} for p, e in product((2, 3, 4), (0.0, 1.0))]
    return {
        ONE_PASS: _tuned(model, ONE_PASS, "auto", strengths),
        RESTARTS: _tuned(model, RESTARTS, "auto", passes),
    }


def _combined(model: Model) -> dict[str, list[Trial]]:
    """Methods that act together."""
    strengths = (0.3, 0.6, 1.0) if model.few else (0.1, 0.2, 0.4)
    stop = _FIRST if model.few else 0.3
    sparke = [{"sparke": {"strength": strength, "stop": stop}} for strength in strengths]
    return {
        "SPARKE on x0, choice of 2": [
            Trial(
                "SPARKE on x0, choice of 2",
                model.guidance_scale,
                own,
                candidates={"count": 2, **how},
            )
            for own, how in product(sparke, _CHOICES[:2])
        ],
        "CoupledNoise, SPARKE on x0": [
            Trial(
                "CoupledNoise, SPARKE on x0",
                model.guidance_scale,
                {"coupled": {"strength": coupled}, **own},
            )
            for own, coupled in product(sparke, (0.8, 1.0))
        ],
    }


_FIRST = 0.05
"""The end of a window that holds the first of up to twenty steps alone."""

_CHOICES: tuple[Options, ...] = (
    {"objective": "farthest"},
    {"objective": "farthest", "quality": "typicality", "weight": 0.25},
    {"objective": "farthest", "quality": "typicality", "weight": 1.0},
    {"objective": "log-determinant"},
    {"objective": "vendi"},
    {"objective": "vendi", "quality": "typicality", "weight": 0.25},
)
"""How seeds are chosen among candidates."""


def _methods(*, few: bool) -> dict[str, tuple[str, list[Options]]]:
    """Method of the tables → its name in the library, and its settings."""
    sparke = ((0.3, 0.6, 1.0), (_FIRST, 0.5)) if few else ((0.1, 0.2, 0.4), (0.3, 0.6))
    published = ((0.02, 0.05, 0.12), (_FIRST, 1.0)) if few else ((0.02, 0.05, 0.12), (0.6, 1.0))
    vendi = ((0.05, 0.2, 0.8), (_FIRST, 0.75)) if few else ((0.02, 0.05, 0.1), (0.6, 1.0))
    spell = ((0.25, 0.5, 0.8), (_FIRST, 1.0)) if few else ((0.1, 0.25, 0.5), (0.6, 1.0))
    contextual = ((0.1, 0.3, 1.0), (_FIRST, 0.5 if few else 0.2))
    return {
        "CADS": (
            "cads",
            [
                {"noise_scale": scale, "tau_1": low, "tau_2": high}
                for scale, (low, high) in product((0.05, 0.1, 0.25), ((0.6, 0.9), (0.85, 1.0)))
            ],
        ),
        "ParticleGuidance": ("particle", _grid("strength", (3.0, 10.0, 30.0), (0.5, 1.0))),
        "VendiGuidance": ("vendi", _grid("strength", *vendi)),
        "SPARKE as published": (
            "sparke",
            [{"target": "x_t", **options} for options in _grid("strength", *published)],
        ),
        "SPARKE on x0": ("sparke", _grid("strength", *sparke)),
        "SPELL": ("spell", _grid("factor", *spell)),
        "CoupledNoise": (
            "coupled",
            [{"strength": strength} for strength in (0.2, 0.4, 0.6, 0.8, 0.9, 1.0)],
        ),
        "PinkNoise": ("pink", [{"alpha": a} for a in (0.05, 0.1, 0.2, 0.3, 0.45, 0.6)]),
        "ContrastiveNoise": (
            "contrastive",
            [
                {"rate": rate, "through_model": through}
                for rate, through in product((0.02, 0.05, 0.1), (False, True))
            ],
        ),
        "ContextualRepulsion": ("contextual", _grid("strength", *contextual)),
        "DAVE": (
            "dave",
            [
                {"strength": strength, "layers": layers}
                for strength, layers in product((0.2, 0.35, 0.5), ("all", "middle"))
            ],
        ),
        "SeedVariance": (
            "seedvariance",
            [
                {"strength": strength, "share": share}
                for strength, share in product((0.3, 1.0, 2.0), (0.5, 1.0))
            ],
        ),
        "TSR": (
            "tsr",
            [
                {"temperature": temperature, "scale": scale}
                for temperature, scale in product((0.85, 0.93, 1.1), (1.0, 3.0))
            ],
        ),
        AUTO: (
            "auto",
            _AUTO_FEW if few else _AUTO_MANY,
        ),
    }


_AUTO_FEW: list[Options] = [
    {},
    {"strength": 0.3},
    {"strength": 0.5},
    {"strength": 0.6},
    {"strength": 0.8},
    {"eta": 0.0},
]
_AUTO_MANY: list[Options] = [
    {},
    {"strength": 0.2},
    {"strength": 0.8},
    {"strength": 1.2},
    {"strength": 0.8, "eta": 0.0},
    {"strength": 0.8, "noise_to_signal": 1.5},
]
"""Settings of `Auto` for few steps, and for many."""


def _grid(name: str, values: tuple[float, ...], stops: tuple[float, ...]) -> list[Options]:
    """Each value of an option with each end of the window."""
    return [{name: value, "stop": stop} for value, stop in product(values, stops)]


def _tuned(model: Model, family: str, method: str, settings: Sequence[Options]) -> list[Trial]:
    return [Trial(family, model.guidance_scale, {method: options}) for options in settings]


def _lower(model: Model) -> list[Trial]:
    """Guidance scales from 1 up to below that of plain sampling, by equal factors."""
    scales = [model.guidance_scale ** (k / SETTINGS) for k in range(SETTINGS)]
    return [Trial(LOWER, round(scale, 2)) for scale in scales]


def _intervals() -> list[Options]:
    """Noise levels between which there is guidance."""
    return [
        {"sigma_low": low, "sigma_high": high}
        for low, high in product((0.0, 0.28), (1.5, 2.9, 5.42))
    ]
