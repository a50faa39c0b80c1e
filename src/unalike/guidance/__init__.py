"""Guidance methods: corrections of a sampler's predicted clean latents, or of what the model is
told, that make images unlike each other.

`methods` is the table of all of them, `base` what a method is, `run` one guided generation on any
host, and one file a method.
"""

from unalike.guidance.auto import Auto
from unalike.guidance.balls import Balls
from unalike.guidance.base import Context, Method, Protected, References
from unalike.guidance.cads import CADS
from unalike.guidance.interval import IntervalGuidance
from unalike.guidance.methods import METHODS, build, options
from unalike.guidance.particle import ParticleGuidance
from unalike.guidance.run import Prepared, Run, Trace
from unalike.guidance.sparke import SPARKE
from unalike.guidance.spell import SPELL
from unalike.guidance.vendi import VendiGuidance

__all__ = [
    "CADS",
    "METHODS",
    "SPARKE",
    "SPELL",
    "Auto",
    "Balls",
    "Context",
    "IntervalGuidance",
    "Method",
    "ParticleGuidance",
    "Prepared",
    "Protected",
    "References",
    "Run",
    "Trace",
    "VendiGuidance",
    "build",
    "options",
]
