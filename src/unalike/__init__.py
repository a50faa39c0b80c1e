"""Makes the samples of a diffusion model unlike each other and unlike a protected set, without
training.

Names are imported when they are first used, so that `import unalike` and the command line's help
stay quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unalike import errors, kernels, metrics, scores
    from unalike.attach import GuidedPipeline, guide
    from unalike.guidance.auto import Auto
    from unalike.guidance.cads import CADS
    from unalike.guidance.interval import IntervalGuidance
    from unalike.guidance.particle import ParticleGuidance
    from unalike.guidance.sparke import SPARKE
    from unalike.guidance.spell import SPELL
    from unalike.guidance.vendi import VendiGuidance
    from unalike.memory import Memory
    from unalike.pipelines.loading import load
    from unalike.shields import Shield

__version__ = "0.1.0"

__all__ = [
    "CADS",
    "SPARKE",
    "SPELL",
    "Auto",
    "GuidedPipeline",
    "IntervalGuidance",
    "Memory",
    "ParticleGuidance",
    "Shield",
    "VendiGuidance",
    "__version__",
    "errors",
    "guide",
    "kernels",
    "load",
    "metrics",
    "scores",
]

_HOMES = {
    "Auto": "unalike.guidance.auto",
    "CADS": "unalike.guidance.cads",
    "GuidedPipeline": "unalike.attach",
    "IntervalGuidance": "unalike.guidance.interval",
    "Memory": "unalike.memory",
    "ParticleGuidance": "unalike.guidance.particle",
    "SPARKE": "unalike.guidance.sparke",
    "SPELL": "unalike.guidance.spell",
    "Shield": "unalike.shields",
    "VendiGuidance": "unalike.guidance.vendi",
    "guide": "unalike.attach",
    "load": "unalike.pipelines.loading",
}
_MODULES = ("errors", "kernels", "metrics", "scores")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _MODULES:
        return import_module(f"unalike.{name}")
    raise AttributeError(f"module 'unalike' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
